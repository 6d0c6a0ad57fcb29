"""A deployed model for programs: one ONNX file, onnxruntime, NumPy and Pillow; no PyTorch.

    from export.runtime import Predictor
    model = Predictor("model.onnx")                 # provider="cuda" insists on a GPU
    model.labels, model.thresholds                  # the findings and their thresholds
    probability = model(["a.png", "b.dcm", array])  # (3, L); gray (H, W) arrays of any range
    positive = model.predict_labels(probability)    # (3, L): True, False; None without threshold
"""

import ctypes
import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from data.decode import decode_image, read_file
from data.preprocess import resize, to_float32
from export.dicom import Header, check_frontal, read_header, to_bytes
from export.metadata import CHECKSUM, decode_metadata, read_verified

ort.disable_telemetry_events()  # what `export/__init__.py` asks for, once more

BATCH_BYTES = 2**28  # of pixels in one inference
NOT_A_NUMBER = "the model gave a probability that is not a number"
MAX_REASON = 2000  # characters of an error of onnxruntime
# TF32 has 10 bits of mantissa; who prefers speed to digits takes the fp16 file.
CUDA_FIRST = [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
OUT_OF_MEMORY = re.compile("out of memory|failed to allocate|ALLOC_FAILED", re.IGNORECASE)
MIN_SIDE = 16  # pixels; no radiograph is smaller


class Predictor:
    """A model file of this project, ready to predict.

    Parameters
    ----------
    path : path-like or bytes
        A file written by `export.to_onnx`, or its content.
    provider : {"auto", "cuda", "cpu"}
        "auto" takes CUDA where it works; "cuda" raises ValueError where it does not.
    threads : int, optional
        CPU threads of one inference; all cores by default.

    Attributes
    ----------
    labels, thresholds, calibration : list
        One per label; a threshold is None where validation gave none, a calibration "platt" (a
        logistic map), "prior" (a shift by the training's class weight) or "none".
    metadata, checksum : dict, str
        Everything that travels with the model, see `export.metadata`; the sha256 of its bytes.
    provider : {"cuda", "cpu"}
        The one in use.
    cuda_problem : str or None
        Why "auto" did not take CUDA.
    """

    def __init__(self, path: str | os.PathLike | bytes, provider: str = "auto",
                 threads: int | None = None) -> None:
        name = "model" if isinstance(path, bytes) else path
        content = read_verified(path, name)
        self.session, self.provider, self.cuda_problem = open_session(content, provider, threads,
                                                                      name)
        self.metadata = decode_metadata(name, self.session)
        self.labels, self.thresholds = self.metadata["labels"], self.metadata["thresholds"]
        self.calibration = [label["method"] for label in self.metadata["calibration"]]
        self.checksum = self.metadata.pop(CHECKSUM)

    def __call__(self, images: Sequence[Any], batch_size: int = 8) -> np.ndarray:
        """Probabilities of radiographs.

        Parameters
        ----------
        images : sequence of path-like, bytes, pydicom.Dataset, or ndarray of shape (H, W)
            Files, their content, or raw gray intensities (dense tissue bright).
        batch_size : int

        Returns
        -------
        ndarray, shape (N, L), float32
            ValueError names an image that cannot be read or predicted.
        """
        is_dataset = hasattr(images, "file_meta")
        is_one_file = isinstance(images, str | bytes | os.PathLike) or is_dataset
        is_one_array = getattr(images, "ndim", 1) in (0, 2)
        if is_one_file or is_one_array or not hasattr(images, "__iter__"):
            raise ValueError(f"images: {type(images).__name__}; expected a sequence of files or of "
                             "(H, W) arrays")
        if batch_size < 1:
            raise ValueError(f"batch_size {batch_size}: expected at least 1")
        # one by one, so that no more than one image is in memory at its full size
        ready = (self.shrink(self.read(image, f"image {i}")[0]) for i, image in enumerate(images))
        batches = [np.empty((0, len(self.labels)), np.float32)]
        while batch := list(islice(ready, batch_size)):
            batches.append(self.predict(batch, batch_size))
        return np.concatenate(batches)

    def read(self, image: Any, name: str | os.PathLike = "image",
             any_modality: bool = False) -> tuple[np.ndarray, Header]:
        """A radiograph as `check` returns it, and what its DICOM header says, see `export.dicom`.

        Errors call it `name`, or a file by its path. `any_modality` takes laterals and CT, too.
        """
        if hasattr(image, "file_meta"):
            image = to_bytes(image)
        elif isinstance(image, str | os.PathLike):
            name, image = image, read_file(os.fspath(image))
        if not isinstance(image, bytes):
            return self.check(image, name), Header()
        header = read_header(image, str(name))
        if not any_modality:
            check_frontal(header, str(name))
        return self.check(decode_image(image, str(name)), name), header

    def check(self, image: Any, name: str | os.PathLike = "image") -> np.ndarray:
        """The image (H, W) as `predict` takes it; ValueError if its probability has no meaning."""
        image = np.asarray(image)
        if image.ndim != 2 or min(image.shape) < MIN_SIDE:
            raise ValueError(f"{name}: shape {image.shape}; expected (H, W) of at least "
                             f"{MIN_SIDE} x {MIN_SIDE} pixels")
        if image.dtype.kind not in "uif":
            raise ValueError(f"{name}: type {image.dtype}; expected numbers")
        with np.errstate(invalid="ignore", over="ignore"):
            image = to_float32(image)
            low, high = np.float32(image.min()), np.float32(image.max())
            if not np.isfinite(high - low):
                raise ValueError(f"{name}: holds NaN or infinite intensities, or a range beyond "
                                 "float32's")
        if low == high:
            raise ValueError(f"{name}: holds one intensity only")
        return image

    def shrink(self, image: np.ndarray) -> np.ndarray:
        """An image of `check` at the model's size, so that images of all sizes share batches."""
        return resize(image, self.metadata["image_size"])

    def predict(self, images: Sequence[np.ndarray], batch_size: int = 8) -> np.ndarray:
        """Probabilities (N, L) of images that `check` or `shrink` returned."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(i)
        probability = np.full((len(images), len(self.labels)), np.nan, np.float32)
        for (height, width), rows in by_shape.items():
            bytes_per_image = 4 * height * width
            size = min(batch_size, max(1, BATCH_BYTES // bytes_per_image))
            for start in range(0, len(rows), size):
                batch = rows[start:start + size]
                pixels = np.stack([images[i][None] for i in batch], dtype=np.float32)
                probability[batch] = self.infer(pixels)
        if not np.isfinite(probability).all():
            raise ValueError(NOT_A_NUMBER)
        return probability

    def infer(self, pixels: np.ndarray) -> np.ndarray:
        """One inference, (N, 1, H, W) to (N, labels); OSError where one image is too much."""
        try:
            [probability] = self.session.run(["probability"], {"image": pixels})
        except Exception as error:  # onnxruntime's exceptions share no narrower public base
            reason = reason_of(error)
            if OUT_OF_MEMORY.search(str(error)) and len(pixels) == 1:  # no image's fault
                raise OSError(f"not enough memory for one image ({reason}); on a full GPU "
                              "use --provider cpu") from None
            raise ValueError(f"onnxruntime failed ({reason})") from None
        return probability

    def predict_labels(self, probability: np.ndarray) -> np.ndarray:
        """Whether each probability (N, L) reaches its label's threshold; None without one."""
        cuts = np.array(self.thresholds, float)  # NaN where there is none
        reached = (probability >= cuts).astype(object)
        reached[..., np.isnan(cuts)] = None
        return reached


def open_session(model: str | os.PathLike | bytes, provider: str = "auto",
                 threads: int | None = None, name: str | os.PathLike = "model",
                 ) -> tuple[ort.InferenceSession, str, str | None]:
    """An onnxruntime session of a file or its bytes, which errors call `name`.

    Returns
    -------
    session : onnxruntime.InferenceSession
    provider : {"cuda", "cpu"}
        The one in use.
    problem : str or None
        Why "auto" did not take CUDA.
    """
    if provider not in ("auto", "cuda", "cpu"):
        raise ValueError(f"provider {provider!r}: expected auto, cuda or cpu")
    problem = None
    if provider != "cpu":
        session, problem = open_on_cuda(model, threads)
        if session is not None:
            return session, "cuda", None
    try:
        session = create_session(model, ["CPUExecutionProvider"], threads)
    except Exception as error:  # what the CPU cannot read either is the file's fault
        raise ValueError(f"{name}: onnxruntime cannot read it ({reason_of(error)})") from None
    if provider == "cuda":
        raise ValueError(f"provider cuda: onnxruntime would run on the CPU: {problem}")
    return session, "cpu", problem


def open_on_cuda(model: str | os.PathLike | bytes,
                 threads: int | None) -> tuple[ort.InferenceSession | None, str | None]:
    """A session on CUDA; or None, and why there is none."""
    problem = cuda_problem()
    if problem is not None:
        return None, problem
    try:
        session = create_session(model, CUDA_FIRST, threads)
    except Exception as error:  # onnxruntime's exceptions share no narrower public base
        return None, reason_of(error)
    if session.get_providers()[0] != "CUDAExecutionProvider":
        return None, "no usable NVIDIA GPU; check nvidia-smi, or use --provider cpu"
    return session, None


def create_session(model: str | os.PathLike | bytes, providers: list,
                   threads: int | None) -> ort.InferenceSession:
    """An onnxruntime session on these providers, or an exception: it never tries others."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, and said in one line
    options.intra_op_num_threads = threads or 0  # of the session's own choice
    # Its own fallback prints to stdout, which may be the output, and hides the reason.
    session = ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
    session.disable_fallback()  # else a run that fails on the GPU continues silently on the CPU
    return session


def reason_of(error: Exception) -> str:
    """onnxruntime's reason in a line; its point may stand behind a long path of its own source."""
    message = str(error)
    cuda_failure = re.search(r"(CUDA|CUDNN|CUBLAS) failure \d+: [^;\n]*", message)
    if cuda_failure:
        return cuda_failure[0].strip()
    return message.partition("\n")[0][:MAX_REASON]


def cuda_problem() -> str | None:
    """Why onnxruntime cannot use CUDA here, with the remedy, or None if it seems it can."""
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        return "it is built without CUDA; pip uninstall onnxruntime, pip install onnxruntime-gpu"
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # finds the CUDA and cuDNN that pip installed
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError as error:
        return f"no NVIDIA driver on this machine; install one, or use --provider cpu ({error})"
    folder = Path(ort.__file__).parent / "capi"
    for name in ("onnxruntime_providers_shared", "onnxruntime_providers_cuda"):
        library = next(folder.glob(f"*{name}.*"), folder / name)  # the latter is not there
        try:
            ctypes.CDLL(str(library))
        except OSError as error:
            return (f"its library {name} cannot be loaded; pip uninstall onnxruntime "
                    f"onnxruntime-gpu, pip install onnxruntime-gpu[cuda,cudnn] ({error})")
    return None
