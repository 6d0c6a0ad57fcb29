"""Small models, files and pictures that several export tests share."""

import csv
import io
from functools import lru_cache

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

import data
from data.settings import DataSettings
from export.card import INTENDED_USE
from export.graph import Graph, classifier
from export.metadata import CHECKSUM, FORMAT, UNCALIBRATED, add_checksum, encode_metadata, serialize
from export.runtime import Predictor
from export.verify import reference
from models import VisionTransformer

LABELS = ["Cardiomegaly", "Pneumonia", "Edema", "Nodule", "No finding"]
THRESHOLDS = [0.4, 0.5, None, 0.6, 0.5]
METADATA = dict(
    format=FORMAT,
    intended_use=INTENDED_USE,
    corpus="cxr14",
    init="dinov2",
    architecture="vit_tiny, patch 16",
    cohort="paper",
    label_set="table3",
    thresholds_from="Youden's index on the validation set",
    precision="fp32",
    checkpoint_sha256="0" * 64,
    calibration=[UNCALIBRATED] * 5,
    labels=LABELS,
    thresholds=THRESHOLDS,
    image_size=64,
    test_auroc=dict(images=90, method="bootstrap", labels=[[0.8, 0.7, 0.9]] * 4 + [[None] * 3]),
    versions=dict(torch="2.14"),
    precision_check=None,
    val_auroc=[0.8, 0.7, None, 0.6, 0.9],
    synthetic=False,
    reference=dict(tolerance=0, patterns=[], radiographs={}),
)


def radiograph(height, width, seed=0, depth=255):
    """Smooth structure with noise, as an image of a patient has it, in whole numbers."""
    rng = np.random.default_rng(seed)
    coarse = torch.tensor(rng.random((1, 1, 12, 12)))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic")[0, 0].numpy()
    smooth = smooth + 0.02 * rng.standard_normal((height, width))
    return np.round((smooth - smooth.min()) / np.ptp(smooth) * depth)


def random_model(layer_scale=True, patch_size=16, seed=0, embed_dim=48, **kind):
    """A small model whose every weight matters, and its state as arrays."""
    model = VisionTransformer(img_size=64, patch_size=patch_size, embed_dim=embed_dim, depth=3,
                              num_heads=3, num_classes=5, layer_scale=layer_scale, **kind).eval()
    generator = torch.Generator().manual_seed(seed)
    model.init_weights(generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        for block in model.blocks if kind.get("rotary") else ():
            block.attn.qkv.bias[embed_dim : 2 * embed_dim] = 0  # of the keys, as in every DINOv3
    return model, {name: value.numpy() for name, value in model.state_dict().items()}


@lru_cache
def graph_and_reference(radiographs):
    model, state = random_model()
    content = serialize(classifier(state, model.config), METADATA)
    spread = [radiograph(90, 80, seed).astype(np.uint8) for seed in range(6)]
    predictor = Predictor(content, "cpu")
    return content, reference(predictor, radiographs, predictor(spread))


def write_model(path, *, drop=(), radiographs=(), stored=None, rehashed=False, **metadata):
    """An exported file of `random_model` with `METADATA`, with fields changed, dropped or `stored`.

    Changes by keyword count in the checksum; those of `stored` do not, unless `rehashed`.
    """
    content, known = graph_and_reference(tuple(radiographs))
    proto = onnx.load_from_string(content)
    fields = METADATA | dict(reference=known) | metadata
    found = {name: value for name, value in encode_metadata(fields).items() if name not in drop}
    if rehashed:
        found |= stored or {}
    onnx.helper.set_model_props(proto, found)
    content = proto.SerializeToString()
    if CHECKSUM not in drop:
        content = add_checksum(content)
    if stored and not rehashed:
        proto = onnx.load_from_string(content)
        onnx.helper.set_model_props(proto, {p.key: p.value for p in proto.metadata_props} | stored)
        content = proto.SerializeToString()
    path.write_bytes(content)
    return path


@lru_cache
def int8_is_exact():
    """Whether onnxruntime's products of uint8 and int8 are exact here.

    On a processor without VNNI, two neighbors that add up to more than 16 bits saturate.
    """
    g = Graph()
    one, zero = np.float32(1), np.uint8(0)
    x = g("DequantizeLinear", g("QuantizeLinear", "image", one, zero), one, zero)
    weight = g("DequantizeLinear", np.full((64, 16), 127, np.int8), np.ones(16, np.float32),
               np.zeros(16, np.int8), axis=1)
    product = g("MatMul", x, weight)
    proto = g.model([helper.make_tensor_value_info("image", TensorProto.FLOAT, [2, 64])],
                    [helper.make_tensor_value_info(product, TensorProto.FLOAT, [2, 16])])
    session = onnxruntime.InferenceSession(proto.SerializeToString(),
                                           providers=["CPUExecutionProvider"])
    [result] = session.run(None, {"image": np.full((2, 64), 255, np.float32)})
    return bool((result == 255 * 127 * 64).all())


def open_split(config, split):
    """The Dataset of a split of a run's config."""
    return data.open_split(DataSettings.from_config(config), split)


def names(folder):
    """The names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def changed(checkpoint, **change):
    """A checkpoint with tensors changed by a function."""
    model = {name: value.clone() for name, value in checkpoint["model"].items()}
    for name, function in change.items():
        function(model[name.replace("__", ".")])
    return checkpoint | dict(model=model)


def good(folder):
    return [folder / "images" / name for name in ("a.png", "b.png", "c.jpg")]


def listed(text):
    """Standard input that holds a text."""
    return io.TextIOWrapper(io.BytesIO(text.encode()))


def read_rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_dicom(path, source, **changes):
    """A real file with elements of its header changed, or taken out where None."""
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(source)
    for name, value in changes.items():
        if value is None and name in dataset:
            del dataset[name]
        elif value is not None:
            setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def write_item(meaning):
    """A ViewCodeSequence of one code."""
    from pydicom.dataset import Dataset
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-1", "SRT", meaning
    return [item]
