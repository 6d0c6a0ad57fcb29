"""Reference images and the probabilities that they had at the export; both travel with a model.

Patterns are computed anywhere, from integers; radiographs are known by their file's hash.
Differences are those of the log-odds, beside the spread that each label's log-odds have over
radiographs: a difference that is small for one model may turn the answers of another.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.decode import read_image

# height, width, kind
PATTERNS = ((1024, 1024, "plain"), (513, 380, "plain"), (640, 512, "dark"), (300, 420, "bright"),
            (448, 448, "spots"), (227, 331, "dark"))
FORMULA = ("In integers, with y and x counted from 0 and // rounding down: "
           "plain = y * 200 // height + (x * x // width + 7 * y) % 40 "
           "+ ((y * 2654435761 ^ x * 2246822519) % 2**32 >> 29); dark = plain**3 // 65025; "
           "bright = 255 - dark; spots = plain // 8 + 200 if (x // 37 + y // 41) % 11 == 0 else "
           "plain // 8")
# parts of the spread; fp16 and int8 round differently from processor to processor
TOLERANCE = {"fp32": 0.02, "fp16": 0.1, "int8": 0.1}
LEAST_SPREAD = 0.02  # log-odds

FilePath = str | os.PathLike[str]


class Difference(NamedTuple):
    """How far a model is from its reference on one image, in log-odds of one label."""

    image: str  # the pattern, or the file's path
    difference: float  # of the label that is the farthest, beside its tolerance
    tolerance: float  # of that label


def pattern(height: int, width: int, kind: str = "plain") -> np.ndarray:
    """A picture (height, width) uint8 by `FORMULA`: bands under a hashed grain.

    All kinds but the first have skewed histograms, so that a missing equalization shows.
    """
    y, x = np.mgrid[:height, :width].astype(np.uint32)
    plain = y * 200 // height + (x * x // width + 7 * y) % 40
    plain += (y * 2654435761 ^ x * 2246822519) >> 29  # the multipliers are Knuth's and xxHash's
    if kind == "plain":
        return plain.astype(np.uint8)
    if kind == "spots":
        spots = (x // 37 + y // 41) % 11 == 0
        return (plain // 8 + 200 * spots).astype(np.uint8)
    dark = plain ** 3 // 65025
    if kind == "dark":
        return dark.astype(np.uint8)
    return (255 - dark).astype(np.uint8)


def sha256(path: FilePath) -> str:
    """The sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def log_odds(probability: Any, cut: float = 1e-4) -> np.ndarray:
    """Log-odds of probabilities, cut off near 0 and 1, where float32 has too few digits."""
    p = np.clip(np.float64(probability), cut, 1 - cut)
    return np.log(p / (1 - p))


def reference(model: Any, paths: Sequence[FilePath], probability: np.ndarray) -> dict[str, Any]:
    """What a model file gives for patterns and files, as its metadata `reference` keep it.

    `model` is a `Predictor`; its `probability` (N, L) of some radiographs gives the spread.
    """
    spread = np.maximum(log_odds(probability).std(0), LEAST_SPREAD)
    tolerance = TOLERANCE[model.metadata["precision"]] * spread
    of_patterns = []
    for height, width, kind in PATTERNS:
        of_patterns.append(model([pattern(height, width, kind)])[0].tolist())
    of_radiographs = {}
    for path in paths:
        of_radiographs[sha256(path)] = model([path])[0].tolist()
    return dict(tolerance=tolerance.tolist(), patterns=of_patterns, radiographs=of_radiographs)


def golden(metadata: dict[str, Any]) -> dict[str, Any]:
    """What another program needs to check a model file: patterns, and what it has to give."""
    known = metadata["reference"]
    images = []
    for (height, width, kind), probability in zip(PATTERNS, known["patterns"]):
        pixels = pattern(height, width, kind).tobytes()
        images.append(dict(height=height, width=width, kind=kind, probability=probability,
                           sha256=hashlib.sha256(pixels).hexdigest()))
    return dict(formula=FORMULA, labels=metadata["labels"], tolerance_log_odds=known["tolerance"],
                images=images)


def differences(model: Any, paths: Sequence[FilePath] = ()) -> Iterator[Difference]:
    """How far a `Predictor` is from its reference, on the patterns and on the files that it knows.

    ValueError where none of the files `paths` is a reference.
    """
    known = model.metadata["reference"]
    known_files = []  # (path, probabilities at the export)
    for path in paths:
        digest = sha256(path)
        if digest in known["radiographs"]:
            known_files.append((path, known["radiographs"][digest]))
    if paths and not known_files:
        raise ValueError(f"none of the {len(paths)} files is a reference radiograph of this model")
    if len(known["patterns"]) != len(PATTERNS):
        raise ValueError(f"the model's metadata hold {len(known['patterns'])} reference patterns, "
                         f"expected {len(PATTERNS)}")
    tolerance = np.broadcast_to(known["tolerance"], len(model.labels))

    def difference_on(name: str, image: np.ndarray, expected: list[float]) -> Difference:
        expected_odds = log_odds(np.asarray(expected, np.float32))
        difference = np.abs(log_odds(model([image])[0]) - expected_odds)
        worst = int(np.argmax(difference / tolerance))
        return Difference(name, float(difference[worst]), float(tolerance[worst]))

    for (height, width, kind), expected in zip(PATTERNS, known["patterns"]):
        name = f"pattern {height} x {width} {kind}"
        yield difference_on(name, pattern(height, width, kind), expected)
    for path, expected in known_files:
        yield difference_on(str(path), read_image(os.fspath(path)), expected)
