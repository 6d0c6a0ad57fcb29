"""The transformer against timm's, and what its constructor promises."""

import pytest
import timm
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models import VisionTransformer, create_model
from models.vit import Block


@pytest.mark.parametrize("patch_size, layer_scale", [(16, False), (14, True)])
def test_equals_timm_with_the_same_weights(patch_size, layer_scale):
    ours = create_model("vit_tiny", patch_size, 5, layer_scale=layer_scale, seed=3)
    theirs = timm.create_model("vit_tiny_patch16_224", patch_size=patch_size, num_classes=5,
                               init_values=1.0 if layer_scale else None).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)  # names and shapes are timm's
    images = torch.rand(3, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.forward_features(images), theirs.forward_head(
            theirs.forward_features(images), pre_logits=True), rtol=1e-5, atol=1e-5)


def test_gradients_equal_timm():
    ours = create_model("vit_tiny", 16, 2, seed=1)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=2)
    theirs.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, 224, 224)
    for model in (ours, theirs):
        model(images).square().sum().backward()
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-3, atol=1e-5)


def test_base_has_the_papers_86_million_parameters():
    model = create_model("vit_base", 16, 14)
    assert 85e6 < sum(p.numel() for p in model.parameters()) < 87e6
    assert (
        len(create_model("vit_base", 14, layer_scale=True).state_dict()) == 174
    )  # DINOv2's 175 less its mask token


def test_seed_fixes_the_weights_and_the_global_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    a, b, c = (
        create_model("vit_tiny", seed=1),
        create_model("vit_tiny", seed=1),
        create_model("vit_tiny", seed=2),
    )
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(a.blocks[3].mlp.fc1.weight, b.blocks[3].mlp.fc1.weight)
    assert not torch.equal(a.blocks[3].mlp.fc1.weight, c.blocks[3].mlp.fc1.weight)


DINOV3 = dict(layer_scale=True, registers=4, rotary=True, norm_eps=1e-5)


@pytest.mark.parametrize("shape", [dict(layer_scale=True), dict(registers=2), DINOV3])
def test_config_builds_the_model_again(shape):
    model = create_model("vit_micro", 14, 3, img_size=112, **shape)
    again = VisionTransformer(**model.config)
    again.load_state_dict(model.state_dict(), strict=True)
    images = torch.rand(2, 3, 112, 112)
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize("shape", [dict(), dict(registers=2), DINOV3])
def test_the_class_token_alone_is_that_of_all_tokens(shape):
    model = create_model("vit_micro", 16, img_size=64, seed=2, **shape)
    with torch.no_grad():
        for parameter in model.parameters():  # so that attention is not uniform
            parameter += torch.randn(parameter.shape) * 0.1
    images = torch.rand(2, 3, 64, 64)
    tokens, attention = model.tokens(images), model.attention(images)
    assert tokens.shape == (2, 1 + shape.get("registers", 0) + 16, 128)
    torch.testing.assert_close(model.forward_features(images), tokens[:, 0], rtol=1e-5, atol=1e-5)
    assert attention.shape == (2, 4, 16) and (attention.sum(-1) < 1).all()


def test_rotary_positions_are_metas():
    """Their periods as Meta's files print them, to bfloat16; and what a shift of the grid turns."""
    model = create_model("vit_micro", 16, img_size=64, **DINOV3)
    wide = VisionTransformer(64, 16, 128, 1, 2, rotary=True)
    assert wide.state_dict()["rope.periods"].bfloat16().tolist() == [
        1.0, 1.3359375, 1.78125, 2.375, 3.15625, 4.21875, 5.625, 7.5, 10.0, 13.3125, 17.75, 23.75,
        31.625, 42.25, 56.25, 75.0]
    assert "pos_embed" not in model.state_dict()
    cos, sin = model.rope(4)  # (16 patches, 32)
    torch.testing.assert_close(cos**2 + sin**2, torch.ones(16, 32))
    # patch 1 is in row 0, column 1: at -3/4 and -1/4 of [-1, 1]; its fastest period is 1
    angle = 2 * torch.pi * torch.tensor([-0.75, -0.25])
    torch.testing.assert_close(cos[1, [0, 8]], angle.cos())
    torch.testing.assert_close(sin[1, [16, 24]], angle.sin())


def test_autocast_keeps_the_rotation_in_float32():
    model = create_model("vit_micro", 16, img_size=64, **DINOV3)
    images = torch.rand(2, 3, 64, 64)
    expected = model.forward_features(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.forward_features(images)
    assert (found.float() - expected).norm() < 0.03 * expected.norm()


def test_no_classes_gives_features():
    assert create_model("vit_tiny", 16)(torch.zeros(2, 3, 224, 224)).shape == (2, 192)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: create_model("vit_gigantic"), "vit_gigantic"),
        (lambda: VisionTransformer(img_size=225), "--image-size 225: .* such as 224 or 240"),
        (lambda: VisionTransformer(embed_dim=100, num_heads=3), "embed_dim 100"),
        (
            lambda: create_model("vit_tiny")(torch.zeros(1, 1, 224, 224)),
            r"\(1, 1, 224, 224\), expected \(B, 3, 224, 224\)",
        ),
        (lambda: create_model("vit_tiny")(torch.zeros(1, 3, 448, 448)), r"448, 448\), expected"),
    ],
)
def test_refuses(call, said):
    with pytest.raises(ValueError, match=said):
        call()


@pytest.mark.parametrize("first", [None, 1])
def test_cudnn_does_not_compute_the_attention_of_one_query(monkeypatch, first):
    """Asked of a card that is only pretended; what the kernels compute, tests/test_cuda.py sees."""
    allowed = []

    def attention(query, key, value):
        allowed.append((query.shape[2], torch.backends.cuda.cudnn_sdp_enabled(),
                        torch.backends.cuda.flash_sdp_enabled()))
        return value[:, :, :query.shape[2]]

    with FakeTensorMode(), torch.device("cuda"):
        block = Block(64, 2, layer_scale=True)
        tokens = torch.empty(2, 5, 64)
        monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attention)
        assert block(tokens, first).shape == (2, first or 5, 64)
    assert allowed == [(1, False, True) if first else (5, True, True)]
    assert torch.backends.cuda.cudnn_sdp_enabled()  # as it was before
