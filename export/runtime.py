"""A deployed model for programs: one ONNX file, onnxruntime, NumPy and Pillow; no PyTorch.

    from export.runtime import Predictor
    model = Predictor("model.onnx")                 # provider="cuda" insists on a GPU
    model.labels, model.thresholds                  # the findings and their thresholds
    probability = model(["a.png", "b.dcm", array])  # (3, L); gray (H, W) arrays of any range
    positive = model.predict_labels(probability)    # (3, L): True, False; None without threshold
"""

import ctypes
import hashlib
import json
import mmap
import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

from data.decode import read_image
from data.preprocess import to_float32

ort.disable_telemetry_events()  # some builds would send usage events

FORMAT = "radiograph-to-probability/2"
FORMATS = ("radiograph-to-probability/1", FORMAT)
CHECKSUM = "file_sha256"
# what travels in a model's metadata: text as it is, all else as JSON
TEXT_FIELDS = ("format", "intended_use", "corpus", "init", "architecture", "cohort", "label_set",
               "thresholds_from", "precision", "operators", "input_type", "checkpoint_sha256",
               "calibration")
JSON_FIELDS = dict(labels=list, thresholds=list, image_size=int, synthetic=bool, versions=dict,
                   test_auroc=dict | None, precision_check=dict | None, reference=dict)
INPUTS = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}
WINDOW_BYTES = 2**28  # of decoded images that are held together, and of one inference's pixels


