"""Parts and points of the ROC curve, predictive values: scikit-learn's and pROC's."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score, roc_curve
from test_stats_metrics import problem

from stats import bootstrap, bootstrap_models
from stats.metrics import ClinicalChoices
from stats.resampling import resample_counts

N_RESAMPLES = 30
CURVE = ("sensitivity_at_specificity", "specificity_at_sensitivity", "partial_auc")
PREDICTIVE = ("ppv", "npv", "lr_positive", "lr_negative")


def tied_problem():
    """`problem`, with scores of one digit, so that positives and negatives share them."""
    y, a, b = problem()
    return y, a.round(1), b


def resampled(y, score):
    """Each resample's labels and scores, the test set itself first."""
    known = ~np.isnan(y)
    counts = resample_counts(0, -1, N_RESAMPLES, len(y))[known]
    return [(np.repeat(y[known], of_one), np.repeat(score[known], of_one)) for of_one in counts.T]


def values(drawn, metric, label=0):
    return np.append(drawn.value[metric][label], drawn.values[metric][:, label])


@pytest.mark.parametrize("low", [0.9, 0.75, 0.0])
@pytest.mark.parametrize("make", [problem, tied_problem])
def test_the_partial_area_is_scikit_learns_in_every_resample(make, low):
    y, score, _ = make()
    drawn = bootstrap(y, score, metrics=("partial_auc",), n_resamples=N_RESAMPLES,
                      choices=ClinicalChoices(specificity_range=(low, 1.0)))
    expected = [roc_auc_score(*of_one, max_fpr=1 - low)
                for of_one in resampled(y[:, 0], score[:, 0])]
    assert values(drawn, "partial_auc") == pytest.approx(expected, abs=1e-12)


def small_problem():
    """A dozen images of three scores: in many resamples a score is of one class alone."""
    rng = np.random.default_rng(5)
    y = np.tile([0.0, 1.0], 6)[:, None]
    return y, (rng.integers(3, size=y.shape) + y).clip(0, 2), None


@pytest.mark.parametrize("make", [problem, tied_problem, small_problem])
def test_points_of_the_curve_are_interpolated_in_every_resample(make):
    y, score, _ = make()
    drawn = bootstrap(y, score, metrics=CURVE, n_resamples=N_RESAMPLES,
                      choices=ClinicalChoices(specificity=0.87, sensitivity=0.83))
    sensitivity, specificity = [], []
    for of_one in resampled(y[:, 0], score[:, 0]):
        fpr, tpr, _ = roc_curve(*of_one, drop_intermediate=False)
        sensitivity.append(np.interp(0.13, fpr, tpr))  # no corner lies there
        specificity.append(1 - np.interp(0.83, tpr, fpr))
    assert values(drawn, "sensitivity_at_specificity") == pytest.approx(sensitivity, abs=1e-12)
    assert values(drawn, "specificity_at_sensitivity") == pytest.approx(specificity, abs=1e-12)


def test_of_several_points_at_one_specificity_the_best_counts():
    y = np.array([1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1])  # descending; 9 negatives, 4 positives
    y = np.append(y, 0)  # 10 negatives: specificity 0.9 is a corner, with 2 or 3 of 4 positives
    drawn = bootstrap(y, -np.arange(len(y)), metrics=CURVE, n_resamples=1,
                      choices=ClinicalChoices(sensitivity=0.75))
    assert drawn.value["sensitivity_at_specificity"][0] == 0.75
    assert drawn.value["specificity_at_sensitivity"][0] == 0.9


def test_the_points_and_areas_are_those_of_proc():
    """R, pROC 1.18.0: r <- roc(y, s, direction = "<"), then
    coords(r, specificity, input = "specificity", ret = "sensitivity"), the same the other way
    round, and auc(r, partial.auc = c(high, low), partial.auc.correct = TRUE)."""
    y = np.array([(7 * i) % 10 < 4 for i in range(60)], float)
    score = np.array([(13 * i * i) % 29 / 29 for i in range(60)]) + 0.3 * y
    for choices, expected in PROC.items():
        specificity, sensitivity, span = choices
        drawn = bootstrap(y, score, metrics=CURVE, n_resamples=1, choices=ClinicalChoices(
            None, specificity, sensitivity, span))
        shown = [drawn.value[name][0] for name in CURVE]
        assert shown == pytest.approx(expected, abs=1e-9), choices


