"""Logistic maps, prior shifts and the reliability diagram."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from export_models import open_split
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

from export import to_onnx
from export.calibrate import Calibrated, calibrate, calibration_error, choose, folds, platt, sigmoid
from export.runtime import Predictor
from export.to_onnx import main
from models.checkpoint import save_checkpoint

torch.set_num_threads(1)

pytest_plugins = ["export_runs"]  # corpus, checkpoint, run


@pytest.mark.parametrize("slope, offset, count", [(0.4, -2.0, 500), (3.0, 1.0, 80), (1.0, 0.0, 30)])
def test_platt_is_scikit_learns_logistic_regression_on_platts_targets(slope, offset, count):
    rng = np.random.default_rng(count)
    logit = rng.normal(0, 2, count)
    y = (rng.random(count) < sigmoid(slope * logit + offset)).astype(float)
    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    both = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.tile(logit, 2)[:, None],
        np.repeat([1, 0], count),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    assert platt(y, logit) == pytest.approx((both.coef_[0, 0], both.intercept_[0]), abs=1e-4)


def test_platt_finds_the_map_that_made_the_labels():
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 2, 200_000)
    y = (rng.random(200_000) < sigmoid(0.7 * logit - 1.5)).astype(float)
    assert platt(y, logit) == pytest.approx((0.7, -1.5), abs=0.03)


def test_calibration_error_of_hand_made_bins():
    probability = np.array([0.05] * 10 + [0.75] * 20 + [1.0] * 10)
    y = np.array([0] * 8 + [1] * 2 + [0] * 5 + [1] * 15 + [1] * 9 + [0])
    assert calibration_error(y, probability) == pytest.approx(
        (10 * 0.15 + 20 * 0.0 + 10 * 0.1) / 40
    )


def test_a_label_is_calibrated_only_where_that_helps(monkeypatch, capsys):
    rng = np.random.default_rng(0)
    inflated = rng.uniform(0.05, 0.95, 1000)
    exact = np.repeat(
        np.arange(10) / 10 + 0.05, 100
    )  # of each bin, as many are positive as its probability says
    y_true = np.stack(
        [
            rng.random(1000) < sigmoid(np.log(inflated / (1 - inflated)) - 2),
            np.arange(1000) % 100 < np.repeat(np.arange(10) * 10 + 5, 100),
        ],
        axis=1,
    ).astype(np.float32)
    scores = np.stack([inflated, exact], axis=1).astype(np.float32)
    table = SimpleNamespace(patient_id=np.arange(1000).astype(str))

    def fitted(columns):
        labels = ["inflated", "exact"][columns]
        dataset = type("Validation", (), dict(labels=labels, table=table, __len__=lambda _: 1000))()
        monkeypatch.setattr(
            "export.calibrate.predict", lambda *_, **__: (y_true[:, columns], scores[:, columns])
        )
        model = SimpleNamespace(head=torch.nn.Linear(1, scores[:, columns].shape[1]))
        torch.nn.init.ones_(model.head.weight), torch.nn.init.zeros_(model.head.bias)
        count = scores[:, columns].shape[1]
        return calibrate(model, dataset, [0.5] * count, {}, np.full(count, 20.0)), model.head

    result, head = fitted(slice(0, 2))
    assert head.bias[0].item() == pytest.approx(-2, abs=0.3) and result.thresholds[0] < 0.2
    assert (
        head.weight[1].item() == 1
        and head.bias[1].item() == 0
        and result.thresholds[1] == pytest.approx(0.5)
    )
    assert np.isnan(result.after[:, 1]).all() and not np.isnan(result.after[:, 0]).any()
    assert [one["method"] for one in result.calibration] == ["platt", "none"]
    assert "left as it is" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no label's probabilities come nearer"):
        fitted(slice(1, 2))


@pytest.mark.parametrize("first", range(0, 60, 6))
def test_folds_keep_patients_whole_and_have_both_kinds(first):
    patients = np.repeat(np.arange(60), 3)
    y = np.zeros(180)
    y[3 * np.arange(first, first + 6) + 1] = 1  # one image each of six patients
    fold, counts = folds(y, patients)
    assert counts == (6, 54)
    assert all(len(set(fold[patients == patient])) == 1 for patient in range(60))
    assert all(y[fold == k].any() for k in range(5)) and np.bincount(fold).max() <= 3 * (11 + 2)


def calibrated(monkeypatch, y, scores, patients, weight, thresholds=None):
    """`calibrate` on given validation predictions: its result and the head."""
    labels = [f"label {i}" for i in range(y.shape[1])]
    table = SimpleNamespace(patient_id=patients)
    dataset = type("Validation", (), dict(labels=labels, table=table, __len__=lambda _: len(y)))()
    monkeypatch.setattr("export.calibrate.predict", lambda *_, **__: (y, scores))
    model = SimpleNamespace(head=torch.nn.Linear(1, len(labels)))
    torch.nn.init.ones_(model.head.weight), torch.nn.init.zeros_(model.head.bias)
    result = calibrate(model, dataset, thresholds or [0.5] * len(labels), {}, weight)
    return result, model.head


def test_a_label_of_too_few_patients_loses_its_class_weight(monkeypatch, capsys):
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.05, 0.95, (400, 3)).astype(np.float32)
    y = (rng.random((400, 3)) < sigmoid(np.log(scores / (1 - scores)) - 2)).astype(np.float32)
    patients = np.arange(400).astype(str)
    y[:, 1:], patients[:40] = 0, np.repeat(["a", "b", "c", "d"], 10)
    y[:40, 1:] = 1  # many images, of four patients
    weight = np.array([8.0, 8.0, 1.0])
    result, head = calibrated(monkeypatch, y, scores, patients, weight)
    after = result.after
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    reason = "4 patients with it and 360 without; 5 of each are needed"
    assert (
        f"class weight taken back: {reason}" in lines[2] and f"left as it is: {reason}" in lines[3]
    )
    assert [one["method"] for one in result.calibration] == ["platt", "prior", "none"]
    odds = scores[:, 1] / (1 - scores[:, 1])
    assert np.allclose(after[:, 1] / (1 - after[:, 1]), odds / 8, rtol=1e-4)
    assert np.isnan(after[:, 2]).all()
    assert head.bias[1].item() == pytest.approx(-np.log(8)) and head.bias[2].item() == 0
    assert result.thresholds[1] == pytest.approx(1 / 9) and result.thresholds[2] == 0.5


def test_the_class_weight_is_what_the_weighted_loss_adds():
    """A fit of PyTorch's weighted loss, less log(w), says the frequencies of the data."""
    rng = np.random.default_rng(3)
    x = torch.tensor(rng.integers(0, 4, 4000), dtype=torch.long)
    rate = torch.tensor([0.02, 0.05, 0.1, 0.3])
    y = (torch.tensor(rng.random(4000)) < rate[x]).double()
    w = torch.tensor(float((1 - y).sum() / y.sum())).double()
    logit = torch.zeros(4, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=200, tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit[x], y, pos_weight=w)
        loss.backward()
        return loss

    optimizer.step(closure)
    frequency = torch.stack([y[x == k].mean() for k in range(4)])
    shifted = choose(
        np.array([1.0, 0.0]), logit.detach().numpy()[:2], np.array(["a", "b"]), w.item()
    ).map
    found = torch.sigmoid(logit.detach() + shifted.offset)
    assert shifted.method == "prior" and torch.allclose(found, frequency, atol=1e-6)


