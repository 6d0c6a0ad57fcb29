"""The configuration for Triton Inference Server in the docs, read by Triton's own schema."""

import json
import re

import numpy as np
import onnxruntime
import pytest
from conftest import REPOSITORY
from export_models import radiograph, write_model

from data.preprocess import resize
from export.runtime import Predictor

DOCS = (REPOSITORY / "docs" / "deployment.md").read_text()


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model.onnx")


@pytest.fixture
def config():
    pytest.importorskip("tritonclient")
    text_format = pytest.importorskip("google.protobuf.text_format")
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    [text] = re.findall("^```pbtxt\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    return text_format.Parse(text, ModelConfig())


def type_name(tensor):
    values = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return values[tensor.data_type].name


def test_the_configuration_of_the_docs_is_tritons_and_fits_an_exported_file(config, model):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [image], [probability] = config.input, config.output
    [graph_input], [graph_output] = session.get_inputs(), session.get_outputs()
    assert config.backend == "onnxruntime" and config.HasField("dynamic_batching")
    assert config.max_batch_size > 1  # of the first axis, which the dims leave out
    assert image.name == graph_input.name and probability.name == graph_output.name
    assert type_name(image) == type_name(probability) == "TYPE_FP32"
    assert graph_input.type == graph_output.type == "tensor(float)"
    assert list(image.dims) == [1, 224, 224] and len(graph_input.shape) == 4
    thresholds = json.loads(config.parameters["thresholds"].string_value)
    labels = json.loads(config.parameters["labels"].string_value)
    assert list(probability.dims) == [len(labels)] == [len(thresholds)] == [14]
    [group] = config.instance_group
    assert group.Kind.Name(group.kind) == "KIND_CPU"


def test_what_a_client_resizes_gives_the_same(model):
    """As the server runs it: the bare file, on pictures of the model's size."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    images = [radiograph(300, 200, 1), radiograph(90, 500, 2, 4095)]
    batch = np.stack([resize(image, 64) for image in images])[:, None]
    served = session.run(["probability"], {"image": batch})[0]
    whole = [Predictor(model, "cpu").predict([image.astype(np.float32)])[0] for image in images]
    assert np.allclose(served, whole, atol=1e-4)
