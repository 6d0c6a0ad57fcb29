"""CONTRIBUTING's recipe "a metric", followed: one record, and it is scored and printed."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

import evaluate
from stats import METRICS, Metric, bootstrap, operating_point, paired_bootstrap
from stats.resampling import resample_counts


def problem():
    rng = np.random.default_rng(0)
    y = (rng.random((120, 2)) < 0.4).astype(float)
    y[::11] = np.nan
    a, b = (1 / (1 + np.exp(-(skill * np.nan_to_num(y) + rng.normal(size=y.shape))))
            for skill in (1.5, 0.5))
    return y, a, b


@pytest.fixture
def balanced(monkeypatch):
    """The balanced accuracy, added as the recipe says."""
    def balanced_accuracy(c):
        return (c.tp / c.positives + c.tn / c.negatives) / 2

    record = Metric("balanced", "Balanced accuracy", balanced_accuracy, "threshold", is_share=True,
                    bounds=(0.0, 1.0), denominator="both", larger_is_better=True)
    monkeypatch.setitem(METRICS, "balanced", record)


def test_a_new_metric_is_in_every_replicate_with_an_interval(balanced):
    y, a, b = problem()
    point = operating_point(y, a, 0.6)
    drawn = bootstrap(y, a, metrics=("balanced",), thresholds=np.full(2, 0.6), n_resamples=30)
    counts = resample_counts(0, -1, 30, len(y))  # the test set itself first
    for label in range(2):
        known = ~np.isnan(y[:, label])
        for k in range(31):
            expected = balanced_accuracy_score(y[known, label], a[known, label] >= 0.6,
                                               sample_weight=counts[known, k])
            value = drawn.values["balanced"][k - 1, label] if k else drawn.value["balanced"][label]
            assert value == pytest.approx(expected, abs=1e-12)
            assert k or point.metrics["balanced"][label] == pytest.approx(expected, abs=1e-12)
    low, high = drawn.ci("balanced").T
    assert (0 < low).all() and (low < drawn.value["balanced"]).all() and (high < 1).all()
    assert (drawn.value["balanced"] < high).all()
    pair = paired_bootstrap(y, a, b, metric="balanced", n_resamples=100)
    assert np.isfinite(pair.p_value).all()


def test_a_new_metric_is_on_the_command_line_and_in_the_report(balanced, tmp_path, monkeypatch,
                                                               capsys):
    monkeypatch.chdir(tmp_path)
    y, a, b = problem()
    for name, values in (("truth", y), ("a", a), ("b", b)):
        with open(f"{name}.csv", "w") as file:
            print("id,Edema,Mass", file=file)
            for row, cells in enumerate(values):
                shown = ["" if np.isnan(x) else f"{x:g}" for x in cells]
                print(row, *shown, sep=",", file=file)
    assert evaluate.main(["--predictions", "a.csv", "b.csv", "--truth", "truth.csv",
                          "--bootstrap", "100", "--metrics", "balanced"]) == 0
    (row, *_) = [row for row in csv.DictReader(Path("reports/metrics.csv").open())
                 if (row["metric"], row["label"], row["model"]) == ("balanced", "Edema", "a")]
    assert 0 < float(row["ci_low"]) < float(row["value"]) < float(row["ci_high"]) < 1
    text = Path("reports/report.md").read_text()
    shown = " to ".join(f"{100 * float(row[end]):.2f}" for end in ("ci_low", "ci_high"))
    assert f"{100 * float(row['value']):.2f} ({shown})" in text and "| Balanced accuracy |" in text
    tests = [row for row in csv.DictReader(Path("reports/comparisons-metrics.csv").open())
             if row["metric"] == "balanced"]
    assert len(tests) == 3 and all(0 < float(row["p"]) <= 1 for row in tests)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        evaluate.main(["--help"])
    assert "balanced" in capsys.readouterr().out


def test_a_share_without_a_denominator_is_refused():
    with pytest.raises(ValueError, match="balanced: a share needs a denominator"):
        Metric("balanced", "Balanced accuracy", np.mean, "threshold", True, (0.0, 1.0), None, True)


def test_every_metric_keeps_to_its_bounds():
    """Of noise, of a perfect model and of one that is always wrong."""
    rng = np.random.default_rng(1)
    y = (rng.random((60, 1)) < 0.5).astype(float)
    for scores in (rng.random(y.shape), 0.1 + 0.8 * y, 0.9 - 0.8 * y):
        drawn = bootstrap(y, scores, metrics=tuple(METRICS), n_resamples=50,
                          net_benefit_at=[np.array([0.3])])
        for name, metric in METRICS.items():
            values = drawn.values[name][np.isfinite(drawn.values[name])]
            low, high = metric.bounds
            assert ((low <= values) & (values <= high)).all(), name
