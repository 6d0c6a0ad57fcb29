"""The transformer against timm's, and what its constructor promises."""

import pytest
import timm
import torch

from models import VisionTransformer, create_model


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


def test_config_builds_the_model_again():
    model = create_model("vit_tiny", 14, 3, img_size=112, layer_scale=True)
    again = VisionTransformer(**model.config)
    again.load_state_dict(model.state_dict(), strict=True)


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
