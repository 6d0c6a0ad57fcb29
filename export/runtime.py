"""A deployed model for programs: one ONNX file, onnxruntime and NumPy; no PyTorch.

    from export.runtime import Predictor
    model = Predictor("model.onnx")                   # provider="cuda" insists on a GPU
    model.labels, model.thresholds                    # what it finds, and from which probability on
    probability = model(["a.png", "b.dcm", array])    # (3, labels); grey (H, W) arrays of any range and size
    called = model.calls(probability)                 # (3, labels): True, False, or None without a threshold
"""

import ctypes
import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from data.images import read_image

ort.disable_telemetry_events()  # builds that have them send no usage events from a hospital's machine

FORMAT = "radiograph-to-probability/1"
# what travels in a model's metadata: text as it is, all else as JSON
TEXT_FIELDS = ("format", "intended_use", "corpus", "init", "architecture", "cohort", "label_set",
               "thresholds_from", "precision", "checkpoint_sha256", "calibration")
JSON_FIELDS = ("labels", "thresholds", "image_size", "test_auroc", "versions", "reference")


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
        No such file, not a model of this project, its metadata damaged, or no CUDA where that was demanded.
    """

    def __init__(self, path, provider="auto", threads=None):
        self.session, self.provider = open_session(path, provider, threads)
        self.metadata = decode_metadata(named(path), self.session)
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
        images = [self.check(read_image(x) if isinstance(x, str | os.PathLike) else x) for x in images]
        by_shape = {}
        for i, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(i)
        probability = np.empty((len(images), len(self.labels)), np.float32)
        for rows in by_shape.values():
            for start in range(0, len(rows), batch_size):
                batch = rows[start:start + batch_size]
                pixels = np.stack([images[i] for i in batch])[:, None].astype(self.input_dtype, copy=False)
                try:
                    probability[batch] = self.session.run(["probability"], {"image": pixels})[0]
                except Exception as error:  # onnxruntime's exceptions share no narrower public base
                    raise ValueError(f"onnxruntime failed ({first_line(error)})") from None
        if not np.isfinite(probability).all():
            raise ValueError("the model gave a probability that is not a number")
        return probability

    def check(self, image):
        """The image as an array; ValueError if no probability of it would mean anything."""
        image = np.asarray(image)
        if image.ndim != 2 or image.size < 2:
            raise ValueError(f"image of shape {image.shape}: expected (H, W), of more than one pixel")
        if image.dtype.kind not in "uif":
            raise ValueError(f"image of type {image.dtype}: expected numbers")
        if self.input_dtype == np.uint8 and image.dtype != np.uint8:
            raise ValueError(f"image of type {image.dtype}: this model takes 8-bit images")
        if image.dtype.kind == "f" and not np.isfinite(image).all():
            raise ValueError("image holds NaN or infinite intensities")
        return image

    def calls(self, probability):
        """Whether each probability reaches its label's threshold; None where there is no threshold."""
        known = np.array([threshold is not None for threshold in self.thresholds])
        reached = probability >= np.array([1.0 if t is None else t for t in self.thresholds], np.float32)
        return np.where(known, reached, None)


def open_session(model, provider="auto", threads=None):
    """An onnxruntime session of a file or bytes on the provider asked for, and that provider's name."""
    if provider not in ("auto", "cuda", "cpu"):
        raise ValueError(f"provider {provider!r}: expected auto, cuda or cpu")
    if not isinstance(model, bytes):
        model = str(model)
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
    try:
        for name in ("shared", "cuda"):
            ctypes.CDLL(str(next(folder.glob(f"*onnxruntime_providers_{name}.*"))))
    except OSError as error:
        return f"{error}; pip install onnxruntime-gpu[cuda,cudnn]"
    return None


def encode_metadata(metadata):
    """Metadata as an ONNX file holds it: text for text."""
    return {key: value if key in TEXT_FIELDS else json.dumps(value) for key, value in metadata.items()}


def decode_metadata(name, session):
    """The metadata of a session, checked; ValueError names what is missing or damaged."""
    stored = session.get_modelmeta().custom_metadata_map
    if stored.get("format") != FORMAT:
        raise ValueError(f"{name}: not a model of this project (its metadata lack format = {FORMAT})")
    absent = [key for key in TEXT_FIELDS + JSON_FIELDS if key not in stored]
    if absent:
        raise ValueError(f"{name}: its metadata were cut (no {', '.join(absent)})")
    metadata = {key: stored[key] for key in TEXT_FIELDS}
    for key in JSON_FIELDS:
        try:
            metadata[key] = json.loads(stored[key])
        except ValueError:
            raise ValueError(f"{name}: its metadata are damaged ({key}: {stored[key][:40]!r})") from None
    outputs = [(output.name, output.shape[-1]) for output in session.get_outputs()]
    for key in ("labels", "thresholds"):
        if not isinstance(metadata[key], list) or outputs != [("probability", len(metadata[key]))]:
            raise ValueError(f"{name}: its metadata are damaged ({key} do not fit the output {outputs})")
    if not all(t is None or isinstance(t, int | float) and 0 <= t <= 1 for t in metadata["thresholds"]):
        raise ValueError(f"{name}: its metadata are damaged (thresholds {metadata['thresholds']})")
    return metadata