@pytest.mark.parametrize("kind", ["backwards", "steep"])
def test_a_label_that_would_be_inverted_or_stretched_is_refused_by_name(monkeypatch, capsys, kind):
    rng = np.random.default_rng(2)
    y = (rng.random((300, 2)) < 0.2).astype(np.float32)
    logit = rng.normal(0, 1, (300, 2)) + 2 * y - 1
    if kind == "backwards":
        logit[:, 1] = rng.normal(2, 1, 300) - 2 * y[:, 1]
    else:
        logit[:, 1] = 0.02 * (rng.normal(0, 1, 300) + 4 * y[:, 1])  # a slope of about 200
    scores = sigmoid(logit).astype(np.float32)
    result, head = calibrated(
        monkeypatch, y, scores, np.arange(300).astype(str), np.array([4.0, 4.0])
    )
    line = next(line for line in capsys.readouterr().out.splitlines() if "label 1" in line)
    assert ("AUC on validation is 0.0" if kind == "backwards" else "a slope of ") in line
    first, second = result.calibration
    assert first["method"] == "platt" and second["method"] != "platt" and second["slope"] == 1
    assert head.weight[1].item() == 1


def test_reliability_shows_calibrated_labels_alone(tmp_path, monkeypatch):
    """The number of predictions that are drawn, read off the figure's lower axes."""
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figures, made = [], Figure.__init__

    def init(self, *args, **kwargs):
        figures.append(self)
        made(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "__init__", init)
    rng = np.random.default_rng(0)
    before = rng.random((200, 2))
    y = (rng.random((200, 2)) < before).astype(float)
    after = np.stack([before[:, 0] ** 2, np.full(200, np.nan)], 1)
    result = Calibrated([], [], y, before, after)
    to_onnx.draw_reliability(tmp_path / "reliability.png", result)
    upper, lower = figures[0].axes
    assert [int(line.get_ydata().sum()) for line in lower.lines] == [200, 200]
    assert "1 calibrated labels" in upper.get_title() and len(upper.containers) == 2
    bars = upper.containers[0]  # before calibration, a bin each tenth
    tenth = (before[:, 0] * 10).astype(int)
    for found, values in zip(bars[0].get_data(), (before[:, 0], y[:, 0]), strict=True):
        assert found == pytest.approx([values[tenth == i].mean() for i in range(10)])
    for count, frequency, bar in zip(lower.lines[0].get_ydata(), bars[0].get_ydata(),
                                     bars[2][0].get_segments(), strict=True):
        wilson = binomtest(round(count * frequency), int(count)).proportion_ci(method="wilson")
        assert bar[0, 1] <= wilson.low <= wilson.high <= bar[1, 1]  # Student's t is a bit wider
        assert np.ptp(bar[:, 1]) < 1.2 * (wilson.high - wilson.low)
    FigureCanvasAgg(figures[0]).draw()
    size = figures[0].bbox
    for text in [
        upper.title,
        *upper.texts,
        upper.xaxis.label,
        upper.yaxis.label,
        lower.xaxis.label,
    ]:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= size.x1 and box.y0 >= 0 and box.y1 <= size.y1


