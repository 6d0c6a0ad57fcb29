"""Answers over corpora and over sizes, from predictions to sentences, tables and figures."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from stats import meta
from stats.across import pool_studies, sizes_of, study_sizes
from stats.learning_curves import compare_curves
from stats.predictions import Predictions
from stats.report.across import (
    pooled_rows,
    pooled_sentence,
    pooled_tables,
    size_rows,
    size_sentences,
    size_tables,
)
from stats.report.across_figures import across_figures
from stats.study import study

LABELS = ["Edema", "Mass", "Nodule"]


def predictions(name, corpus, quality, seed, images_train=None, trained_on=None, labels=LABELS):
    """Predictions of 150 images of 75 patients; `quality` moves the positives' scores up."""
    truth = np.random.default_rng(len(corpus))
    y_true = (truth.random((150, len(labels))) < 0.3).astype(float)
    noise = np.random.default_rng(seed).normal(size=y_true.shape)
    y_score = 1 / (1 + np.exp(-(quality * y_true + noise)))
    ids = np.array([f"{corpus}{number:03}" for number in range(150)])
    patients = np.array([f"p{number // 2}" for number in range(150)])
    return Predictions(ids, patients, list(labels), y_true, y_score, {
        "name": name, "run": f"{name}-{seed}", "init": name, "corpus": corpus, "seed": seed,
        "corpus_title": corpus.upper(), "images_train": images_train, "trained_on": trained_on})


def studies_of(corpora, runs=2, **options):
    found = []
    for number, corpus in enumerate(corpora):
        models = []
        for seed in range(runs):
            size = 1000 * 10**number
            models += [predictions("dinov2", corpus, 1.2, seed, size, **options),
                       predictions("imagenet", corpus, 0.9, 50 + seed, size, **options)]
        found.append(study(corpus, models, n_resamples=200, min_count=5,
                           trained_on=options.get("trained_on")))
    return found


@pytest.fixture(scope="module")
def three():
    return studies_of(["one", "three", "seventeen"])


def test_the_pooled_difference_is_that_of_the_studies(three):
    [pooled], notes = pool_studies(three)
    tests = [s.comparisons[0].mean for s in three]
    expected = meta.pool([test.difference for test in tests],
                         [test.standard_error for test in tests])
    assert pooled.pooled.estimate == expected.estimate and not notes
    assert pooled.pooled.interval == expected.interval and pooled.same_labels
    line = meta.regress([test.difference for test in tests],
                        [test.standard_error for test in tests], [3, 4, 5])
    assert pooled.on_size == line and pooled.without == ()
    sentence = pooled_sentence(pooled)
    assert sentence.startswith("DINOv2 − ImageNet-21k over 3 corpora, mean ROC-AUC over the labels")
    assert f"{100 * expected.estimate:+.2f} points" in sentence and "a new hospital:" in sentence
    assert sentence.endswith("; 2 runs each")
    fewer = replace(pooled.corpora[0], runs=(2, 3))
    sentence = pooled_sentence(replace(pooled, corpora=(fewer, *pooled.corpora[1:])))
    assert sentence.endswith("; 2 or more runs each")
    [table] = pooled_tables([pooled])
    assert [row[0] for row in table.rows] == ["ONE", "THREE", "SEVENTEEN", "Pooled",
                                              "A new hospital"]
    assert "confounded" in table.note
    rows = pooled_rows([pooled])
    assert [row.corpus for row in rows] == ["one", "three", "seventeen", "pooled"]
    assert sum(row.weight for row in rows[:3]) == pytest.approx(1)


def test_four_corpora_are_pooled_without_each_of_them(three):
    four = [*three, *studies_of(["five"])]
    [pooled], _ = pool_studies(four)
    tests = [s.comparisons[0].mean for s in four]
    expected = meta.leave_one_out([test.difference for test in tests],
                                  [test.standard_error for test in tests])
    assert [one.estimate for one in pooled.without] == [one.estimate for one in expected]


def test_single_runs_make_it_an_answer_about_trained_models():
    [pooled], _ = pool_studies(studies_of(["one", "three", "seventeen"], runs=1))
    assert "about trained models" in pooled_sentence(pooled)


def test_labels_of_their_own_are_said_to_be_so(three):
    other = study("five", [predictions("dinov2", "five", 1.2, 0, labels=["Edema", "Mass"]),
                           predictions("imagenet", "five", 0.9, 1, labels=["Edema", "Mass"])],
                  n_resamples=100, min_count=5)
    [pooled], _ = pool_studies([*three, other])
    assert not pooled.same_labels and "each corpus's own labels" in pooled_sentence(pooled)
    assert pooled.on_size is None  # the last one does not say on how many images


