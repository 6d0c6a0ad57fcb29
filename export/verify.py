"""Reference images and the probabilities that they had at the export; both travel with a model.

Patterns are computed anywhere, from integers; radiographs are known by their file's hash.
Differences are those of the log-odds, beside the spread that each label's log-odds have over
radiographs: what is small for one model may turn another's answers.
"""

import hashlib

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


def pattern(height, width, kind="plain"):
    """A picture (height, width) uint8 by `FORMULA`: bands under a hashed grain.

    All kinds but the first have skewed histograms, so that a missing equalization shows.
    """
    y, x = np.mgrid[:height, :width].astype(np.uint32)
    plain = y * 200 // height + (x * x // width + 7 * y) % 40
    plain += (y * 2654435761 ^ x * 2246822519) >> 29  # the multipliers are Knuth's and xxHash's
    if kind in ("dark", "bright"):
        dark = plain ** 3 // 65025
        return (dark if kind == "dark" else 255 - dark).astype(np.uint8)
    if kind == "spots":
        plain = plain // 8 + 200 * ((x // 37 + y // 41) % 11 == 0)
    return plain.astype(np.uint8)


def sha256(path):
    """The sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def log_odds(probability, cut=1e-4):
    """Log-odds of probabilities, cut off near 0 and 1, where float32 has too few digits."""
    p = np.clip(np.float64(probability), cut, 1 - cut)
    return np.log(p / (1 - p))


def reference(model, paths, probability):
    """A Predictor's probabilities of patterns and files; `probability` (N, L) gives the spread."""
    spread = np.maximum(log_odds(probability).std(0), LEAST_SPREAD)
    return dict(tolerance=(TOLERANCE[model.metadata["precision"]] * spread).tolist(),
                patterns=[model([pattern(*one)])[0].tolist() for one in PATTERNS],
                radiographs={sha256(path): model([path])[0].tolist() for path in paths})


def golden(metadata):
    """What another program needs to check a model file: patterns, and what it has to give."""
    known = metadata["reference"]
    images = [dict(height=height, width=width, kind=kind, probability=probability,
                   sha256=hashlib.sha256(pattern(height, width, kind).tobytes()).hexdigest())
              for (height, width, kind), probability in zip(PATTERNS, known["patterns"])]
    return dict(formula=FORMULA, labels=metadata["labels"], tolerance_log_odds=known["tolerance"],
                images=images)


def differences(model, paths=()):
    """How far a Predictor is from its reference; yields (name, difference, tolerance), each float.

    They are log-odds of the label whose difference is largest beside its tolerance. ValueError
    where none of the files `paths` is a reference.
    """
    known = model.metadata["reference"]
    wanted = known["radiographs"]
    found = [(path, wanted[digest]) for path in paths if (digest := sha256(path)) in wanted]
    if paths and not found:
        raise ValueError(f"none of the {len(paths)} files is a reference radiograph of this model")
    if len(known["patterns"]) != len(PATTERNS):
        raise ValueError(f"the model's metadata hold {len(known['patterns'])} reference patterns, "
                         f"expected {len(PATTERNS)}")
    tolerance = np.broadcast_to(known["tolerance"], len(model.labels))
    for image, expected in [*zip(PATTERNS, known["patterns"]), *found]:
        made = isinstance(image, tuple)
        name = "pattern {} x {} {}".format(*image) if made else str(image)
        probability = model([pattern(*image) if made else read_image(image)])[0]
        difference = np.abs(log_odds(probability) - log_odds(np.float32(expected)))
        worst = int(np.argmax(difference / tolerance))
        yield name, float(difference[worst]), float(tolerance[worst])