def test_calibrated_file_ranks_and_decides_as_before(run, checkpoint, corpus):
    test = open_split(corpus, "test")
    files = [test.path(i) for i in range(len(test))]
    assert main([str(run)]) == 0
    middle = np.median(Predictor(run / "model.onnx", "cpu")(files), axis=0)[:5].tolist()
    save_checkpoint(run / "best.pt", checkpoint | dict(thresholds=[*middle, None]))
    assert main([str(run)]) == 0
    assert main([str(run), "--calibrate", "--out", str(run / "calibrated.onnx")]) == 0
    before, after = Predictor(run / "model.onnx", "cpu"), Predictor(run / "calibrated.onnx", "cpu")
    p, q = before(files), after(files)
    assert np.abs(p - q).max() > 0.02
    for i in range(p.shape[1]):
        order = np.argsort(p[:, i], kind="stable")
        assert (np.diff(q[order, i]) >= -1e-6).all()
    same = before.predict_labels(p) == after.predict_labels(q)
    for t, moved, old, new in zip(before.thresholds[:5], after.thresholds, p.T, q.T):
        assert moved == pytest.approx(np.interp(t, np.sort(old), np.sort(new)), abs=0.02)
    assert same.mean() > 0.95  # float32 may tip the one probability of a label on its threshold
    assert "platt" in after.calibration and after.metadata["thresholds"][5] is None
    assert (
        "logistic map (Platt) fitted on validation: "
        in (run / "MODEL_CARD-calibrated.md").read_text()
    )
    assert (run / "reliability.png").exists()
