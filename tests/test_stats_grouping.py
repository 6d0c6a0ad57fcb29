"""Which runs are pooled as runs of one init, and which are told apart by name."""

import numpy as np
import pytest

from stats.grouping import comparison_groups, facts_that_differ
from stats.predictions import Predictions

IMAGES = np.array(["a", "b", "c"])


def run(seed, labels=("Edema", "Mass"), **meta):
    rng = np.random.default_rng(seed)
    y = np.zeros((3, len(labels)))
    settings = {"epochs": 10, "limit": None} | meta.pop("settings", {})
    return Predictions(IMAGES, None, list(labels), y, rng.random(y.shape), {
        "run": f"run{seed}", "corpus": "x", "init": "dinov2", "arch": "vit_base",
        "settings": settings, "images_train": 900} | meta)


def names(*runs, **options):
    options = {"by_labels": False} | options
    (group,) = comparison_groups(runs, {}, {"x": ["Edema"]}, **options)
    return [m.meta["name"] for m in group.models]


def test_runs_of_other_seeds_are_one_init():
    assert names(run(0), run(1)) == ["dinov2", "dinov2"]


@pytest.mark.parametrize("changes, told", [
    ({"settings": {"limit": 40}}, "limit 40"),
    ({"images_train": 40}, "training images 40"),
    ({"settings": {"epochs": 3}}, "epochs 3"),
    ({"settings": {"invented_later": True}}, "invented_later True"),
    ({"arch": "vit_small"}, "arch vit_small"),
])
def test_runs_of_another_kind_are_told_apart(changes, told):
    first, second = names(run(0), run(1, **changes))
    assert second == f"dinov2, {told}" and first != second


def test_label_sets_are_told_apart_by_their_names_and_not_their_number():
    first, second, third = names(run(0), run(1, ["Edema", "Nodule"]), run(2, ["Edema"]),
                                 only_shared=True)
    assert first == "dinov2, labels 2 (Mass)" and second == "dinov2, labels 2 (Nodule)"
    assert third == "dinov2, labels 1"
    first, second = names(run(0, ["Edema"], labels_trained=["Edema", "Mass"]),
                          run(1, ["Edema"], labels_trained=["Edema", "Nodule"]))
    assert first == "dinov2, labels 2 (Mass)" and second == "dinov2, labels 2 (Nodule)"


def test_runs_that_a_given_name_pools_are_compared_in_all_that_makes_their_kind():
    def run(name, seed, **facts):
        y = np.zeros((4, 1), np.float32)
        settings = {"lr": facts.pop("lr", 1e-5)}
        meta = {"corpus": "x", "name": name, "run": f"{name}{seed}", "settings": settings, **facts}
        scores = np.full((4, 1), seed / 9, np.float32)
        ids = np.array(["a", "b", "c", "d"])
        return Predictions(ids, None, ["Edema"], y, scores, meta, None, None, None)

    models = [run("like", 1, images_train=90), run("like", 2, images_train=90),
              run("sizes", 3, images_train=90), run("sizes", 4, images_train=3000),
              run("rates", 5, lr=1e-4), run("rates", 6), run("alone", 7)]
    assert facts_that_differ(models) == {"sizes": ["training images"], "rates": ["lr"]}
