"""One corpus's models, scored and compared: a dict that tables, figures and the JSON file share."""

import itertools
import re
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import NormalDist

import numpy as np

from stats.bootstrap import METRICS, PROBABILITY_METRICS, bootstrap_models
from stats.delong import delong_test
from stats.families import benjamini_hochberg, max_t
from stats.intervals import largest_count, nanmean, score_interval, sd_and_ci
from stats.roc import operating_point, youden
from stats.runs import infer_runs

# The paper's, in percent: {corpus: {init: {metric, label or "mean": [mean, SD]}}}
TABLE4, TABLE5 = tomllib.loads(
    Path(__file__).with_name("paper_results.toml").read_text()).values()


def study(corpus, models, *, synthetic=False, trained_on=None, variant=None, label_set="all",
          left_out=(), n_resamples=1000, seed=0, resample="image", thresholds="test",
          alternative="two-sided", min_count=15, metrics=METRICS, net_benefit_at=None, margin=None,
          threads=None):
    """Score every init and compare every pair; `adjust` then fills in the adjusted p-values.

    The arguments up to `left_out` are those of a `stats.comparable.Group`: of its `models`, those
    of the same `meta["name"]` are runs of one init. The paper's numbers are not set beside those of
    `synthetic` images.

    `resample` "image" draws images singly, "patient" a patient's together. `thresholds` "test" is
    Youden's, anew in each resample (the paper), "val" that of the model's `meta["thresholds"]`. A
    label with fewer than `min_count` positives or negatives (patients that have one, if patients
    are drawn) is scored, but not tested nor part of the mean over labels. At `net_benefit_at`, a
    threshold probability, net benefits are compared; at the models' own they are only scored. To
    differ by less than `margin`, in ROC-AUC, is to be no worse, or equivalent. For the rest see
    `bootstrap_models` and `p_values`.
    """
    y_true, labels = models[0].y_true, models[0].labels
    metrics = ["auroc", *(metric for metric in metrics if metric != "auroc")]
    patients = next((m.patient_id for m in models if m.patient_id is not None), None)
    if resample == "patient" and patients is None:
        raise ValueError(f"{corpus}: resampling by patient needs patient_id, and "
                         f"{models[0].meta['name']} has none")
    fixed = None if thresholds == "test" else [
        _validation_thresholds(m, "use --thresholds test") for m in models]
    benefit_at = None
    if "net_benefit" in metrics:
        benefit_at = [_validation_thresholds(m, "its net benefit needs --net-benefit-at")
                      if net_benefit_at is None else net_benefit_at for m in models]
    drawn = bootstrap_models(
        y_true, [m.y_score for m in models], n_resamples=n_resamples, seed=seed, metrics=metrics,
        groups=patients if resample == "patient" else None, thresholds=fixed,
        net_benefit_at=benefit_at, threads=threads)
    reasons = drawn[0].reasons
    unit = " patients" if resample == "patient" else "s"
    few = [" and ".join(f"{count} {name}{unit}" for count, name in
                        zip(counts, ("positive", "negative")) if count < min_count) or None
           for counts in drawn[0].classes.T]  # why a label is not tested, or None
    scored = np.array([reason is None for reason in reasons])
    tested = scored & np.array([not words for words in few])
    averaged = tested if tested.any() else scored
    # the paper's mean is over all
    label_set = "all" if synthetic or (averaged < scored).any() else label_set
    with ThreadPoolExecutor(threads) as pool:
        points = list(pool.map(lambda m, at: operating_point(
            y_true, m.y_score, youden(y_true, m.y_score) if at is None else at),
            models, fixed or [None] * len(models)))
    counted = {}  # of each metric: labels of the mean, the same for all models that have any
    for metric in metrics:
        defined = averaged & ~np.isnan([d.value[metric] for d in drawn])
        counted[metric] = averaged & defined[defined.any(axis=1)].all(axis=0)
    inits = {}
    for run in zip(models, points, drawn):
        inits.setdefault(run[0].meta["name"], []).append(run)
    inits = [_Init(*zip(*runs), counted) for runs in inits.values()]
    comparable = {metric: [*which, which.any()] for metric in metrics
                  for which in [tested & (metric != "net_benefit" or net_benefit_at is not None)]}
    name = "-".join(filter(None, (corpus, "synthetic" * synthetic, variant))).lower()
    name = re.sub(r"[^\w.-]+", "-", name) + (f"-from-{trained_on}" if trained_on else "")
    return {
        "name": name,  # files are named so
        "corpus": corpus, "synthetic": synthetic, "variant": variant,
        "labels": labels,
        "labels_in_mean": [label for label, counts in zip(labels, averaged) if counts],
        "labels_left_out": list(left_out), "label_set": label_set,
        "metrics": metrics, "margin": margin, "net_benefit_at": net_benefit_at,
        "images": len(y_true),
        "patients": None if patients is None else len(np.unique(patients)),
        "positives": (y_true == 1).sum(axis=0).tolist(),
        "negatives": (y_true == 0).sum(axis=0).tolist(),
        "reasons": reasons, "too_few": few,
        "missing_images": models[0].meta.get("missing") or 0,
        "unreadable_images": models[0].meta.get("bad") or 0,
        "models": [_model(corpus, init, labels, label_set) for init in inits],
        "comparisons": [_comparison(a, b, labels, comparable, alternative, margin)
                        for a, b in itertools.combinations(inits, 2)],
    } | ({"trained_on": trained_on} if trained_on else {})