PROC = {  # specificity, sensitivity and range: the three values
    (0.9, 0.9, (0.9, 1.0)): (0.375, 0.416666666666667, 0.671052631578947),
    (0.85, 0.77, (0.8, 1.0)): (0.375, 0.416666666666667, 0.656635802469136),
    (0.63, 0.95, (0.6, 0.9)): (0.5, 0.388888888888889, 0.617283950617284),
}


@pytest.mark.parametrize("thresholds", [None, np.full(2, 0.6)])
def test_predictive_values_and_likelihood_ratios_are_of_the_confusion(thresholds):
    y, score, _ = problem()
    metrics = ("sensitivity", "specificity", *PREDICTIVE)
    drawn = bootstrap(y, score, metrics=metrics, n_resamples=N_RESAMPLES, thresholds=thresholds)
    if thresholds is None:  # Youden's: the counts follow from sensitivity and specificity
        for name in ("ppv", "npv"):
            assert np.isfinite(values(drawn, name)).all()
        return
    for k, (truth, of_one) in enumerate(resampled(y[:, 0], score[:, 0])):
        (tn, fp), (fn, tp) = confusion_matrix(truth, of_one >= 0.6)
        expected = [tp / (tp + fp), tn / (tn + fn), tp / (tp + fn) / (fp / (fp + tn)),
                    fn / (tp + fn) / (tn / (fp + tn))]
        assert [values(drawn, name)[k] for name in PREDICTIVE] == pytest.approx(expected)


def test_another_prevalence_goes_by_bayes_rule():
    """Simulated: the same sensitivity and specificity among a million patients."""
    y, score, _ = problem()
    options = {"metrics": ("sensitivity", "specificity", "ppv", "npv"), "n_resamples": 5,
               "thresholds": np.full(2, 0.6)}
    drawn = bootstrap(y, score, choices=ClinicalChoices(prevalence=0.02), **options)
    sick = 20_000 * drawn.value["sensitivity"], 20_000 * (1 - drawn.value["sensitivity"])
    healthy = 980_000 * drawn.value["specificity"], 980_000 * (1 - drawn.value["specificity"])
    assert drawn.value["ppv"] == pytest.approx(sick[0] / (sick[0] + healthy[1]))
    assert drawn.value["npv"] == pytest.approx(healthy[0] / (healthy[0] + sick[1]))
    known = (y == 1).sum(axis=0) / (~np.isnan(y)).sum(axis=0)
    own = bootstrap(y[:, :1], score[:, :1], **options | {"thresholds": np.full(1, 0.6)})
    same = bootstrap(y[:, :1], score[:, :1], choices=ClinicalChoices(prevalence=known[0]),
                     **options | {"thresholds": np.full(1, 0.6)})
    assert own.value["ppv"] == pytest.approx(same.value["ppv"])
    assert own.value["npv"] == pytest.approx(same.value["npv"])


def test_what_is_not_defined_is_left_out():
    y = np.repeat([0.0, 1.0], 20)
    drawn = bootstrap(y, y, metrics=PREDICTIVE, n_resamples=5, thresholds=[0.5])
    assert drawn.value["ppv"] == drawn.value["npv"] == 1
    assert np.isnan(drawn.value["lr_positive"]) and drawn.value["lr_negative"] == 0
    low, high = drawn.ci("ppv")[0]
    assert 0.8 < low < 0.9 and high == pytest.approx(1)  # not "1 to 1"


@pytest.mark.parametrize("wrong", [{"prevalence": 0.0}, {"specificity": 1.2}, {"sensitivity": 1.0},
                                   {"specificity_range": (0.9, 0.8)},
                                   {"specificity_range": (0.1, 0.5)}])
def test_choices_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ClinicalChoices(**wrong)


def test_neither_memory_nor_threads_change_a_bit():
    y, a, b = problem()
    one, other = (bootstrap_models(y, [a, b], metrics=CURVE, n_resamples=300, memory_mb=memory,
                                   threads=threads)
                  for memory, threads in ((256, 1), (1, 2)))
    for model in range(2):
        for name in CURVE:
            assert (one[model].values[name] == other[model].values[name]).all()
