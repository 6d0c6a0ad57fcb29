"""No text of a figure is cut or covered; the figures are the same each time."""

import itertools
import xml.etree.ElementTree
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_stats_report import models, studies, with_subgroups

from stats.predictions import Predictions
from stats.study import adjust, study


def test_figures_can_be_opened_and_are_the_same_each_time(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from stats.report.figures import FORMATS, draw_figures

    monkeypatch.setitem(FORMATS, "png", FORMATS["png"] | {"dpi": 100})
    found = studies()
    aligned = [models(), models(("imagenet", "mimic", "dinov2"), seed=1)]
    first = {
        name: (tmp_path / name).read_bytes() for name in draw_figures(tmp_path, found, aligned)
    }
    stems = ["forest", "forest-cxr14", "forest-phantom", "figure3", "figure4-cxr14",
             "figure4-phantom", "decision-cxr14", "decision-phantom", "calibration-cxr14",
             "calibration-phantom"]
    assert set(first) == {
        f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")
    }
    draw_figures(tmp_path, found, aligned)
    for name, data in first.items():
        assert (tmp_path / name).read_bytes() == data, name
        if name.endswith("png"):
            with Image.open(tmp_path / name) as picture:
                picture.load()
                assert 200 < picture.width <= 720 and np.asarray(picture.convert("L")).std() > 10
        else:
            xml.etree.ElementTree.fromstring(data)
            assert b"<dc:date>" not in data
    assert not list(tmp_path.glob(".*"))


def assert_readable(figure, name="figure"):
    """No text leaves the canvas or lies on another, by matplotlib's own boxes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    hidden = set()
    for axis in [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]:
        low, high = sorted(axis.get_view_interval())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
            if not low <= tick.get_loc() <= high:
                hidden |= {tick.label1, tick.label2}
    boxes = [
        (text.get_text(), text.get_window_extent(renderer))
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
        if text.axes is None or text.axes.axison
    ]
    assert boxes
    canvas = figure.bbox
    for text, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= canvas.x1 + 1
        assert inside and box.y1 <= canvas.y1 + 1, f"{name}: {text!r} leaves the canvas"
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width < 1 or height < 1, f"{name}: {a!r} and {b!r} overlap"


@pytest.mark.parametrize("prevalence", [0.02, 0.3])
def test_a_decision_curve_ends_where_nobody_would_treat_all(prevalence):
    pytest.importorskip("matplotlib")
    from stats.report.probability_figures import decision_curves

    rng = np.random.default_rng(0)
    aligned = []
    for m in models(n=2000):
        y = (rng.random(m.y_true.shape) < prevalence).astype(np.float32)
        aligned.append(replace(m, y_true=y))
    aligned = [replace(m, y_true=aligned[0].y_true) for m in aligned]
    (s,) = adjust([study("cxr14", aligned, n_resamples=20)], "comparison")
    figure = decision_curves(s, aligned)
    share = aligned[0].y_true[:, 0].mean()
    last = figure.axes[0].get_xlim()[1]
    assert prevalence < last < 1
    assert share - (1 - share) * last / (1 - last) == pytest.approx(-3 * share)  # of treating all
    assert "no intervals" in figure.get_suptitle().replace("\n", " ")


WORDY = "an init or a finding of a long name, which its maker gave it"


@pytest.fixture(scope="module")
def large():
    """A study of 6 models and 17 labels with subgroups, and what it was made from."""
    rng = np.random.default_rng(0)
    y = (rng.random((200, 17)) < 0.4).astype(np.float32)
    ids, labels = np.arange(200).astype(str), [str(at) for at in range(17)]
    found = [
        Predictions(ids, None, labels, y, 1 / (1 + np.exp(-(rng.normal(size=y.shape) + y))),
                    {"name": str(at), "run": str(at)})
        for at in range(6)
    ]
    (s,) = adjust([study("cxr14", found, n_resamples=20)], "comparison")
    return s, found


def cut(large, n_models, n_labels, length):
    """The first models and labels of the large study, under names of that length."""
    s, found = large
    name = {str(at): f"{at} {WORDY}"[:length].strip() for at in range(17)}
    labels = s.labels[:n_labels]

    def named(cells):
        return {name[label]: cells[label] for label in labels}

    smaller = replace(
        s,
        labels=tuple(named(dict.fromkeys(labels))),
        models=tuple(replace(m, name=name[m.name], labels=named(m.labels))
                     for m in s.models[:n_models]),
        comparisons=tuple(replace(c, a=name[c.a], b=name[c.b], labels=named(c.labels))
                          for c in s.comparisons if int(c.b) < n_models),
    )
    return smaller, [replace(p, meta={"name": name[p.meta["name"]]}) for p in found[:n_models]]


@pytest.mark.parametrize(
    "n_models, n_labels, length",
    [(1, 1, 3), (1, 17, 40), (2, 5, 3), (3, 5, 40), (6, 1, 3), (6, 17, 40)],
)
def test_no_text_of_a_figure_is_cut_or_covered(large, n_models, n_labels, length):
    matplotlib = pytest.importorskip("matplotlib")
    from stats.report import figures, forest

    s, found = cut(large, n_models, n_labels, length)
    few = replace(s, comparisons=s.comparisons[:1] + s.comparisons[1:][-1:])
    shown = with_subgroups(few)
    transfer = [replace(few, corpus_title=test, trained_on=origin, trained_on_title=origin)
                for test in ("cxr14", "padchest") for origin in ("chexpert", "mimic")]
    with matplotlib.rc_context(figures.SETTINGS | {"figure.dpi": 72}):
        drawn = {"one panel": figures.box_plots([s]), "curves": figures.roc_curves(s, found)}
        drawn["two panels"] = figures.box_plots([s, replace(s, corpus_title="PadChest")])
        for studies in ([shown], transfer):
            drawn |= forest.interval_plots(studies)
        if n_models == 2:
            drawn["six panels"] = figures.box_plots([s] * 6)
        for name, figure in drawn.items():
            assert_readable(figure, name)


@pytest.mark.parametrize("epochs", [1, 3])
def test_curves_of_a_single_epoch_can_be_seen(tmp_path, epochs, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from stats.curves import plot_curves

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: kept.append(self))
    labels = {f"auroc a finding with a rather long name, number {at}": 0.5 for at in range(17)}
    rows = [
        {"epoch": e, "train_loss": 1.0, "val_loss": 1.0, "val_auroc": [0.6, 0.7, 0.65][e - 1]}
        | labels
        for e in range(1, epochs + 1)
    ]
    plot_curves(rows, tmp_path / "curves.png")
    (figure,) = kept
    assert_readable(figure)
    auc = figure.axes[1]
    assert all(
        line.get_marker() != "None"
        for line in auc.lines
        if len(line.get_xdata()) == epochs and line.get_label() != "chance"
    )
    assert [line.get_label() for line in auc.lines][-1] == (
        f"highest mean: epoch {1 if epochs == 1 else 2}"
    )
    chance = next(line for line in auc.lines if line.get_label() == "chance")
    assert set(chance.get_ydata()) == {0.5}


def test_a_planner_gets_a_plot(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from stats import power

    kept = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: kept.append(self) or save(
        self, *a, **k))
    words = "--sd-runs 0.3 --se-test 0.25 --patients 2797 --plot"
    assert power.main([*words.split(), str(tmp_path / "power.png")]) == 0
    with Image.open(tmp_path / "power.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    (figure,) = kept
    assert_readable(figure)
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["2", "3", "5", "10", "20"]
    three = axes.lines[1]
    for patients, difference in zip(*three.get_data()):
        found = power.power(difference, 0.3, 0.25 * (2797 / patients) ** 0.5, 3)
        assert found == pytest.approx(0.8, abs=0.002)  # less the tail on the other side
    assert sorted(three.get_ydata(), reverse=True) == list(three.get_ydata())
