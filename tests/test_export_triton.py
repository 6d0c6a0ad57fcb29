"""The model repository for Triton Inference Server, read by Triton's own schema."""

import json

import numpy as np
import onnxruntime
import pytest
from export_models import LABELS, THRESHOLDS, radiograph, write_model

from export.runtime import Predictor, resize
from export.triton import main


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model.onnx")


def parsed(path):
    pytest.importorskip("tritonclient")
    text_format = pytest.importorskip("google.protobuf.text_format")
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    return text_format.Parse(path.read_text(), ModelConfig())


@pytest.mark.parametrize("device, kind", [("cpu", "CPU"), ("cuda", "GPU"), ("tensorrt", "GPU")])
def test_the_configuration_is_tritons(model, tmp_path, device, kind, capsys):
    words = [str(model), "--out", str(tmp_path / "repository"), "--device", device]
    assert main([*words, "--instances", "2", "--max-batch", "32"]) == 0
    folder = tmp_path / "repository" / "cxr14-dinov2"
    config = parsed(folder / "config.pbtxt")
    assert config.name == "cxr14-dinov2" and config.backend == "onnxruntime"
    assert config.max_batch_size == 32 and config.HasField("dynamic_batching")
    [image], [probability], [group] = config.input, config.output, config.instance_group
    assert image.name == "image" and list(image.dims) == [1, 64, 64]
    assert (
        image.DESCRIPTOR.fields_by_name["data_type"]
        .enum_type.values_by_number[image.data_type]
        .name
        == "TYPE_FP32"
    )
    assert probability.name == "probability" and list(probability.dims) == [len(LABELS)]
    assert probability.label_filename == "labels.txt" and group.count == 2
    assert group.Kind.Name(group.kind) == f"KIND_{kind}"
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert [one.name for one in accelerators] == (["tensorrt"] if device == "tensorrt" else [])
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert json.loads(parameters["thresholds"]) == THRESHOLDS
    assert json.loads(parameters["labels"]) == LABELS
    assert (folder / "labels.txt").read_text().splitlines() == LABELS
    assert (folder / "1" / "model.onnx").read_bytes() == model.read_bytes()


def test_what_a_client_resizes_gives_the_same(model):
    """As the server runs it: the bare file, on pictures of the model's size."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    images = [radiograph(300, 200, 1), radiograph(90, 500, 2, 4095)]
    batch = np.stack([resize(image, 64) for image in images])[:, None]
    found = session.run(["probability"], {"image": batch})[0]
    whole = [Predictor(model, "cpu").predict([image.astype(np.float32)])[0] for image in images]
    assert np.allclose(found, whole, atol=1e-4)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--name", "../x"], "error: --name ../x: expected the name of a folder"),
        (["--instances", "0"], "error: --instances 0: expected a whole number of at least 1"),
        (["--max-batch", "many"], "error: argument --max-batch: invalid int value: 'many'"),
    ],
)
def test_misuse_is_one_line(model, tmp_path, capsys, options, said):
    words = [str(model), "--out", str(tmp_path / "repository"), *options]
    try:
        assert main(words) == 2
    except SystemExit as stop:
        assert stop.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"python -m export.triton: {said}") and error.count("\n") == 1
    assert not (tmp_path / "repository").exists()


def test_models_that_do_not_fit_are_refused(tmp_path, capsys):
    words = ["--out", str(tmp_path / "repository")]
    eight = write_model(tmp_path / "8.onnx", input_type="uint8")
    assert main([str(eight), *words]) == 2
    fused = write_model(tmp_path / "fused.onnx", operators="onnxruntime")
    assert main([str(fused), *words, "--device", "tensorrt"]) == 2
    error = capsys.readouterr().err
    assert "--input-type float32" in error and "--operators standard" in error
