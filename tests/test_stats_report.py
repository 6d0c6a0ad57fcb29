"""Studies, tables and figures: numbers against scikit-learn and SciPy, files others can read."""

import csv
import io
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from sklearn.metrics import roc_auc_score

from stats import results
from stats.predictions import Predictions
from stats.report import show
from stats.report.answers import answers, cautions
from stats.report.formats import tex, to_latex
from stats.report.tables import all_tables, remarks
from stats.report.write import write_report
from stats.results import Estimate, Gap, GroupScores, Interaction, Subgroups
from stats.study import TABLE4, TABLE5, adjust, study

LABELS = ["Edema", "Hernia", "Mass & more_100%", "No finding"]
SETTINGS = {"n_resamples": 150, "seed": 0, "resample": "image", "thresholds": "test",
            "alternative": "two-sided", "family": "comparison", "labels": "all", "min_count": 15}

REPORT = ("report.html", "report.md", "tables.tex", "metrics.csv", "comparisons.csv",
          "comparisons-metrics.csv", "report.json")
PATIENT = SETTINGS | {"resample": "patient"}
DRAWN = {"resample": "image"}


def models(inits=("dinov2", "imagenet"), n=120, seed=0, title="ChestX-ray14"):
    """Predictions of models of rising quality; nobody has a hernia."""
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 4)) < (0.3, 0, 0.5, 0.4)).astype(np.float32)
    y[3, 0] = np.nan
    ids = np.array([f"{i:04d}.png" for i in range(n)])
    patients = np.array([f"p{i // 2}" for i in range(n)])
    return [
        Predictions(
            ids,
            patients,
            LABELS,
            y,
            (1 / (1 + np.exp(-(0.6 * (at + 1) * y_known + rng.normal(size=y.shape))))).astype(
                np.float32
            ),
            {
                "name": init,
                "init": init,
                "run": f"cxr14-{init}",
                "corpus_title": title,
                "thresholds": [0.5, None, 0.4, None],
            },
        )
        for at, init in enumerate(inits)
        for y_known in [np.nan_to_num(y)]
    ]


def studies(**changes):
    found = [
        study("cxr14", models(), n_resamples=150, **(DRAWN | changes)),
        study(
            "phantom",
            models(("imagenet", "mimic", "dinov2"), seed=1, title="Phantom"),
            n_resamples=150,
            left_out=["Nodule"],
            **(DRAWN | changes),
        ),
    ]
    return adjust(found, "comparison")


def with_subgroups(s):
    """The study with made-up subgroups, as `stats.subgroups` gives them."""
    rng = np.random.default_rng(1)

    def cell(value):
        ends = value - rng.uniform(0, 0.03), value + rng.uniform(0, 0.03)
        return Estimate(value, ends, 0.01, value, 0.01)

    names = [m.name for m in s.models]
    metrics = {"auroc": 0.8, "sensitivity": 0.7, "specificity": 0.75, "fpr_no_finding": 0.2}
    attributes = {"sex": ("F", "M"), "age": ("0-39", "40-59", "60-79", "80+"), "view": ("AP", "PA")}
    groups = [
        GroupScores(at, group, 1234, None if at == "sex" else 56, s.labels,
                    {name: {x: cell(value) for x, value in metrics.items()} for name in names})
        for at, of in attributes.items() for group in of
    ]
    test = results.Test(0.031, (0.01, 0.052), 0.01, 0.03, 0.01, 0.004, 0.0, p_adjusted=0.016)
    gaps = [Gap(at, name, "fpr_no_finding", of[-1], of[0], test)
            for at, of in attributes.items() for name in names]
    inits = [Interaction("sex", "F", a, b, replace(test, p_adjusted=0.4))
             for a, b in itertools.combinations(names, 2)]
    by_group = Subgroups(tuple(groups), tuple(gaps), tuple(inits),
                         ("view LATERAL: 12 radiographs",))
    return replace(s, subgroups=by_group)


def with_mean(s, **changes):
    """The study whose first comparison's mean over labels is another."""
    first, *others = s.comparisons
    return replace(s, comparisons=(replace(first, mean=replace(first.mean, **changes)), *others))


