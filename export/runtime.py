"""A deployed model for programs: one ONNX file, onnxruntime and NumPy; no PyTorch.

    from export.runtime import Predictor
    model = Predictor("model.onnx")                   # provider="cuda" insists on a GPU
    model.labels, model.thresholds                    # what it finds, and from which probability on
    probability = model(["a.png", "b.dcm", array])    # (3, labels); grey (H, W) arrays of any range and size
    called = model.calls(probability)                 # (3, labels): True, False, or None without a threshold
"""

import ctypes
import hashlib
import json
import mmap
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from data.decode import read_image
from data.preprocess import to_float32

ort.disable_telemetry_events()  # builds that have them send no usage events from a hospital's machine

FORMAT = "radiograph-to-probability/1"
# what travels in a model's metadata: text as it is, all else as JSON
TEXT_FIELDS = ("format", "intended_use", "corpus", "init", "architecture", "cohort", "label_set",
               "thresholds_from", "precision", "input_type", "checkpoint_sha256", "calibration")
JSON_FIELDS = ("labels", "thresholds", "image_size", "test_auroc", "versions", "gate", "reference")
INPUTS = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}
SEAL = "file_sha256"
WINDOW_BYTES = 2**28  # of decoded images that are held together, and of one inference's pixels


class Predictor:
    """A model file of this project, ready to be asked.

    Parameters
    ----------
    path : path-like or bytes
        A file written by `export.to_onnx`, or its content.
    provider : {"auto", "cuda", "cpu"}
        "auto" takes CUDA where it works and says in `.provider` what it took; "cuda" raises elsewhere.
    threads : int, optional
        CPU threads of one inference; all cores by default.

    Attributes
    ----------
    labels : list of str
    thresholds : list of float or None
        One a label; None where validation did not yield one.
    metadata : dict
        Everything that travels with the model, see `TEXT_FIELDS` and `JSON_FIELDS`.
    provider : {"cuda", "cpu"}

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, not a model of this project, damaged or changed since its export, or no CUDA where that was
        demanded.
    """

    def __init__(self, path, provider="auto", threads=None):
        self.session, self.provider = open_session(path, provider, threads)
        self.metadata = decode_metadata(path, self.session)
        self.labels, self.thresholds = self.metadata["labels"], self.metadata["thresholds"]
        self.input_dtype = np.uint8 if "uint8" in self.session.get_inputs()[0].type else np.float32

    def __call__(self, images, batch_size=8):
        """Probabilities of radiographs.

        Parameters
        ----------
        images : sequence of path-like, or of ndarray of shape (H, W)
            Files, or raw grey intensities (dense tissue bright). Those of one size share batches.
        batch_size : int

        Returns
        -------
        ndarray, shape (N, L), float32

        Raises
        ------
        ValueError
            An image that cannot be read or judged, or onnxruntime failed (out of memory, say); nothing is
            predicted then.
        """
        lone = isinstance(images, str | bytes | os.PathLike) or getattr(images, "ndim", 1) in (0, 2)
        if lone or not hasattr(images, "__iter__"):
            raise ValueError(f"images: {type(images).__name__}; expected a sequence of files or of (H, W) arrays")
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: expected at least 1")
        found, window, held = [np.empty((0, len(self.labels)), np.float32)], [], 0
        for i, image in enumerate(images):
            is_file = isinstance(image, str | os.PathLike)
            window.append(self.check(read_image(image), image) if is_file else self.check(image, f"image {i}"))
            held += window[-1].nbytes
            if held >= WINDOW_BYTES:
                found.append(self.predict(window, batch_size))
                window, held = [], 0
        return np.concatenate([*found, self.predict(window, batch_size)])

    def predict(self, images, batch_size=8):
        """Probabilities (N, L) of images that `check` gave, all of them in memory."""
        by_shape = {}
        for i, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(i)
        probability = np.full((len(images), len(self.labels)), np.nan, np.float32)
        for (height, width), rows in by_shape.items():
            size = min(batch_size, max(1, WINDOW_BYTES // (4 * height * width)))
            for start in range(0, len(rows), size):
                batch = rows[start:start + size]
                pixels = np.stack([images[i] for i in batch])[:, None].astype(self.input_dtype, copy=False)
                try:
                    probability[batch] = self.session.run(["probability"], {"image": pixels})[0]
                except Exception as error:  # onnxruntime's exceptions share no narrower public base
                    raise ValueError(f"onnxruntime failed ({first_line(error)})") from None
        if not np.isfinite(probability).all():
            raise ValueError("the model gave a probability that is not a number")
        return probability

    def check(self, image, name="image"):
        """The image as `predict` takes it; ValueError by its name if no probability of it would mean anything."""
        image = np.asarray(image)
        if image.ndim != 2 or image.size < 2:
            raise ValueError(f"{name}: shape {image.shape}; expected (H, W), of more than one pixel")
        if image.dtype.kind not in "uif":
            raise ValueError(f"{name}: type {image.dtype}; expected numbers")
        if self.input_dtype == np.uint8 and image.dtype != np.uint8:
            raise ValueError(f"{name}: type {image.dtype}; this model takes 8-bit images")
        with np.errstate(invalid="ignore", over="ignore"):
            image = to_float32(image)
            low, high = np.float32(image.min()), np.float32(image.max())
            if not np.isfinite(high - low):
                raise ValueError(f"{name}: holds NaN or infinite intensities, or a range beyond float32's")
        if low == high:
            raise ValueError(f"{name}: holds one intensity only")
        return image

    def calls(self, probability):
        """Whether each probability reaches its label's threshold; None where there is no threshold."""
        known = np.array([threshold is not None for threshold in self.thresholds])
        reached = probability >= np.array([1.0 if t is None else t for t in self.thresholds])
        return np.where(known, reached, None)


def open_session(model, provider="auto", threads=None):
    """An onnxruntime session of a file or bytes on the provider asked for, and that provider's name."""
    if provider not in ("auto", "cuda", "cpu"):
        raise ValueError(f"provider {provider!r}: expected auto, cuda or cpu")
    if not isinstance(model, bytes):
        model = str(model)
        if Path(model).is_dir():
            raise ValueError(f"{model}: is a folder; give its model.onnx")
        if not Path(model).is_file():
            raise FileNotFoundError(f"{model}: no such file")
    problem = None if provider == "cpu" else cuda_problem()
    if provider == "cuda" and problem:
        raise ValueError(f"provider cuda: onnxruntime would run on the CPU: {problem}")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    if provider != "cpu" and not problem:
        # TF32 has 10 bits of mantissa; whoever wants speed over digits there has the fp16 file
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
    try:
        session = ort.InferenceSession(model, options, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no narrower public base
        raise ValueError(f"{named(model)}: onnxruntime cannot read it ({first_line(error)})") from None
    session.disable_fallback()  # else a run that fails on the GPU goes on silently on the CPU
    took = "cuda" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
    if provider == "cuda" and took != "cuda":
        raise ValueError("provider cuda: onnxruntime fell back to the CPU: no usable NVIDIA GPU; check "
                         "nvidia-smi, or use --provider cpu")
    return session, took


def named(model):
    """How messages call a model."""
    return "model" if isinstance(model, bytes) else model


def first_line(error):
    """The first line of an error's message, or its kind where it has none; onnxruntime's can be long."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def cuda_problem():
    """Why onnxruntime cannot use CUDA here, with the remedy, or None if nothing speaks against it."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "it is built without CUDA; pip uninstall onnxruntime, pip install onnxruntime-gpu"
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return "no NVIDIA driver on this machine; install one, or use --provider cpu"
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds the CUDA and cuDNN that pip installed
    folder = Path(ort.__file__).parent / "capi"
    for name in ("shared", "cuda"):
        library = next(folder.glob(f"*onnxruntime_providers_{name}.*"), None)
        if library is None:
            return (f"its library onnxruntime_providers_{name} is absent; pip uninstall onnxruntime onnxruntime-gpu, "
                    "pip install onnxruntime-gpu")
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return f"{error}; pip install onnxruntime-gpu[cuda,cudnn]"
    return None


def encode_metadata(metadata):
    """Metadata as an ONNX file holds it, text for text, with zeros where `seal` puts its hash."""
    stored = {key: value if key in TEXT_FIELDS else json.dumps(value) for key, value in metadata.items()}
    return stored | {SEAL: "0" * 64}


def seal(content):
    """A serialised model with its own sha256 in its metadata, taken as if zeros were in the hash's place."""
    place, digest = _seal_place(content), _digest(content)
    return content[:place.start] + digest + content[place.stop:]


def is_sealed(model):
    """Whether every byte of a model, a file or bytes, is as `seal` left it: ONNX itself has no checksum."""
    if isinstance(model, bytes):
        return model[_seal_place(model)] == _digest(model)
    with open(model, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content[_seal_place(content)] == _digest(content)


def _digest(content):
    """The hash that a serialised model should have, in hex."""
    place = _seal_place(content)
    with memoryview(content) as view:
        found = hashlib.sha256(view[:place.start])
        found.update(b"0" * 64)
        found.update(view[place.stop:])
    return found.hexdigest().encode()


def _seal_place(content):
    """Where the hash lies in a serialised model: behind the field's name, protobuf has a tag and a length."""
    start = content.rfind(SEAL.encode()) + len(SEAL) + 2
    return slice(start, start + 64)


def seal_of(content):
    """The hash in a serialised model."""
    return content[_seal_place(content)].decode()


def decode_metadata(model, session):
    """The metadata of a model's session, checked; ValueError names what is missing or damaged."""
    name = named(model)
    try:
        stored = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: its metadata are damaged ({error})") from None
    if stored.get("format") != FORMAT:
        raise ValueError(f"{name}: not a model of this project (its metadata lack format = {FORMAT})")
    absent = [key for key in (*TEXT_FIELDS, *JSON_FIELDS, SEAL) if key not in stored]
    if absent:
        raise ValueError(f"{name}: its metadata were cut (no {', '.join(absent)}); export it again")
    if not is_sealed(model):
        raise ValueError(f"{name}: was damaged or changed since its export (its bytes do not fit its {SEAL}); copy or "
                         "export it again")
    metadata = {key: stored[key] for key in TEXT_FIELDS}
    for key in JSON_FIELDS:
        try:
            metadata[key] = json.loads(stored[key])
        except (ValueError, RecursionError):
            raise ValueError(f"{name}: its metadata are damaged ({key}: {stored[key][:40]!r})") from None
    inputs = [(node.name, node.type) for node in session.get_inputs()]
    outputs = [(node.name, node.shape[-1]) for node in session.get_outputs()]
    for key, right in well_formed(metadata, inputs, outputs).items():
        if not right:
            raise ValueError(f"{name}: its metadata are damaged ({key}: {stored[key][:40]!r}; the graph has the inputs "
                             f"{inputs} and the outputs {outputs})")
    return metadata


def well_formed(metadata, inputs, outputs):
    """Whether each field is of its kind, so that nothing that reads the metadata has to ask again."""
    labels, auroc, gate = metadata["labels"], metadata["test_auroc"], metadata["gate"]
    strings = isinstance(labels, list) and all(isinstance(label, str) and label for label in labels)
    count = len(labels) if strings and len(set(labels)) == len(labels) else -1

    def rows(values, length, gaps=False):
        return isinstance(values, list) and all(numbers(row, length, gaps) for row in values)

    return dict(
        labels=outputs == [("probability", count)],
        thresholds=numbers(metadata["thresholds"], count, gaps=True),
        input_type=inputs == [("image", INPUTS.get(metadata["input_type"]))],
        image_size=whole(metadata["image_size"]) and 0 < metadata["image_size"] <= 4096,
        test_auroc=auroc is None or has(auroc, images=whole, method=str, labels=lambda values: (
            rows(values, 3, gaps=True) and len(values) == count)),
        versions=isinstance(metadata["versions"], dict) and all(
            isinstance(version, str) for version in metadata["versions"].values()),
        gate=gate is None or has(gate, images=whole, split=str, label_fall=number, mean_fall=number, change=number,
                                 calls=whole, changed_calls=whole, judged_on=str, unjudged=lambda names: (
                                     strings and isinstance(names, list) and all(name in labels for name in names))),
        reference=has(metadata["reference"], tolerance=number, patterns=lambda values: rows(values, count),
                      radiographs=lambda known: isinstance(known, dict) and rows(list(known.values()), count)))


def has(value, **kinds):
    """Whether a value is a dict of these keys, each of its kind: a type or a test."""
    return isinstance(value, dict) and value.keys() == kinds.keys() and all(
        isinstance(value[key], kind) if isinstance(kind, type) else kind(value[key]) for key, kind in kinds.items())


def numbers(values, length, gaps):
    """Whether values are a list of numbers from 0 to 1, with None in between if gaps are allowed."""
    return isinstance(values, list) and len(values) == length and all(
        x is None and gaps or number(x) and x >= 0 for x in values)


def number(value):
    """Whether a value is a finite number of a size that probabilities, AUCs and their differences have."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value <= 1


def whole(value):
    return type(value) is int