def adjust(studies, family, method="bh"):
    """Fill in every comparison's adjusted p-values, and take out its replicates.

    The mean over labels is the primary endpoint of a comparison: it is adjusted over the means of
    all comparisons, and over these alone. The labels of a comparison, or with `family` "report" of
    all of them, are families of their own, and so is each metric. `method` "bh" is Benjamini and
    Hochberg's, "max-t" Westfall and Young's over the joint replicates.
    """
    comparisons = [c for s in studies for c in s["comparisons"]]
    replicates = [c.pop("replicates", {}) for c in comparisons]
    for metric in dict.fromkeys(metric for s in studies for metric in s["metrics"]):
        means, labels = [], []
        for c, of_comparison in zip(comparisons, replicates):
            found = c if metric == "auroc" else c["metrics"].get(metric)
            if found:
                tests = [*found["labels"].values(), found["mean"]]
                columns = of_comparison[metric].T if method == "max-t" else tests
                *of_labels, of_mean = zip(tests, columns)
                means.append(of_mean)
                labels.append(of_labels)
        for tests in [means, *(labels if family == "comparison" else [sum(labels, [])])]:
            p = [test["p"] for test, _ in tests]
            adjusted = benjamini_hochberg(p) if method == "bh" or not tests else max_t(
                p, [_statistic(test) for test, _ in tests], np.stack([x for _, x in tests], axis=1))
            for (test, _), p in zip(tests, adjusted):
                test |= {"p_adjusted": float(p), "family_size": int((~np.isnan(adjusted)).sum())}


def _statistic(test):
    """|difference| in standard errors; of Student's t, the normal deviate of the same p."""
    if test["share_of_runs"] is None:
        return abs(test["value"]) / test["sd"] if test["sd"] > 0 else 0.0
    return NormalDist().inv_cdf(1 - max(test["p"], 1e-15) / 2) if test["p"] < 1 else 0.0


def _validation_thresholds(model, instead):
    if model.meta.get("thresholds") is None:
        raise ValueError(f"{model.meta['name']} carries no validation thresholds: {instead}")
    return np.array(model.meta["thresholds"], dtype=np.float64)  # NaN for None


class _Init:
    """The runs of one init: for each metric `runs` (B + 1, K, L + 1), on the test set and then in
    the replicates, and `most` (L + 1,) of `score_interval`. The last column is the mean over the
    labels that `of_mean` (L,) has of each metric, the same ones in every replicate.
    """

    def __init__(self, models, points, drawn, of_mean):
        self.models, self.points, self.name = models, points, models[0].meta["name"]
        self.runs, self.most, self.of_mean = {}, {}, of_mean
        for metric, counted in of_mean.items():
            on_test_set = np.stack([d.value[metric] for d in drawn])[None]
            replicates = np.stack([d.values[metric] for d in drawn], axis=1)
            most = largest_count(metric, *drawn[0].classes)
            with np.errstate(invalid="ignore", divide="ignore"):
                self.runs[metric] = np.concatenate([
                    np.append(x, x[..., counted].sum(axis=-1, keepdims=True) / counted.sum(), -1)
                    for x in (on_test_set, replicates)])
                # the labels taken for independent
                self.most[metric] = np.append(most, counted.sum()**2 / (1 / most[counted]).sum())

    def cells(self, metric):
        """Dicts of the mean over runs on the test set; mean, SD and interval over replicates."""
        on_test_set, found = self.runs[metric][0], infer_runs(self.runs[metric])
        run_sd = (on_test_set.std(axis=0, ddof=1).tolist() if len(on_test_set) > 1 else
                  [None] * len(found.sd))
        ci = found.ci if metric in PROBABILITY_METRICS else score_interval(
            found.value, found.se**2, self.most[metric], found.df)
        return [{"value": float(value), "mean": float(nanmean(found.replicates[:, at], axis=0)),
                 "sd": float(found.sd[at]), "ci": ci[at].tolist(), "sd_of_runs": run_sd[at]}
                for at, value in enumerate(found.value)]