def test_point_estimates_equal_scikit_learn():
    found, (a, b) = studies()[0], models()
    for m, p in zip(found.models, (a, b)):
        areas = []
        for at, label in enumerate(LABELS):
            known = ~np.isnan(p.y_true[:, at])
            if at != 1:
                areas.append(roc_auc_score(p.y_true[known, at], p.y_score[known, at]))
                assert m.labels[label].metrics["auroc"].value == pytest.approx(areas[-1], abs=1e-12)
        hernia = m.labels["Hernia"].metrics
        assert np.isnan(hernia["auroc"].value)
        assert np.isnan(hernia["accuracy"].mean_over_replicates)
        mean = m.mean["auroc"]
        assert mean.value == pytest.approx(np.mean(areas), abs=1e-12)
        # Spread over the labels dominates what is pooled; the mean's own is much smaller.
        assert mean.sd_over_replicates < mean.sd_over_replicates_and_labels
    assert found.reasons == (None, "no positives", None, None) and found.positives[1] == 0
    assert found.patients == 60 and found.images == 120


@pytest.mark.parametrize("family", ["comparison", "report"])
def test_the_mean_is_primary_and_labels_are_adjusted_over_the_declared_family(family):
    found = adjust(studies(), family)
    comparisons = [c for s in found for c in s.comparisons]
    labels = [[t for t in c.labels.values() if not np.isnan(t.p_value)] for c in comparisons]
    assert [len(t) for t in labels] == [3, 3, 3, 3]  # nobody has a hernia; three and one pairs
    means = [c.mean for c in comparisons]
    for tests in [means, *([sum(labels, [])] if family == "report" else labels)]:
        expected = false_discovery_control([t.p_value for t in tests])
        np.testing.assert_allclose([t.p_adjusted for t in tests], expected)
        assert all(t.family_size == len(tests) for t in tests)
    assert all(np.isnan(c.labels["Hernia"].p_adjusted) for c in comparisons)
    assert {len(means), *map(len, labels)} == {4, 3}


def test_a_single_comparison_has_the_p_of_its_mean():
    """However many labels there are: they are a family of their own."""
    (found,) = adjust([study("cxr14", models(), n_resamples=150)], "report")
    mean = found.comparisons[0].mean
    assert mean.p_adjusted == mean.p_value


def test_the_answer_is_a_sentence():
    found = studies()[:1]
    found = [with_mean(found[0], difference=0.0069, interval=(0.0042, 0.0095), p_value=0.0021,
                       p_adjusted=0.0021, p_floor=0.001, family_size=1)]
    expected = (
        "DINOv2 − ImageNet-21k on ChestX-ray14, mean ROC-AUC over 3 of 4 labels (without Hernia: "
        "no positives): +0.69 points (95 % CI 0.42 to 0.95), p = 0.002, 1 run each"
    )
    assert answers(found) == [expected]
    found = [with_mean(found[0], difference=-0.001, interval=(-0.003, 0.001), p_value=0.3,
                       p_adjusted=0.3)]
    (sentence,) = answers(found)
    assert "−0.10 points (95 % CI −0.30 to 0.10), p = 0.300" in sentence
    assert sentence.endswith("; no significant difference")
    assert len(answers(studies())) == 5 and "adjusted p" in answers(studies())[0]
    alone = study("cxr14", models()[:1], n_resamples=150)
    assert "no other to compare it with" in answers([alone])[0]
    area = alone.models[0].mean["auroc"].value
    assert f"without Hernia: no positives): {100 * area:.2f} % (95 % CI" in answers([alone])[0]


@pytest.mark.parametrize(
    "p, floor, text",
    [
        (0.04567, 0.002, "0.046"),
        (0.0004, 0.0002, "< 0.001"),
        (2 / 1001, 2 / 1001, "≤ 0.002"),
        (2 / 151, 2 / 151, "≤ 0.014"),  # 0.01325: rounded up
        (1.0, 1.0, "≤ 1"),
        (0.0, 0, "< 0.001"),  # a t-test has no floor
        (np.nan, 0.002, "–"),
    ],
)
def test_a_p_value_at_its_floor_is_a_bound(p, floor, text):
    assert show.p(p, floor) == text


