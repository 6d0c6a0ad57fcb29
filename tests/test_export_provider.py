"""On which device the deployed model computes, and what is said where CUDA does not work."""

import json

import pytest
from export_models import good

from export import runtime
from export.predict import main
from export.runtime import Predictor

pytest_plugins = ["export_predictions"]  # folder, model


def test_cuda_fails_loudly_where_it_would_be_the_cpu(folder, monkeypatch):
    monkeypatch.setattr(runtime.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ValueError, match="would run on the CPU.*pip install onnxruntime-gpu"):
        Predictor(folder / "model.onnx", "cuda")
    assert Predictor(folder / "model.onnx", "auto").provider == "cpu"


def test_cuda_without_its_library_is_one_line(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runtime.ort, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    load = runtime.ctypes.CDLL
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: "libcuda" in name or load(name))
    monkeypatch.setattr(runtime.ort, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(runtime.ort, "__file__", str(tmp_path / "__init__.py"))
    assert main([str(folder / "model.onnx"), str(good(folder)[0]), "--provider", "cuda"]) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "providers_shared cannot be loaded" in error
        and "pip install onnxruntime-gpu" in error
    )


def test_auto_says_why_it_is_the_cpu(folder, monkeypatch, capsys):
    monkeypatch.setattr(runtime.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert main([str(folder / "model.onnx"), str(good(folder)[0])]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "1 image on cpu (no CUDA: it is built without CUDA)"


def test_cuda_that_falls_back_silently_is_an_error(folder, monkeypatch):
    monkeypatch.setattr(runtime, "cuda_problem", lambda: None)
    monkeypatch.setattr(runtime.ort, "InferenceSession", fall_back(runtime.ort.InferenceSession))
    with pytest.raises(ValueError, match="would run on the CPU: no usable NVIDIA GPU"):
        Predictor(folder / "model.onnx", "cuda")


def fall_back(session):
    """onnxruntime where CUDA cannot be loaded: a CPU session and no exception."""
    return lambda model, options, providers, **how: session(
        model, options, providers=["CPUExecutionProvider"]
    )


def failing_on_cuda(message, opens=False):
    """A stand-in for onnxruntime's session that raises with CUDA, when opened or when run."""
    class Session(runtime.ort.InferenceSession):
        def __init__(self, model, options, providers, enable_fallback=1):
            self.on_cuda = len(providers) > 1
            if self.on_cuda and not opens:
                if enable_fallback:  # as onnxruntime does
                    print("*************** EP Error ***************")
                else:
                    raise RuntimeError(message)
            super().__init__(model, options, providers=["CPUExecutionProvider"])

        def get_providers(self):
            return ["CUDAExecutionProvider"] if self.on_cuda else super().get_providers()

        def run(self, *words):
            if self.on_cuda:
                raise RuntimeError(message)
            return super().run(*words)
    return Session


NO_DEVICE = ("/onnxruntime_src/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void> "
             "[with ERRTYPE = cudaError] CUDA failure 100: no CUDA-capable device is detected ; "
             "GPU=-1 ; hostname=node7 ; expr=cudaGetDeviceCount(&n)")


FULL = "Exception during initialization: CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc()"


@pytest.mark.parametrize("message, reason", [
    (NO_DEVICE, "CUDA failure 100: no CUDA-capable device is detected"),
    (FULL, "CUDA failure 2: out of memory")])
def test_a_gpu_that_cannot_be_used_is_no_fault_of_the_file(folder, monkeypatch, capsys, message,
                                                          reason):
    """`auto` takes the CPU and says why on stderr; stdout has the answers alone."""
    monkeypatch.setattr(runtime, "cuda_problem", lambda: None)
    monkeypatch.setattr(runtime.ort, "InferenceSession", failing_on_cuda(message))
    words = [str(folder / "model.onnx"), str(good(folder)[0]), "--jsonl", "-"]
    assert main(words) == 0
    out, errors = capsys.readouterr()
    assert [json.loads(line)["findings"] for line in out.splitlines()]
    assert errors.splitlines()[0] == f"1 image on cpu (no CUDA: {reason})"
    assert main([*words, "--provider", "cuda"]) == 2
    out, errors = capsys.readouterr()
    assert out == "" and errors.count("\n") == 1
    assert f"provider cuda: onnxruntime would run on the CPU: {reason}" in errors


def test_a_gpu_that_is_full_is_no_fault_of_the_image(folder, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "cuda_problem", lambda: None)
    full = "Failed to allocate memory for requested buffer of size 9"
    monkeypatch.setattr(runtime.ort, "InferenceSession", failing_on_cuda(full, opens=True))
    images = [str(path) for path in good(folder)]
    assert main([str(folder / "model.onnx"), *images, "--csv", "-"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not enough memory for one image (Failed to allocate" in error
    assert images[0] not in error