def test_what_is_not_pooled_is_said(three):
    pooled, [note] = pool_studies(three[:2])
    assert not pooled and "over 2 corpora: from 3 on" in note
    assert pool_studies(three[:1]) == ([], [])
    elsewhere = studies_of(["five", "eleven"], trained_on="one")
    pooled, notes = pool_studies([three[0], *elsewhere])
    assert not pooled and "the same networks" in notes[-1]


def by_size(sizes, runs=2):
    """An init that is better with few images and one that is better with many."""
    found = {}
    for number, size in enumerate(sizes):
        found[size] = []
        for seed in range(runs):
            found[size] += [
                predictions("mimic", "one", 1.0 + 0.1 * number, seed + 10 * number, size),
                predictions("dinov2", "one", 0.4 + 0.5 * number, 100 + seed + 10 * number, size)]
    return found


def test_learning_curves_are_compared_on_the_same_resamples():
    members = by_size([100, 1000, 10_000])
    result = study_sizes(members, LABELS, title="One", n_resamples=200, seed=0, resample=None)
    assert result.resample == "patient" and len(result.points) == 6
    [pair] = result.pairs
    assert (pair.a, pair.b) == ("mimic", "dinov2") and pair.compared.is_about_runs
    # At one size it is what the study of that size finds, with the same resamples.
    alone = study("one", members[100], n_resamples=200, min_count=1)
    difference = pair.compared.differences[0]
    assert difference.value == pytest.approx(alone.comparisons[0].mean.difference)
    assert difference.p_value == pytest.approx(alone.comparisons[0].mean.p_value)
    assert pair.compared.trend.per_tenfold < 0
    [sentence] = size_sentences(result)
    assert sentence.startswith("MIMIC-CXR − DINOv2 on One, mean ROC-AUC over 3 labels: ")
    assert "at 100 images" in sentence and "per tenfold −" in sentence and "cross" in sentence
    tables = size_tables(result)
    assert [row[0] for row in tables[0].rows] == ["100", "1,000", "10,000"]
    assert "DINOv2: " in tables[1].rows[0][-1]
    rows = size_rows([result])
    assert len(rows) == 6 + 3 and {row.b for row in rows} == {"", "dinov2"}


def test_sizes_are_an_axis_only_where_they_were_asked_for():
    sizes = [100, 1000]
    found = [p for members in by_size(sizes).values() for p in members]
    assert sizes_of(found) == {}  # corpora that grew, or --limit
    for p in found:
        p.meta["settings"] = {"train_images": p.meta["images_train"]}
    assert sizes_of(found) == {"one": sizes}


def test_a_size_that_one_init_lacks_is_in_its_curve_alone():
    members = by_size([100, 1000, 10_000])
    members[1000] = [p for p in members[1000] if p.meta["name"] == "mimic"]
    result = study_sizes(members, LABELS, title="One", n_resamples=100, seed=0, resample="image")
    assert [point.images for point in result.points if point.init == "dinov2"] == [100, 10_000]
    assert result.pairs[0].compared.images == (100, 10_000)
    with pytest.raises(ValueError, match="2 or more sizes"):
        compare_curves([100], [np.zeros((9, 1))], [np.zeros((9, 1))])


def test_figures_have_a_row_per_corpus_and_a_line_per_init(three, tmp_path):
    pooled, _ = pool_studies(three)
    result = study_sizes(by_size([100, 1000, 10_000]), LABELS, title="One", n_resamples=100,
                         seed=0, resample=None)
    with matplotlib.rc_context({"text.parse_math": False}):
        figures = across_figures(pooled, [result])
        assert list(figures) == ["pooled", "pooled-by-size", "learning-curves"]
        for name, figure in figures.items():
            figure.savefig(tmp_path / f"{name}.png", dpi=100)
    forest = figures["pooled"].axes[0]
    assert [tick.get_text() for tick in forest.get_yticklabels()] == [
        "ONE", "THREE", "SEVENTEEN", "Pooled", "A new hospital"]
    curves, differences = figures["learning-curves"].axes
    assert [text.get_text() for text in curves.get_legend().get_texts()] == [
        "MIMIC-CXR (2 runs each)", "DINOv2 (2 runs each)"]
    assert [tick.get_text() for tick in differences.get_xticklabels()] == ["100", "1,000",
                                                                           "10,000"]