@pytest.mark.parametrize("left_out, estimand", [
    ((), "mean ROC-AUC over all 4 labels"),
    ((1,), "mean ROC-AUC over 3 of 4 labels (without Hernia: 3 positives)"),
    ((1, 2, 3), "ROC-AUC of Edema alone, 1 of 4 labels (without Hernia: 3 positives; Mass & "
                "more_100%: 3 positives; No finding: 3 positives)"),
])
def test_the_answer_names_its_estimand(left_out, estimand):
    (s,) = studies()[:1]
    few = tuple("3 positives" if at in left_out else None for at in range(4))
    kept = tuple(label for at, label in enumerate(LABELS) if at not in left_out)
    s = replace(s, reasons=(None,) * 4, too_few=few, labels_in_mean={"auroc": kept})
    assert f"on ChestX-ray14, {estimand}: " in answers([s])[0]


def test_another_point_of_the_curve_is_no_finding():
    """One model is more sensitive, the other more specific: which is better is not said by that."""
    (s,) = studies()[:1]
    first = s.comparisons[0]
    signs = {"sensitivity": 0.1, "specificity": -0.1, "accuracy": -0.05, "f1": -0.05}
    further = {name: replace(c, mean=replace(c.mean, difference=signs[name], p_adjusted=0.001))
               for name, c in first.further.items()}
    for changed, is_said in ((further, True), (first.further | {
            "sensitivity": further["sensitivity"], "specificity": further["sensitivity"]}, False)):
        found = replace(s, comparisons=(replace(first, further=changed),))
        (table,) = [t for t in all_tables([found], SETTINGS) if "other metrics" in t.title]
        assert ("another point" in table.rows[-1][1]) == is_said


def test_validation_thresholds_are_held_and_the_report_says_so(tmp_path):
    found = studies(thresholds="val")
    edema = found[0].models[0].labels["Edema"]
    p = models()[0]
    assert edema.threshold == 0.5
    assert edema.tp == ((p.y_true[:, 0] == 1) & (p.y_score[:, 0] >= 0.5)).sum()
    healthy = found[0].models[0].labels["No finding"]
    assert np.isnan(healthy.metrics["accuracy"].mean_over_replicates)
    write_report(tmp_path, found, SETTINGS | {"thresholds": "val"})
    text = (tmp_path / "report.md").read_text()
    assert (
        "threshold of the validation set, held fixed" in text
        and "Threshold: Youden's of the validation set" in text
    )
    assert "No finding: no threshold from validation for dinov2, so ROC-AUC only" in text
    no_thresholds = models()
    no_thresholds[0].meta.pop("thresholds")
    with pytest.raises(ValueError, match="dinov2 carries no validation thresholds"):
        study("cxr14", no_thresholds, n_resamples=100, thresholds="val")


def test_patients_are_resampled_on_request():
    by_image, by_patient = (
        study("cxr14", models(), n_resamples=150, resample=r) for r in ("image", "patient")
    )
    a, b = (s.models[0].labels["Edema"].metrics["auroc"] for s in (by_image, by_patient))
    assert a.value == b.value and a.sd_over_replicates != b.sd_over_replicates
    unknown = [
        Predictions(m.image_id, None, m.labels, m.y_true, m.y_score, m.meta) for m in models()
    ]
    with pytest.raises(
        ValueError, match="cxr14: resampling by patient needs patient_id, and dinov2 has none"
    ):
        study("cxr14", unknown, n_resamples=150, resample="patient")