def _model(corpus, init, labels, label_set):
    """One init's numbers, per label and in the mean, over all of its runs."""
    meta = init.models[0].meta
    trained = meta.get("init")
    label_set = label_set if meta.get("paper_init", True) else None  # not the paper's weights
    table4 = TABLE4.get(corpus, {}).get(trained, {}) if label_set == "table3" else {}
    table5 = TABLE5.get(corpus, {}).get(trained, {}) if label_set == "mimic-overlap" else {}
    in_paper = {"auroc": table5["mean"]} if table5 else table4
    cells = {metric: init.cells(metric) for metric in init.runs}
    undefined = np.isnan(init.runs["auroc"][1:, 0]).sum(axis=0)
    per_label = {
        label: {metric: of_metric[at] for metric, of_metric in cells.items()}
        | {name: float(np.mean([getattr(point, name)[at] for point in init.points]))
           for name in ("threshold", "tp", "fp", "tn", "fn")}
        | {"undefined_replicates": int(undefined[at]), "paper_auroc": table5.get(label)}
        for at, label in enumerate(labels)}
    mean = {metric: of_metric[-1] | {
        "sd_over_replicates_and_labels": float(sd_and_ci(np.where(  # of the labels in the mean
            init.of_mean[metric], init.runs[metric][1:, :, :-1], np.nan).ravel())[0]),
        "paper": in_paper.get(metric)} for metric, of_metric in cells.items()}
    named = ("run", "seed", "arch", "split_hash", "checkpoint_sha256", "versions", "file",
             "settings")
    return {"name": init.name, "init": trained, "labels": per_label, "mean": mean,
            "runs": [{key: m.meta.get(key) for key in named} | {"mean_auroc": float(area)}
                     for m, area in zip(init.models, init.runs["auroc"][0, :, -1])]}


def _comparison(a, b, labels, tested, alternative, margin):
    """Differences a - b of every metric with p-values, and DeLong's beside them for single runs."""
    found, replicates = {}, {}
    for metric, which in tested.items():
        tests, replicates[metric] = _tests(a, b, metric, which, alternative,
                                           margin if metric == "auroc" else None)
        found[metric] = {"labels": dict(zip(labels, tests)), "mean": tests[-1]}
    (one, *more), (other, *others) = a.models, b.models
    for at, label in enumerate(labels if not more and not others else ()):
        delong = delong_test(one.y_true[:, at], one.y_score[:, at], other.y_score[:, at])
        found["auroc"]["labels"][label] |= {"delong_p": delong.p_value,
                                            "delong_ci": list(delong.ci)}
    return {"a": a.name, "b": b.name, "runs_a": len(a.models), "runs_b": len(b.models),
            **found.pop("auroc"), "metrics": found, "replicates": replicates}


def _tests(a, b, metric, tested, alternative, margin):
    """The labels' and the mean's tests of a metric, and the paired differences (B, L + 1)."""
    found = infer_runs(a.runs[metric], b.runs[metric], alternative)
    p_of, floor, share = {"p": found.p_value}, 0.0, found.share_of_runs
    if share is None:
        floor, share = 2 / (len(found.replicates) + 1), np.full(len(found.sd), None)  # `p_values`
    if margin is not None:
        above = found.p_one_sided("greater", -margin)
        p_of |= {"p_noninferior": above,
                 "p_equivalent": np.maximum(above, found.p_one_sided("less", margin))}
    return [{"value": float(value), "mean": float(nanmean(found.replicates[:, at], axis=0)),
             "sd": float(found.sd[at]), "ci": found.ci[at].tolist(), "p_floor": floor,
             "share_of_runs": share.tolist()[at]}
            | {key: float(p[at]) if tested[at] else float("nan") for key, p in p_of.items()}
            for at, value in enumerate(found.value)], found.replicates
