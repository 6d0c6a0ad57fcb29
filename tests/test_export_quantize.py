"""int8: ranges of training images, smoothing, no dependence on the batch."""


import numpy as np
import onnxruntime
import torch
from export_models import open_split, radiograph, random_model

from export import quantize, to_onnx
from export.graph import classifier
from export.quantize import int8
from export.to_onnx import main
from models.inference import to_input

torch.set_num_threads(1)

pytest_plugins = ["export_runs"]  # corpus, checkpoint, run


def test_int8_sees_training_images_alone(run, corpus, monkeypatch):
    seen, train = [], open_split(corpus, "train")

    def watched(model, state, images):
        seen.append(images)
        return int8(model, state, images)

    monkeypatch.setattr(to_onnx, "int8", watched)
    assert main([str(run), "--precision", "int8"]) == 0
    every = to_input(train.batch(np.arange(len(train)))[0])
    assert 40 < len(seen[0]) <= 64
    assert all((image == every).all((1, 2, 3)).any() for image in seen[0])


def outlier_model():
    """A model with a few channels much larger than the rest, as large ViTs have them."""
    model, _ = random_model()
    with torch.no_grad():
        for block in model.blocks:
            block.norm1.weight[::16] *= 30
            block.norm2.weight[::16] *= 30
    return model, {name: value.numpy() for name, value in model.state_dict().items()}


def test_smoothing_changes_no_output():
    model, state = outlier_model()
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(images)
        smoothed, _ = int8(model, state, images)
        assert not np.array_equal(smoothed["blocks.0.norm1.weight"], state["blocks.0.norm1.weight"])
        model.load_state_dict({name: torch.tensor(value) for name, value in smoothed.items()})
        assert torch.allclose(model(images), expected, rtol=1e-3, atol=1e-3)


def outputs(proto, images):
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": images})[0]


def test_smoothing_makes_int8_closer(monkeypatch):
    model, state = outlier_model()
    images = np.stack([radiograph(64, 64, seed) for seed in range(24)])[:, None].astype(np.float32)
    exact = outputs(classifier(state, model.config), images)
    errors = {}
    for strength in (0.0, 0.5):
        monkeypatch.setattr(quantize, "SMOOTHING", strength)
        with torch.inference_mode():
            smoothed, linear = int8(model, state, to_input(torch.from_numpy(images)))
        found = outputs(classifier(smoothed, model.config, block_linear=linear), images)
        errors[strength] = np.abs(found - exact).mean()
    assert errors[0.5] < errors[0.0] and errors[0.5] < 0.1


def test_int8_ranges_are_without_the_bias_of_the_values():
    """The graph adds it behind the projection; seen before it, it would take the whole range."""
    images = np.stack([radiograph(64, 64, seed) for seed in range(24)])[:, None].astype(np.float32)
    errors = []
    for bias in (0.0, 50.0):
        model, state = random_model()
        for block in model.blocks:  # state shares the memory
            width = model.config["embed_dim"]
            block.attn.qkv.bias.detach()[2 * width:] = bias
            block.attn.proj.bias.detach()[:] = -bias * block.attn.proj.weight.detach().sum(1)
        with torch.inference_mode():
            smoothed, linear = int8(model, state, to_input(torch.from_numpy(images)))
        exact = outputs(classifier(state, model.config), images)
        found = outputs(classifier(smoothed, model.config, block_linear=linear), images)
        errors.append(np.abs(found - exact).mean())
    assert errors[1] < 1.5 * errors[0]


def test_int8_does_not_depend_on_the_rest_of_the_batch():
    model, state = random_model()
    images = np.stack([radiograph(70, 70, seed) for seed in range(4)])[:, None].astype(np.float32)
    with torch.inference_mode():
        smoothed, linear = int8(model, state, to_input(torch.rand(4, 3, 64, 64) * 255))
    proto = classifier(smoothed, model.config, block_linear=linear)
    alone = np.concatenate([outputs(proto, images[i : i + 1]) for i in range(4)])
    assert np.allclose(outputs(proto, images), alone, atol=1e-6)