def test_files_agree_and_are_the_same_each_time(tmp_path):
    files = write_report(tmp_path / "a", studies(), SETTINGS)
    write_report(tmp_path / "b", studies(), SETTINGS)
    text = (tmp_path / "a" / "report.md").read_text()
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == set(files) == set(REPORT)
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def refuse(constant):
        raise ValueError(constant)

    whole = json.loads(
        (tmp_path / "a" / "report.json").read_text(), parse_constant=refuse
    )  # no NaN: strict JSON
    edema = whole["studies"][0]["models"][1]["labels"]["Edema"]["metrics"]["auroc"]
    expected = studies()[0].models[1].labels["Edema"].metrics["auroc"]  # at full precision
    assert Estimate(**edema | {"interval": tuple(edema["interval"])}) == expected
    hernia = whole["studies"][0]["models"][1]["labels"]["Hernia"]["metrics"]
    assert hernia["auroc"]["value"] is None
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a" / "metrics.csv").read_text())))
    (row,) = (
        r
        for r in rows
        if (r["corpus"], r["model"], r["label"], r["metric"])
        == ("cxr14", "imagenet", "Edema", "auroc")
    )
    assert float(row["value"]) == edema["value"] and float(row["ci_high"]) == edema["interval"][1]
    assert len(rows) == (2 + 3) * (4 + 1) * 5
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a" / "comparisons.csv").read_text())))
    assert len(rows) == (1 + 3) * (4 + 1)
    wanted = "study,corpus,a,b,label,difference,ci_low,ci_high,p,p_adjusted,runs_a,runs_b"
    assert set(wanted.split(",")) <= set(rows[0]) and rows[4]["label"] == "mean over labels"
    mean, sd = 100 * expected.mean_over_replicates, 100 * expected.sd_over_replicates
    assert f"{mean:.2f} ± {sd:.2f}" in text
    assert "Hernia: no positives; neither scored nor compared" in text
    assert "Nodule: not in all of the files compared; left out" in text


def test_a_pooled_spread_is_never_printed_without_saying_so():
    for table in all_tables(studies(), SETTINGS):
        assert "±" not in str(table.rows) or "SD over replicates" in table.note
    assert "SD over replicates and labels pooled" in all_tables(studies(), SETTINGS)[0].note


@pytest.mark.parametrize(
    "label_set, number",
    [
        ("table3", "[79.79 ± 6.55 in the paper]"),
        ("mimic-overlap", "[77.99 ± 6.38 in the paper]"),
        ("all", None),
    ],
)
def test_the_paper_stands_beside_our_number(label_set, number):
    found = adjust([study("cxr14", models(), n_resamples=100, label_set=label_set)], "comparison")
    text = str(all_tables(found, SETTINGS)[0].rows)
    assert number in text if number else "[7" not in text


def test_table_5s_layout():
    found = studies(label_set="mimic-overlap")
    table = all_tables(found, SETTINGS | {"labels": "mimic-overlap"})[0]
    assert (
        table.header[1:3] == ["ChestX-ray14, DINOv2", "ChestX-ray14, ImageNet-21k"]
        and len(table.header) == 6
    )
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["No finding"][0].endswith("[72.37 ± 0.33 in the paper]")
    assert "[" not in rows["No finding"][1]
    assert rows["Mean over labels"][0].endswith("[77.99 ± 6.38 in the paper]")
    assert rows["Hernia"] == ["– ± –"] * 5
    p = found[0].comparisons[0].mean.p_adjusted
    assert rows["p, adjusted: DINOv2 against ImageNet-21k"][0] == f"{p:.3f}"


def test_the_papers_averages_are_those_of_its_labels():
    """Table 5's last row follows from the others; Table 4 agrees where the labels are the same."""
    assert [sum(map(len, table.values())) for table in (TABLE4, TABLE5)] == [12, 10]
    for corpus, inits in TABLE5.items():
        for init, cells in inits.items():
            labels = [mean for label, (mean, _) in cells.items() if label != "mean"]
            assert np.mean(labels) == pytest.approx(cells["mean"][0], abs=0.011), (corpus, init)
    assert TABLE4["chexpert"]["dinov2"]["auroc"][0] == pytest.approx(
        TABLE5["chexpert"]["dinov2"]["mean"][0], abs=0.011
    )


def latex_of_many():
    """Tables as wide as they get (six corpora of long labels) and labels that LaTeX trips over."""
    found = studies()
    for corpus in ("vindr", "chexpert", "padchest", "ukacxr"):
        found.append(study(corpus, models(), n_resamples=30))
    odd = ["[Edema] of x", "Hernia", "Mass & more_100%", "two\nlines \\ ^~{}$#"]
    found.append(study("x", [replace(m, labels=odd) for m in models()], n_resamples=30))
    found = adjust(found, "comparison")
    return "\n\n".join(map(to_latex, all_tables(found, SETTINGS)))


