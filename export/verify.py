"""Reference images and the probabilities that they had at the export; both travel with a model.

Two kinds. Patterns are computed anywhere from integers alone, so that a lone model file can be
checked. Radiographs are known by the hash of their file; only who has them can check them.
"""

import hashlib

import numpy as np

from data.decode import read_image

PATTERNS = ((1024, 1024), (513, 380))  # height, width
REDUCED = 1e-2  # fp16 and int8 round differently from processor to processor


def pattern(height, width):
    """A test image from integer arithmetic, the same on every machine: bands under a hashed grain.

    Returns
    -------
    ndarray, uint8, shape (height, width)
    """
    y, x = np.mgrid[:height, :width].astype(np.uint32)
    bands = (y * 200 // height + (x * x // width + 7 * y) % 40).astype(np.uint32)
    # the multipliers are Knuth's and xxHash's
    grain = (y * np.uint32(2654435761) ^ x * np.uint32(2246822519)) >> np.uint32(29)
    return (bands + grain).astype(np.uint8)


def sha256(path):
    """The sha256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def reference(model, paths, tolerance):
    """What travels in the metadata: a model's probabilities of the patterns and of radiographs.

    Parameters
    ----------
    model : export.runtime.Predictor
    paths : sequence of path-like
        A few radiographs.
    tolerance : float
        Largest difference that a rerun may have.
    """
    patterns = [model([pattern(*size)])[0].tolist() for size in PATTERNS]
    radiographs = {sha256(path): model([path])[0].tolist() for path in paths}
    return dict(tolerance=tolerance, patterns=patterns, radiographs=radiographs)


def differences(model, paths=()):
    """How far a model is from its reference probabilities.

    Parameters
    ----------
    model : export.runtime.Predictor
    paths : sequence of path-like
        Files among which reference radiographs are looked for.

    Yields
    ------
    name : str
    difference, tolerance : float
        The largest over the labels, and what is allowed.

    Raises
    ------
    OSError, ValueError
        One of `paths` cannot be read, none is a reference radiograph, or the model has no reference
        patterns; before anything is yielded.
    """
    known = model.metadata["reference"]
    wanted = known["radiographs"]
    found = [(path, wanted[digest]) for path in paths if (digest := sha256(path)) in wanted]
    if paths and not found:
        raise ValueError(f"none of the {len(paths)} files is a reference radiograph of this model")
    if len(known["patterns"]) != len(PATTERNS):
        raise ValueError(f"the model's metadata hold {len(known['patterns'])} reference patterns, "
                         f"expected {len(PATTERNS)}")
    for size, expected in zip(PATTERNS, known["patterns"], strict=True):
        difference = largest(model([pattern(*size)])[0], expected)
        yield f"pattern {size[0]} x {size[1]}", difference, known["tolerance"]
    for path, expected in found:
        yield str(path), largest(model([read_image(path)])[0], expected), known["tolerance"]


def largest(probability, expected):
    """The largest difference of two rows of probabilities."""
    return float(np.abs(probability - np.asarray(expected, np.float32)).max())