class Predictor:
    """A model file of this project, ready to predict.

    Parameters
    ----------
    path : path-like or bytes
        A file written by `export.to_onnx`, or its content.
    provider : {"auto", "cuda", "cpu"}
        "auto" takes CUDA where it works; "cuda" raises where it does not.
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
        The one in use.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, not a model of this project, damaged or changed since its export, or no CUDA
        where that was demanded.
    """

    def __init__(self, path, provider="auto", threads=None):
        self.session, self.provider = open_session(verified(path), provider, threads)
        self.metadata = decode_metadata(path, self.session)
        self.labels, self.thresholds = self.metadata["labels"], self.metadata["thresholds"]
        self.input_dtype = np.uint8 if self.metadata["input_type"] == "uint8" else np.float32

    def __call__(self, images, batch_size=8):
        """Probabilities of radiographs.

        Parameters
        ----------
        images : sequence of path-like, or of ndarray of shape (H, W)
            Files, or raw gray intensities (dense tissue bright). Those of one size share batches.
        batch_size : int

        Returns
        -------
        ndarray, shape (N, L), float32

        Raises
        ------
        ValueError
            An image cannot be read or predicted, or onnxruntime failed (out of memory, say).
        """
        lone = isinstance(images, str | bytes | os.PathLike) or getattr(images, "ndim", 1) in (0, 2)
        if lone or not hasattr(images, "__iter__"):
            raise ValueError(f"images: {type(images).__name__}; expected a sequence of files or of "
                             "(H, W) arrays")
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: expected at least 1")
        found, window, held = [np.empty((0, len(self.labels)), np.float32)], [], 0
        for i, image in enumerate(images):
            is_file = isinstance(image, str | os.PathLike)
            window.append(self.check(read_image(image), image) if is_file
                          else self.check(image, f"image {i}"))
            held += window[-1].nbytes
            if held >= WINDOW_BYTES:
                found.append(self.predict(window, batch_size))
                window, held = [], 0
        return np.concatenate([*found, self.predict(window, batch_size)])

    def predict(self, images, batch_size=8):
        """Probabilities (N, L) of images that `check` returned, all of them in memory."""
        by_shape = {}
        for i, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(i)
        probability = np.full((len(images), len(self.labels)), np.nan, np.float32)
        for (height, width), rows in by_shape.items():
            size = min(batch_size, max(1, WINDOW_BYTES // (4 * height * width)))
            for start in range(0, len(rows), size):
                batch = rows[start:start + size]
                pixels = np.stack([images[i] for i in batch])[:, None]
                pixels = pixels.astype(self.input_dtype, copy=False)
                try:
                    [probability[batch]] = self.session.run(["probability"], {"image": pixels})
                except Exception as error:  # onnxruntime's exceptions share no narrower public base
                    raise ValueError(f"onnxruntime failed ({first_line(error)})") from None
        if not np.isfinite(probability).all():
            raise ValueError("the model gave a probability that is not a number")
        return probability

    def check(self, image, name="image"):
        """The image as `predict` takes it; ValueError if no probability of it has a meaning."""
        image = np.asarray(image)
        if image.ndim != 2 or image.size < 2:
            raise ValueError(f"{name}: shape {image.shape}; expected (H, W) of more than one pixel")
        if image.dtype.kind not in "uif":
            raise ValueError(f"{name}: type {image.dtype}; expected numbers")
        if self.input_dtype == np.uint8 and image.dtype != np.uint8:
            raise ValueError(f"{name}: type {image.dtype}; this model takes 8-bit images")
        with np.errstate(invalid="ignore", over="ignore"):
            image = to_float32(image)
            low, high = np.float32(image.min()), np.float32(image.max())
            if not np.isfinite(high - low):
                raise ValueError(f"{name}: holds NaN or infinite intensities, or a range beyond "
                                 "float32's")
        if low == high:
            raise ValueError(f"{name}: holds one intensity only")
        return image

    def predict_labels(self, probability):
        """Whether each probability (N, L) reaches its label's threshold; None without one."""
        known = np.array([threshold is not None for threshold in self.thresholds])
        reached = probability >= np.array([1.0 if t is None else t for t in self.thresholds])
        return np.where(known, reached, None)


def resize(image, size):
    """A gray image at (size, size), float32: the first step of the model's preprocessing."""
    picture = Image.fromarray(image.astype(np.float32))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


# -- onnxruntime ---------------------------------------------------------------------------------

def open_session(model, provider="auto", threads=None):
    """An onnxruntime session of a file or bytes, and the name of the provider that it took."""
    if provider not in ("auto", "cuda", "cpu"):
        raise ValueError(f"provider {provider!r}: expected auto, cuda or cpu")
    problem = None if provider == "cpu" else cuda_problem()
    if provider == "cuda" and problem:
        raise ValueError(f"provider cuda: onnxruntime would run on the CPU: {problem}")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads:
        options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    if provider != "cpu" and not problem:
        # TF32 has 10 bits of mantissa; who prefers speed to digits takes the fp16 file
        providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
    try:
        model = model if isinstance(model, bytes) else str(model)
        session = ort.InferenceSession(model, options, providers=providers)
    except Exception as error:
        raise ValueError(f"{named(model)}: onnxruntime cannot read it ({first_line(error)})"
                         ) from None
    session.disable_fallback()  # else a run that fails on the GPU continues silently on the CPU
    took = "cuda" if session.get_providers()[0] == "CUDAExecutionProvider" else "cpu"
    if provider == "cuda" and took != "cuda":
        raise ValueError("provider cuda: onnxruntime fell back to the CPU: no usable NVIDIA GPU; "
                         "check nvidia-smi, or use --provider cpu")
    return session, took


def named(model):
    """How messages call a model."""
    return "model" if isinstance(model, bytes) else model


def first_line(error):
    """The first line of an error's message, or its type where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def cuda_problem():
    """Why onnxruntime cannot use CUDA here, with the remedy, or None if it seems it can."""
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
            return (f"its library onnxruntime_providers_{name} is absent; "
                    "pip uninstall onnxruntime onnxruntime-gpu, pip install onnxruntime-gpu")
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return f"{error}; pip install onnxruntime-gpu[cuda,cudnn]"
    return None


# -- checksum and metadata -----------------------------------------------------------------------

def encode_metadata(metadata):
    """Metadata as an ONNX file holds it, with zeros in the place of the checksum."""
    return {key: value if key in TEXT_FIELDS else json.dumps(value)
            for key, value in metadata.items()} | {CHECKSUM: "0" * 64}


def add_checksum(content):
    """A serialized model with its own sha256 in its metadata, computed with zeros in that place.

    ONNX has no checksum of its own. This one finds damage, not intent: who edits a file can write a
    new checksum into it.
    """
    place = _checksum_place(content)
    return content[:place.start] + _digest(content, place) + content[place.stop:]


def read_checksum(content):
    """The checksum that stands in a serialized model."""
    return content[_checksum_place(content)].decode()


def verified(model):
    """The model, a file or bytes, if its bytes fit its checksum; before anything parses it."""
    with ExitStack() as stack:
        content, name = model, named(model)
        if not isinstance(model, bytes):
            if os.path.isdir(model):
                raise ValueError(f"{model}: is a folder; give its model.onnx")
            if not os.path.isfile(model):
                raise FileNotFoundError(f"{model}: no such file")
            content = b""
            if os.path.getsize(model):  # an empty file cannot be mapped
                file = stack.enter_context(open(model, "rb"))
                content = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        place = _checksum_place(content)
        if place is None:
            raise ValueError(f"{name}: not a model of this project, or cut short (no {CHECKSUM})")
        if content[place] != _digest(content, place):
            raise ValueError(f"{name}: was damaged or changed since its export (its bytes do not "
                             f"fit its {CHECKSUM}); copy or export it again")
    return model


def _checksum_place(content):
    """Where the checksum lies: behind the field's name, protobuf has a tag and a length."""
    start = content.rfind(CHECKSUM.encode())
    return None if start < 0 else slice(start + len(CHECKSUM) + 2, start + len(CHECKSUM) + 66)


def _digest(content, place):
    """The sha256, in hex, of a serialized model with zeros in the place of the checksum."""
    with memoryview(content) as view:
        found = hashlib.sha256(view[:place.start])
        found.update(b"0" * 64)
        found.update(view[place.stop:])
    return found.hexdigest().encode()


def decode_metadata(model, session):
    """The metadata of a model's session; ValueError names the field that is missing or wrong."""
    name, stored = named(model), session.get_modelmeta().custom_metadata_map
    if stored.get("format") not in FORMATS:
        raise ValueError(f"{name}: not a model of this project (format {stored.get('format')!r}; "
                         f"expected one of {FORMATS})")
    metadata = {key: text for key, text in stored.items() if key in TEXT_FIELDS}
    try:
        metadata |= {key: json.loads(text) for key, text in stored.items()
                     if key not in (*TEXT_FIELDS, CHECKSUM)}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: its metadata are not JSON ({error})") from None
    if stored["format"] == FORMATS[0]:
        metadata = _from_format_1(metadata)
    absent = [key for key in (*TEXT_FIELDS, *JSON_FIELDS) if key not in metadata]
    if absent:
        raise ValueError(f"{name}: its metadata lack {', '.join(absent)}; export it again")
    graph = session.get_inputs()[0].type, session.get_outputs()[0].shape[-1]
    wrong = [key for key, kind in JSON_FIELDS.items() if not isinstance(metadata[key], kind)]
    if wrong or (INPUTS.get(metadata["input_type"]), len(metadata["labels"])) != graph or len(
            metadata["thresholds"]) != len(metadata["labels"]):
        raise ValueError(f"{name}: its metadata do not fit the graph ({', '.join(wrong) or graph})")
    return metadata


def _from_format_1(metadata):
    """Metadata of the first format in the words of the present one."""
    mark = " (phantoms in its layout)"  # stood behind the corpus's name
    corpus, check = metadata.get("corpus", ""), metadata.pop("gate", None)
    names = dict(images="images", split="split", label_fall="largest_auroc_loss",
                 mean_fall="mean_auroc_loss", change="largest_change", calls="decisions",
                 changed_calls="changed_decisions", judged_on="device", unjudged="unchecked")
    return metadata | dict(
        operators="onnxruntime", corpus=corpus.removesuffix(mark),
        synthetic=corpus == "phantom" or corpus.endswith(mark),
        precision_check=check and {names.get(key, key): value for key, value in check.items()})