def test_latex_is_well_formed():
    text = latex_of_many()
    assert r"{Mass \& more\_100\%} &" in text and not set("±–−≤") & set(text)
    assert text.count(r"\begin{longtable}") == text.count(r"\end{longtable}")
    assert text.count(r"\begin{landscape}") == text.count(r"\end{landscape}") > 0
    for table in text.split(r"\endhead")[1:]:
        rows = table.split(r"\endfoot")[1].split(r"\end{longtable}")[0].strip().splitlines()
        assert rows and all(line.startswith("{") and line.endswith(r"\\") for line in rows)
        assert len({line.count("} & {") for line in rows}) == 1
    assert tex("a_b & 5 % ± <") == r"a\_b \& 5 \% $\pm$ $<$"
    assert tex("two\n lines") == "two lines" and tex("runs/a") == r"runs/\allowbreak{}a"


def test_a_real_latex_sets_every_table_on_its_page(tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no pdflatex: apt-get install texlive-latex-recommended")
    (tmp_path / "tables.tex").write_text(latex_of_many())
    (tmp_path / "all.tex").write_text(
        r"\documentclass[a4paper]{article}\usepackage[T1]{fontenc}\usepackage[margin=2cm]{geometry}"
        r"\usepackage{booktabs,longtable,array,pdflscape}\begin{document}\input{tables}\end{document}"
    )
    for _ in range(2):
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            errors="replace",
        )
        assert done.returncode == 0, done.stdout[-2000:]
    wide = [float(pt) for pt in re.findall(r"Overfull .hbox .([\d.]+)pt too wide", done.stdout)]
    assert max(wide, default=0) < 5, wide
    assert (tmp_path / "all.pdf").read_bytes().startswith(b"%PDF")


def test_the_table_of_labels_has_values_of_the_test_set():
    """A mean over replicates is another number, and stands in a table that says so."""
    found = studies()
    m = found[0].models[0].labels["Edema"]
    estimate = m.metrics["sensitivity"]
    table, spread = (
        next(t for t in all_tables(found, SETTINGS) if t.title.startswith(start))
        for start in ("ChestX-ray14: each label on", "ChestX-ray14: each label as the paper")
    )
    row = table.rows[0]
    truth, p = models()[0].y_true[:, 0], models()[0].y_score[:, 0]
    known = ~np.isnan(truth)
    positive = p[known] >= m.threshold
    sensitivity = positive[truth[known] == 1].mean()
    at = table.header.index("Sensitivity")
    low, high = estimate.interval
    assert row[at] == f"{100 * sensitivity:.2f} ({100 * low:.2f} to {100 * high:.2f})"
    assert row[table.header.index("Threshold")] == f"{m.threshold:.3f}"
    mean, sd = 100 * estimate.mean_over_replicates, 100 * estimate.sd_over_replicates
    assert abs(mean / 100 - sensitivity) > 1e-4
    expected = f"{mean:.2f} ± {sd:.2f}"
    assert spread.rows[0][spread.header.index("Sensitivity")] == expected


@pytest.mark.parametrize(("method", "name", "note"), [
    ("bh", "adjusted p ", "p is adjusted, for labels in families of 3 tests"),
    ("none", "p ", "Neither p nor the intervals are adjusted.")])
def test_a_p_is_called_adjusted_only_where_its_family_has_more_than_one_test(method, name, note):
    three = models(("imagenet", "mimic", "dinov2"), n=300)
    found = adjust([study("cxr14", three, n_resamples=100)], "comparison", method)
    sentences = [s for s in answers(found) if "points" in s]
    assert len(sentences) == 3 and all(f"), {name}" in s for s in sentences)
    notes = [t.note for t in all_tables(found, SETTINGS) if t.header[0] == "ROC-AUC, %"]
    assert notes and all(n.startswith(note) for n in notes)


