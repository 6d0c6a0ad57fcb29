"""Synthetic patients and their studies: what is drawn, and which labels it has.

Findings that `data.phantom.render` draws appear in the images; labels that it cannot draw are
tossed at random, so that every label of Table 3 has positives and negatives.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from data.phantom.render import FINDINGS, View, draw_findings, render, render_lateral

Plane = Literal["frontal", "lateral"]
# What else a drawn finding is called, in one release or another.
SYNONYMS = {"Consolidation": ("Pneumonia", "Lung opacity", "Infiltrates", "Infiltration"),
            "Nodule": ("Nodule/mass", "Mass", "Lung lesion")}
SIDES = ("Pleural effusion right", "Pleural effusion left")
SHOWN = 0.85  # of a patient's findings, in each study
TOSSED = 0.08  # of the labels that cannot be drawn
LATERAL = 0.4  # of the studies have a lateral image, too


@dataclass(frozen=True)
class Study:
    """One visit of a patient."""

    patient: int  # from 1 on, seeds the anatomy
    sex: Literal["F", "M"]
    age: int  # years
    is_test: bool  # of the release's own split
    number: int  # of the visit, from 0 on
    view: View  # of the frontal image
    planes: tuple[Plane, ...]  # one image each
    drawn: list[str]  # findings that the image shows
    labels: set[str]  # by our names, "No finding" alone if there is none
    rng: np.random.Generator  # for what else a release draws at random

    def image(self, size: int, plane: Plane = "frontal") -> np.ndarray:
        """Float image (size, size) in [0, 1]."""
        if plane == "lateral":
            return render_lateral(self.number, size=size, patient=self.patient)
        image, _ = render(self.drawn, self.number, size=size, patient=self.patient, view=self.view)
        return image


def make_studies(label_names: Sequence[str], patients: int, seed: int, *,
                 views: tuple[View, ...] = ("PA", "AP"), several_visits: bool = True,
                 name_sides: bool = False) -> Iterator[Study]:
    """Yield the studies of each patient: one to three, or one each.

    `label_names` are those of a corpus's Table 3; `name_sides` adds on which side fluid is drawn.
    """
    for patient in range(patients):
        rng = np.random.default_rng((5, seed, patient))
        number = 100_000 * seed + patient + 1
        findings = draw_findings(rng)
        sex: Literal["F", "M"] = "M" if number // 2 % 2 else "F"
        age = 20 + 7 * number % 70
        visits = 1
        if several_visits:
            visits = int(rng.integers(1, 4))
        for visit in range(visits):
            drawn = [name for name in findings if rng.random() < SHOWN]
            labels = _labels_of(drawn)
            if name_sides and "Pleural effusion" in drawn:
                labels.add(_side_of_effusion(drawn, visit, number))
            labels |= _toss_labels(label_names, labels, rng)
            if not labels:
                labels = {"No finding"}
            view: View = str(rng.choice(views))  # type: ignore[assignment]
            planes: tuple[Plane, ...] = ("frontal",)
            if rng.random() < LATERAL:
                planes = ("frontal", "lateral")
            yield Study(patient=number, sex=sex, age=age, is_test=patient % 5 == 4, number=visit,
                        view=view, planes=planes, drawn=drawn, labels=labels, rng=rng)


def _labels_of(drawn: list[str]) -> set[str]:
    """The findings that are drawn, under all their names."""
    labels = set(drawn)
    for name in drawn:
        labels.update(SYNONYMS.get(name, ()))
    return labels


def _side_of_effusion(drawn: list[str], visit: int, patient: int) -> str:
    """The label of the side on which `render` draws the fluid of an AP image."""
    _, masks = render(drawn, visit, size=32, patient=patient, view="AP")
    patients_right, patients_left = np.split(masks["Pleural effusion"], 2, axis=1)
    # the patient's right is on the image's left
    if patients_right.sum() > patients_left.sum():
        return "Pleural effusion right"
    return "Pleural effusion left"


def _toss_labels(label_names: Sequence[str], labels: set[str],
                 rng: np.random.Generator) -> set[str]:
    """Some of the labels that nothing in the image stands for."""
    meant = {*labels, *FINDINGS, *SIDES, "No finding"}
    for names in SYNONYMS.values():
        meant.update(names)
    tossed = set()
    for name in label_names:
        if name not in meant and rng.random() < TOSSED:
            tossed.add(name)
    return tossed