def test_few_positives_are_scored_but_not_tested():
    rare = models(n=300)
    rare[0].y_true[:, 2] = 0
    rare[0].y_true[:14, 2] = 1
    found = study("cxr14", [replace(m, y_true=rare[0].y_true) for m in rare], n_resamples=100)
    (found,) = adjust([found], "comparison")
    mass, mean = found.comparisons[0].labels["Mass & more_100%"], found.comparisons[0].mean
    assert found.too_few[2] == mass.reason == "7 positive patients" and np.isnan(mass.p_value)
    assert np.isfinite(mass.difference) and np.isfinite(mean.p_value)
    tests = found.comparisons[0].labels
    assert mass.delong_p is None and tests["Edema"].delong_p is not None
    assert found.labels_in_mean["auroc"] == ("Edema", "No finding")
    one = rare[0].y_true.copy()
    one[:, 2] = 0
    one[0, 2] = 1
    single = study("cxr14", [replace(m, y_true=one) for m in rare], n_resamples=100)
    assert single.too_few[2] == "1 positive patient"
    m = found.models[0]
    areas = [m.labels[label].metrics["auroc"].value for label in ("Edema", "No finding")]
    assert m.mean["auroc"].value == pytest.approx(np.mean(areas), abs=1e-12)
    assert "7 positive patients, which is too few" in "".join(remarks(found, SETTINGS))
    pair = "ChestX-ray14: DINOv2 minus ImageNet-21k, ROC-AUC in"
    (table,) = [t for t in all_tables([found], SETTINGS) if t.title.startswith(pair)]
    assert table.rows[2][4].startswith("(") and table.rows[3][4][0] != "("  # its interval
    assert table.rows[2][5] == "7 positive patients: not tested"
    more = study(
        "cxr14", [replace(m, y_true=rare[0].y_true) for m in rare], n_resamples=100, min_count=7
    )
    assert more.too_few[2] is None and len(more.labels_in_mean["auroc"]) == 3
    unknown = [replace(m, y_true=rare[0].y_true, patient_id=None) for m in rare]
    assert study("cxr14", unknown, n_resamples=100).too_few[2] == "14 positives"


def test_runs_of_an_init_are_one_comparison():
    a = [
        replace(m, meta=m.meta | {"name": "a", "run": f"a{n}"})
        for n in range(3)
        for m in models(("x",), seed=0)
    ]
    rng = np.random.default_rng(5)
    a = [
        replace(m, y_score=np.clip(m.y_score + rng.normal(size=m.y_score.shape) * 0.1, 0, 1))
        for m in a
    ]
    b = [
        replace(
            m, meta=m.meta | {"name": "b"}, y_score=np.clip(m.y_score + 0.2 * (m.y_true == 1), 0, 1)
        )
        for m in a
    ]
    found = study("cxr14", [*a, *b], n_resamples=200, **DRAWN)
    (found,) = adjust([found], "comparison")
    assert [len(m.runs) for m in found.models] == [3, 3]
    (c,) = found.comparisons
    areas = np.array(
        [
            [
                np.mean(
                    [
                        roc_auc_score(p.y_true[k, at], p.y_score[k, at])
                        for at in (0, 2, 3)
                        for k in [~np.isnan(p.y_true[:, at])]
                    ]
                )
                for p in runs
            ]
            for runs in (a, b)
        ]
    )
    assert c.mean.difference == pytest.approx(areas[0].mean() - areas[1].mean(), abs=1e-12)
    assert found.models[0].mean["auroc"].sd_between_runs == pytest.approx(areas[0].std(ddof=1))
    assert c.runs == (3, 3) and c.mean.p_floor == 0
    assert 0 <= c.mean.share_of_runs <= 1 and c.labels["Edema"].delong_p is None
    assert answers([found])[0].endswith("3 runs each")
    assert not cautions([replace(found, resample="patient")], PATIENT)
    assert "about these trained models alone" in cautions(studies(), SETTINGS)[0]
    assert "leave out --resample image" in cautions(studies(), SETTINGS)[-1]
    large = []
    for s in studies(resample="patient"):
        test = replace(s.comparisons[0].mean, family_size=30, p_floor=0.01)
        comparisons = [replace(c, labels={"x": test}) for c in s.comparisons]
        large.append(replace(s, comparisons=tuple(comparisons)))
    assert "too few for a single label" in cautions(large, PATIENT)[-1]
    assert "too few" not in cautions(large, PATIENT | {"adjust": "max-t"})[-1]  # not m times p
    runs = next(t for t in all_tables([found], SETTINGS) if "training runs" in t.title)
    assert runs.rows[0][1:] == [
        "3",
        *(
            f"{100 * x:.2f}"
            for x in (areas[0].mean(), areas[0].std(ddof=1), areas[0].min(), areas[0].max())
        ),
        runs.rows[0][-1],
    ]
