"""Official layouts, loaded by us and by the code they were made for."""

import argparse
import json
import math
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from layouts import augreg_arrays, dinov2_state, randomize, relative
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import _load_weights as timm_load_npz

from models import create_model, from_pretrained, load_pretrained
from models.checkpoint import save_checkpoint

IMAGES = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


def features(model, images=IMAGES):
    with torch.inference_mode():
        return model.eval().forward_features(images)


def cubic(x, a=-0.75):
    """The convolution kernel of Keys 1981, with PyTorch's a."""
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def hub_pos_embed(pos_embed, new):
    """DINOv2's interpolate_pos_encoding, written out.

    Bicubic at (i + 0.5) / scale - 0.5 with scale (new + 0.1) / old.
    """
    old = math.isqrt(pos_embed.shape[1] - 1)
    scale = (new + 0.1) / old
    weights = np.zeros((new, old))
    for i in range(new):
        center = (i + 0.5) / scale - 0.5
        for tap in range(math.floor(center) - 1, math.floor(center) + 3):
            weights[i, min(max(tap, 0), old - 1)] += cubic(center - tap)
    grid = pos_embed[0, 1:].double().numpy().reshape(old, old, -1)
    resized = np.einsum("yi,xj,ijd->yxd", weights, weights, grid).reshape(1, new * new, -1)
    return torch.cat([pos_embed[:, :1], torch.from_numpy(resized).float()], 1)


@pytest.mark.parametrize("arch", ["vit_tiny", "vit_small", "vit_base"])
def test_dinov2_gives_the_hub_models_features(tmp_path, arch):
    state = dinov2_state(arch)
    if arch == "vit_base":
        assert len(state) == 175 and state["pos_embed"].shape == (1, 1370, 768)
    torch.save(state, tmp_path / "dinov2.pth")
    model = create_model(arch, 14, 14, layer_scale=True)
    report = load_pretrained(model, "dinov2", tmp_path / "dinov2.pth")
    assert report.resized == {
        "pos_embed": (tuple(state["pos_embed"].shape), (1, 257, state["cls_token"].shape[2]))
    }
    assert report.skipped == ["mask_token"] and report.missing == ["head.weight", "head.bias"]

    name = {"vit_tiny": "vit_tiny_patch16_224", "vit_small": "vit_small_patch14_dinov2",
            "vit_base": "vit_base_patch14_dinov2"}[arch]
    oracle = timm.create_model(name, patch_size=14, img_size=224, num_classes=0, init_values=1.0)
    oracle.load_state_dict({k: v for k, v in state.items() if k != "mask_token"}
                           | {"pos_embed": hub_pos_embed(state["pos_embed"], 16)}, strict=True)
    with torch.inference_mode():
        expected = oracle.eval().forward_features(IMAGES)[:, 0]
    assert relative(features(model), expected) < 1e-5


def test_dinov2_at_its_own_size_is_not_resized(tmp_path):
    torch.save(dinov2_state(), tmp_path / "w.pth")
    model = create_model("vit_tiny", 14, img_size=518, layer_scale=True)
    assert load_pretrained(model, "dinov2", tmp_path / "w.pth").resized == {}
    assert torch.equal(model.pos_embed, dinov2_state()["pos_embed"])


def test_dinov2_training_checkpoint(tmp_path):
    """The `teacher` of DINOv2's training code: prefixed, blocks in chunks, with its heads."""
    state = dinov2_state()
    wrapped = {
        "backbone." + k.replace("blocks.", f"blocks.{int(k.split('.')[1]) // 3}.")
        if k.startswith("blocks.")
        else "backbone." + k: v
        for k, v in state.items()
    }
    wrapped["dino_head.mlp.0.weight"] = torch.zeros(3, 3)
    torch.save({"teacher": wrapped}, tmp_path / "teacher.pth")
    torch.save(state, tmp_path / "plain.pth")
    a, b = (create_model("vit_tiny", 14, layer_scale=True) for _ in range(2))
    load_pretrained(a, "dinov2", tmp_path / "teacher.pth")
    load_pretrained(b, "dinov2", tmp_path / "plain.pth")
    assert torch.equal(features(a), features(b))


@pytest.mark.parametrize(
    "arch, img_size", [("vit_tiny", 224), ("vit_base", 224), ("vit_tiny", 384), ("vit_tiny", 160)]
)
def test_augreg_npz_equals_timms_loader(tmp_path, arch, img_size):
    np.savez(tmp_path / "augreg.npz", **augreg_arrays(arch))
    oracle = timm.create_model(f"{arch}_patch16_224", img_size=img_size, num_classes=0)
    timm_load_npz(oracle, str(tmp_path / "augreg.npz"))
    model = create_model(arch, 16, 7, img_size=img_size)
    report = load_pretrained(model, "imagenet", tmp_path / "augreg.npz")
    assert report.skipped == ["head.bias", "head.weight"] and report.missing == [
        "head.weight",
        "head.bias",
    ]
    assert bool(report.resized) == (img_size != 224)
    images = torch.rand(2, 3, img_size, img_size)
    with torch.inference_mode():
        expected = oracle.eval().forward_features(images)[:, 0]
    assert relative(features(model, images), expected) < 1e-5


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_timm_state_dict(tmp_path, wrapper):
    oracle = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    state = oracle.state_dict()
    torch.save({wrapper: state} if wrapper else state, tmp_path / "timm.pth")
    model = create_model("vit_tiny", 16, 3)
    load_pretrained(model, "imagenet", tmp_path / "timm.pth")
    with torch.inference_mode():
        assert relative(features(model), oracle.eval().forward_features(IMAGES)[:, 0]) < 1e-5


def test_timm_state_dict_at_another_size_equals_timms_resize(tmp_path):
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "timm.pth")
    oracle = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=320,
        num_classes=0,
        pretrained=True,
        pretrained_cfg_overlay=dict(file=str(tmp_path / "timm.pth")),
    )
    model = create_model("vit_tiny", 16, img_size=320)
    load_pretrained(model, "imagenet", tmp_path / "timm.pth")
    torch.testing.assert_close(model.pos_embed, oracle.pos_embed, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_torchvision_state_dict(tmp_path):
    oracle = torchvision.models.vit_b_16()
    oracle.heads = torch.nn.Sequential()  # features
    state = oracle.state_dict()
    state["heads.head.weight"], state["heads.head.bias"] = torch.zeros(1000, 768), torch.zeros(1000)
    torch.save(state, tmp_path / "torchvision.pth")
    model = create_model("vit_base", 16, 3)
    report = load_pretrained(model, "imagenet", tmp_path / "torchvision.pth")
    assert report.skipped == ["head.bias", "head.weight"]
    with torch.inference_mode():
        assert relative(features(model), oracle.eval()(IMAGES)) < 1e-5


def checkpoint_of(model, path, labels, **config):
    save_checkpoint(path, dict(model=model.state_dict(), model_config=model.config, labels=labels,
                               config=config))


@pytest.mark.parametrize("img_size", [224, 288])
def test_own_checkpoint_for_mimic(tmp_path, img_size):
    source = create_model("vit_tiny", 16, 7, seed=4)
    checkpoint_of(source, tmp_path / "mimic.pt", list("abcdefg"))
    model = create_model("vit_tiny", 16, 14, img_size=img_size)
    head = model.head.weight.clone()
    report = load_pretrained(model, "mimic", tmp_path / "mimic.pt")
    assert torch.equal(model.head.weight, head) and report.missing == ["head.weight", "head.bias"]
    assert torch.equal(model.blocks[11].mlp.fc2.weight, source.blocks[11].mlp.fc2.weight)
    assert torch.equal(model.pos_embed, source.pos_embed) == (img_size == 224)
    assert torch.equal(model.pos_embed[:, 0], source.pos_embed[:, 0])  # the class position is kept


class Evil:
    def __reduce__(self):
        return (open, ("/tmp/executed-by-a-weight-file", "w"))


def truncated(data):
    return data[: len(data) * 2 // 3]


def write_bad(kind, path):
    state = dinov2_state()
    if kind == "evil":
        path.write_bytes(pickle.dumps({"cls_token": Evil()}))
    elif kind == "evil torch file":
        torch.save({"cls_token": Evil()}, path)
    elif kind == "object array":
        np.savez(path.with_suffix(".npz"), cls=np.array([Evil()], dtype=object))
        return path.with_suffix(".npz")
    elif kind == "truncated npz":
        np.savez(path.with_suffix(".npz"), **augreg_arrays(classes=10))
        path.with_suffix(".npz").write_bytes(truncated(path.with_suffix(".npz").read_bytes()))
        return path.with_suffix(".npz")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("404: Not Found")
    elif kind == "list":
        torch.save([torch.zeros(3)], path)
    else:
        {"missing": lambda: state.pop("blocks.7.mlp.fc1.weight"),
         "shape": lambda: state.update({"norm.weight": torch.ones(100)}),
         "extra": lambda: state.update({"blocks.12.norm1.weight": torch.ones(192)}),
         "nan": lambda: state["blocks.2.attn.proj.weight"].fill_(float("nan")),
         "registers": lambda: state.update(register_tokens=torch.zeros(1, 4, 192)),
         "odd grid": lambda: state.update(pos_embed=torch.zeros(1, 300, 192)),
         "truncated": lambda: None}[kind]()
        torch.save(state, path)
        if kind == "truncated":
            path.write_bytes(truncated(path.read_bytes()))
    return path


@pytest.mark.parametrize(
    "kind, said",
    [
        ("evil", "refused, not a file of tensors"),
        ("evil torch file", "refused, .* GLOBAL io.open"),
        ("object array", "plain arrays"),
        ("truncated", "truncated"),
        ("truncated npz", "not a readable .npz"),
        ("empty", "PyTorch file"),
        ("text", "not a file of tensors"),
        ("list", "not a state dict"),
        ("missing", r"missing blocks.7.mlp.fc1.weight \[768, 192\]"),
        ("extra", "unexpected blocks.12.norm1.weight"),
        ("shape", r"norm.weight is \[100\], expected \[192\]"),
        ("nan", "blocks.2.attn.proj.weight has values"),
        ("registers", "registers"),
        ("odd grid", r"pos_embed is \[1, 300, 192\], expected \[1, 257, 192\]"),
    ],
)
def test_bad_file_is_refused_and_the_model_left_alone(tmp_path, kind, said):
    path = write_bad(kind, tmp_path / "bad.pth")
    model = create_model("vit_tiny", 14, 2, layer_scale=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"bad\.(pth|npz): .*" + said) as error:
        load_pretrained(model, "dinov2", path)
    assert path.name in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not Path("/tmp/executed-by-a-weight-file").exists()


def test_wrong_model(tmp_path):
    torch.save(dinov2_state(), tmp_path / "w.pth")
    np.savez(tmp_path / "w.npz", **augreg_arrays(classes=10))
    with pytest.raises(ValueError, match="unexpected blocks.0.ls1.gamma"):
        load_pretrained(create_model("vit_tiny", 14), "dinov2", tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight is \[192, 3, 16, 16\]"):
        load_pretrained(
            create_model("vit_tiny", 14, layer_scale=True), "dinov2", tmp_path / "w.npz"
        )
    with pytest.raises(ValueError, match="unknown init 'swin'"):
        load_pretrained(create_model("vit_tiny", 14), "swin", tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"\(dinov3\).*It looks like vit_tiny .* of DINOv2"):
        load_pretrained(create_model("vit_tiny", 14), "dinov3", tmp_path / "w.pth")
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        load_pretrained(create_model("vit_tiny", 14), "dinov2", tmp_path / "nowhere.pth")


def test_weights_of_another_size_or_kind_are_called_by_name(tmp_path):
    torch.save(dinov2_state("vit_small"), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="It looks like vit_small with patches of 14 of DINOv2"):
        load_pretrained(create_model("vit_tiny", 14, layer_scale=True), "dinov2",
                        tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"of DINOv2 \(--init dinov2\)"):
        load_pretrained(create_model("vit_small", 16), "imagenet", tmp_path / "w.pth")


# -- any file: the shape is read off it, and the features are those of the code it was made for ----

SHAPE = dict(hidden_size=128, num_hidden_layers=3, num_attention_heads=2, intermediate_size=512)
HUGGING_FACE = {
    "Dinov2": (dict(patch_size=14, image_size=56), dict(layer_scale=True)),
    "Dinov2WithRegisters": (dict(patch_size=14, image_size=56, num_register_tokens=3),
                            dict(layer_scale=True, registers=3)),
    "DINOv3ViT": (dict(patch_size=16, image_size=64, num_register_tokens=4),
                  dict(layer_scale=True, registers=4, rotary=True, norm_eps=1e-5)),
    "ViT": (dict(patch_size=16, image_size=64), dict(norm_eps=1e-12)),
}


def hugging_face(name, folder):
    """A small random model of transformers, and the file that it writes."""
    import transformers
    config = getattr(transformers, name + "Config")(
        **SHAPE, **HUGGING_FACE[name][0], attn_implementation="eager")
    oracle = randomize(getattr(transformers, name + "Model")(config))
    oracle.save_pretrained(folder)
    return oracle, folder / "model.safetensors"


@pytest.mark.parametrize("larger", [False, True])
@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face_files(tmp_path, name, larger):
    oracle, path = hugging_face(name, tmp_path)
    given, expected = HUGGING_FACE[name]
    size = given["image_size"] * 3 // 2 if larger else given["image_size"]
    model, report = from_pretrained(path, img_size=size)
    assert model.config == dict(img_size=size, patch_size=given["patch_size"], embed_dim=128,
                                depth=3, num_heads=2, num_classes=0, layer_scale=False,
                                registers=0, rotary=False, norm_eps=1e-6) | expected
    assert report.missing == [] and bool(report.resized) == (larger and name != "DINOv3ViT")
    if larger and name == "Dinov2":  # transformers leaves out the 0.1 of Meta's code
        oracle.embeddings.position_embeddings.data = hub_pos_embed(
            oracle.embeddings.position_embeddings.data, size // given["patch_size"])
        oracle.embeddings.interpolate_pos_encoding = lambda *_: (
            oracle.embeddings.position_embeddings)
    if larger and name == "ViT":  # ViT is resized as timm resizes it
        oracle.embeddings.interpolate_pos_encoding = lambda *_: resample_abs_pos_embed(
            oracle.embeddings.position_embeddings, (size // 16, size // 16))
    images = torch.rand(2, 3, size, size, requires_grad=True)
    options = dict(interpolate_pos_encoding=True) if name == "ViT" else {}
    theirs = oracle(images, output_attentions=True, **options)
    assert relative(model.tokens(images), theirs.last_hidden_state) < 1e-5
    assert relative(model(images), theirs.last_hidden_state[:, 0]) < 1e-5
    patches = (size // given["patch_size"]) ** 2
    assert relative(model.attention(images), theirs.attentions[-1][:, :, 0, -patches:]) < 1e-5

    # gradients, of the image and of what only some of the models have
    (expected,) = torch.autograd.grad(theirs.last_hidden_state[:, 0].square().sum(), images,
                                      retain_graph=True)
    (found,) = torch.autograd.grad(model(images).square().sum(), images)
    assert relative(found, expected) < 1e-5
    theirs.last_hidden_state[:, 0].pow(3).sum().backward()
    model(images).pow(3).sum().backward()
    embeddings = oracle.embeddings
    assert relative(model.cls_token.grad, embeddings.cls_token.grad) < 1e-5
    if model.reg_token is not None:
        assert relative(model.reg_token.grad, embeddings.register_tokens.grad) < 1e-5
    attention = next(m for n, m in oracle.named_modules() if n.endswith("attention.q_proj"))
    assert relative(model.blocks[0].attn.qkv.weight.grad[:128], attention.weight.grad) < 1e-5
    assert relative(model.blocks[0].attn.qkv.bias.grad[:128], attention.bias.grad) < 1e-5
    if model.rope:
        assert not model.blocks[0].attn.qkv.bias.grad[128:256].any()


@pytest.mark.parametrize("name", ["ViT", "Dinov2WithRegisters"])
def test_hugging_face_names_in_memory(tmp_path, name):
    """`torch.save(model.state_dict())`, whose names are not always those of save_pretrained."""
    oracle, _ = hugging_face(name, tmp_path)
    torch.save(oracle.state_dict(), tmp_path / "pytorch_model.bin")
    size = HUGGING_FACE[name][0]["image_size"]
    model, _ = from_pretrained(tmp_path / "pytorch_model.bin", img_size=size)
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        assert relative(model.tokens(images), oracle(images).last_hidden_state) < 1e-6
    assert model.config["norm_eps"] == oracle.config.layer_norm_eps


def test_names_that_look_like_parts_and_names_that_are_none(tmp_path):
    torch.save(dinov2_state((64, 1, 1), grid=4), tmp_path / "fold-1-of-5.pth")
    assert from_pretrained(tmp_path / "fold-1-of-5.pth")[1].missing == []
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="one part of a model in several files"):
        from_pretrained(tmp_path / "model-00001-of-00002.safetensors")
    torch.save({0: torch.zeros(1)}, tmp_path / "numbers.pth")
    with pytest.raises(ValueError, match="numbers.pth: not a state dict"):
        from_pretrained(tmp_path / "numbers.pth")


TIMM = {"vit_base_patch14_reg4_dinov2": 56, "vit_base_patch16_dinov3": 64,
        "vit_base_patch16_dinov3_qkvb": 64, "vit_base_patch16_224.dino": 64,
        "vit_base_patch16_224.mae": 64, "deit_base_patch16_224": 64}


@pytest.mark.parametrize("larger", [False, True])
@pytest.mark.parametrize("name", TIMM)
def test_timm_files(tmp_path, name, larger):
    """At the other size as timm's own loader of the file resizes it."""
    size = TIMM[name] * 3 // 2 if larger else TIMM[name]
    shape = dict(embed_dim=128, depth=2, num_heads=2, num_classes=0)
    torch.save(randomize(timm.create_model(name, img_size=TIMM[name], **shape)).state_dict(),
               tmp_path / "timm.pth")
    oracle = timm.create_model(name, img_size=size, **shape, pretrained=True,
                               pretrained_cfg_overlay=dict(file=str(tmp_path / "timm.pth"))).eval()
    model, _ = from_pretrained(tmp_path / "timm.pth", img_size=size)
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        assert relative(model.tokens(images), oracle.forward_features(images)) < 1e-5
        assert relative(model(images), oracle.forward_features(images)[:, 0]) < 1e-5


def meta_dinov3(oracle):
    """The weights of transformers' DINOv3 in Meta's names, with the masks and periods it keeps."""
    state, joined = {}, {}
    names = {"patch_embeddings": "patch_embed.proj", "embeddings.": "",
             "register_tokens": "storage_tokens", "model.layer.": "blocks.",
             "attention.o_proj": "attn.proj", "up_proj": "fc1", "down_proj": "fc2",
             "layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma"}
    for name, value in oracle.state_dict().items():
        for theirs, metas in names.items():
            name = name.replace(theirs, metas)
        joined[name] = value.clone()
    for n in range(SHAPE["num_hidden_layers"]):
        def part(letter, kind, n=n):
            return joined.pop(f"blocks.{n}.attention.{letter}_proj.{kind}")
        qkv, dim = f"blocks.{n}.attn.qkv.", SHAPE["hidden_size"]
        state[qkv + "weight"] = torch.cat([part(letter, "weight") for letter in "qkv"])
        state[qkv + "bias"] = torch.cat([part("q", "bias"), torch.ones(dim), part("v", "bias")])
        state[qkv + "bias_mask"] = torch.cat([torch.ones(dim), torch.zeros(dim), torch.ones(dim)])
    periods = (1 / oracle.rope_embeddings.inv_freq).bfloat16().float()  # Meta's are rounded
    state["rope_embed.periods"] = periods
    oracle.rope_embeddings.inv_freq = 1 / periods
    return state | joined


def test_metas_dinov3_with_its_masks_and_rounded_periods(tmp_path):
    oracle, path = hugging_face("DINOv3ViT", tmp_path)
    from_hugging_face, _ = from_pretrained(path, img_size=64)
    state = meta_dinov3(oracle)
    assert "mask_token" in state and "storage_tokens" in state
    torch.save(state, tmp_path / "dinov3.pth")
    model, report = from_pretrained(tmp_path / "dinov3.pth", img_size=64)
    assert report.skipped == ["mask_token"] and not report.missing
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = oracle(images).last_hidden_state
        assert relative(model.tokens(images), expected) < 1e-5
        assert relative(from_hugging_face.tokens(images), expected) > 1e-4  # exact periods
    wrapped = {"backbone." + name: value for name, value in state.items()}
    torch.save({"teacher": wrapped | {"dino_head.mlp.0.weight": torch.zeros(2, 2)}},
               tmp_path / "teacher.pth")
    teacher, _ = from_pretrained(tmp_path / "teacher.pth", img_size=64)
    assert torch.equal(teacher(images), model(images))

    with_key_bias = {name: value for name, value in state.items() if "bias_mask" not in name}
    torch.save(with_key_bias, tmp_path / "biased.pth")
    with pytest.raises(ValueError, match="of keys, which DINOv3 has not"):
        from_pretrained(tmp_path / "biased.pth")
    del state["blocks.1.attn.qkv.bias"], state["blocks.1.attn.qkv.bias_mask"]
    torch.save(state, tmp_path / "lacking.pth")
    with pytest.raises(ValueError, match="blocks.1.attn.qkv.bias"):
        from_pretrained(tmp_path / "lacking.pth")


@pytest.mark.parametrize("prefix, wrapper", [
    ("", None), ("module.", "model"), ("_orig_mod.", None), ("model.", "state_dict"),
    ("module._orig_mod.model.", "model_state_dict"), ("module.backbone.", "teacher"),
    ("model.backbone.", "state_dict")])
def test_the_same_model_in_any_wrapping(tmp_path, prefix, wrapper):
    state = dinov2_state((64, 2, 1), grid=4)
    torch.save(state, tmp_path / "plain.pth")
    wrapped = {prefix + name: value for name, value in state.items()}
    options = argparse.Namespace(lr=0.1, data_path="/x")  # as MAE, DINO and DeiT write them
    torch.save({wrapper: wrapped, "args": options, "epoch": 3} if wrapper else wrapped,
               tmp_path / "wrapped.pth")
    a, b = (from_pretrained(tmp_path / name, img_size=56)[0]
            for name in ("plain.pth", "wrapped.pth"))
    assert all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_and_safetensors(tmp_path, dtype):
    state = {name: value.to(dtype) for name, value in dinov2_state((64, 2, 1), grid=4).items()}
    save_file(state, tmp_path / "w.safetensors")
    model, report = from_pretrained(tmp_path / "w.safetensors", img_size=56, num_classes=3)
    assert report.missing == ["head.weight", "head.bias"] and model.head.out_features == 3
    for name, value in model.state_dict().items():
        if not name.startswith("head."):
            assert value.dtype == torch.float32 and torch.equal(value, state[name].float())


def test_mae_with_its_decoder(tmp_path):
    """As `mae_visualize_vit_base.pth` and its training checkpoints hold it."""
    oracle = randomize(timm.create_model("vit_base_patch16_224.mae", img_size=64, num_classes=0,
                                         embed_dim=128, depth=2, num_heads=2))
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 17, 8),
               "decoder_embed.weight": torch.zeros(8, 128), "decoder_norm.bias": torch.zeros(8),
               "decoder_blocks.0.attn.qkv.weight": torch.zeros(24, 8)}
    torch.save({"model": oracle.state_dict() | decoder, "optimizer": {}, "scaler": {},
                "args": argparse.Namespace(model="mae_vit_base_patch16")}, tmp_path / "mae.pth")
    model, report = from_pretrained(tmp_path / "mae.pth", img_size=64)
    assert report.skipped == sorted(decoder)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative(model.tokens(images), oracle.forward_features(images)) < 1e-5


def test_heads_are_asked_for_where_they_cannot_be_read_off(tmp_path):
    torch.save(dinov2_state((96, 1, 3), grid=4), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="96 channels are no multiple of 64: give") as error:
        from_pretrained(tmp_path / "w.pth", num_heads=None)
    assert "w.pth" in str(error.value)
    assert from_pretrained(tmp_path / "w.pth", num_heads=3)[0].config["num_heads"] == 3
    ours = create_model("vit_micro", 16, 4, img_size=32)
    checkpoint_of(ours, tmp_path / "best.pt", list("abcd"))
    again, _ = from_pretrained(tmp_path / "best.pt", img_size=32)
    images = torch.rand(1, 3, 32, 32)
    assert torch.equal(again.forward_features(images), ours.eval().forward_features(images))


@pytest.mark.parametrize("name, said", [
    ("swin_tiny_patch4_window7_224", "Swin"), ("eva02_tiny_patch14_224", "EVA-02"),
    ("eva02_base_patch14_224", "EVA-02"), ("vit_small_plus_patch16_dinov3", "ViT-S+"),
    ("vit_giant_patch14_dinov2", "DINOv2's ViT-g"),
    ("convnext_atto", "ConvNeXt"), ("resnet18", "convolution"),
    ("beit_base_patch16_224", "BEiT"), ("vit_base_patch16_clip_224", "CLIP"),
    ("vit_base_patch16_siglip_224", "SigLIP"), ("deit_tiny_distilled_patch16_224", "dist_token")])
def test_what_is_no_plain_vit_is_refused_by_name(tmp_path, name, said):
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in timm.create_model(name).state_dict().items()}
    torch.save({key: torch.zeros(()).expand(shape) for key, shape in shapes.items()},
               tmp_path / "w.pth")
    with pytest.raises(ValueError, match=said) as error:
        from_pretrained(tmp_path / "w.pth")
    assert "\n" not in str(error.value)


def clip_of_hugging_face():
    return {"visual_projection.weight": torch.zeros(4, 4), "logit_scale": torch.zeros(()),
            "vision_model.embeddings.class_embedding": torch.zeros(4)}


def test_clip_with_its_projection_is_refused(tmp_path):
    save_file(clip_of_hugging_face(), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="the image part of a CLIP"):
        from_pretrained(tmp_path / "model.safetensors")


# -- bad files ------------------------------------------------------------------------------------

def safetensors_bytes(header, body=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(start, end, shape=(2,), dtype="F32"):
    return dict(dtype=dtype, shape=list(shape), data_offsets=[start, end])


BAD = {
    "truncated": (None, "w.safetensors", "not a readable .safetensors"),
    "header of 2^60 bytes": (safetensors_bytes({}, length=2**60), "w.safetensors",
                             "not a readable"),
    "the same as .pth": (safetensors_bytes({}, length=2**60), "w.pth", "not a readable"),
    "overlapping": (safetensors_bytes({"a": entry(0, 8), "b": entry(4, 12)}, b"\0" * 12),
                    "w.safetensors", "not a readable"),
    "beyond its end": (safetensors_bytes({"a": entry(0, 800, (200,))}, b"\0" * 8),
                       "w.safetensors", "not a readable"),
    "negative": (safetensors_bytes({"a": entry(-8, 0)}, b"\0" * 8), "w.safetensors",
                 "not a readable"),
    "no JSON": (safetensors_bytes(b"{{{{{{{{"), "w.safetensors", "not a readable"),
    "web page": (b"<!DOCTYPE html><html>Sign in</html>", "w.pth", "a web page"),
    "web page as safetensors": (b"\n<html>", "w.safetensors", "a web page"),
    "index": (b'{"weight_map": {}}', "model.safetensors.index.json", "several files"),
    "shard": (safetensors_bytes({}), "model-00001-of-00002.safetensors", "merge them"),
    "empty": (b"", "w.safetensors", "not a readable"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_bytes_are_one_line(tmp_path, kind):
    content, name, said = BAD[kind]
    if content is None:
        save_file(dinov2_state((64, 2, 1), grid=4), tmp_path / name)
        content = truncated((tmp_path / name).read_bytes())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        from_pretrained(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_bit_flips_in_a_header_are_one_line_or_change_no_tensor(tmp_path):
    """A flip in the header is noticed; one in `__metadata__` or a space may be harmless."""
    state = dinov2_state((64, 1, 1), grid=2)
    save_file(state, tmp_path / "w.safetensors")
    good = (tmp_path / "w.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", good[:8])[0]
    rng = np.random.default_rng(0)
    refused = 0
    for at, bit in zip(rng.integers(0, header, 150), rng.integers(0, 8, 150)):
        bad = bytearray(good)
        bad[at] ^= 1 << bit
        (tmp_path / "w.safetensors").write_bytes(bad)
        try:
            model, _ = from_pretrained(tmp_path / "w.safetensors", img_size=28)
        except ValueError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            assert torch.equal(model.norm.weight, state["norm.weight"])
    assert refused > 100


@pytest.mark.parametrize("change, said", [
    (lambda s: s.update({"norm.weight": torch.ones(64, dtype=torch.int64)}),
     "norm.weight is int64, expected float"),
    (lambda s: s.update({"norm.weight": torch.ones(64, dtype=torch.bool)}), "is bool"),
    (lambda s: s.update({"module.norm.weight": torch.ones(64)}), "two tensors for norm.weight"),
    (lambda s: s.update({"blocks.0.attn.qkv.bias_mask": torch.ones(5)}), "do not belong together"),
    (lambda s: s.update({"patch_embed.proj.weight": torch.zeros(64, 3, 0, 0)}), "no patch emb"),
    (lambda s: s.update({"pos_embed": torch.zeros(1, 0, 64)}), r"pos_embed is \[1, 0, 64\]"),
    (lambda s: s.update({"blocks.0.mlp.fc1.weight": torch.zeros(())}), r"fc1.weight is \[\]"),
    (lambda s: s.update({"reg_token": torch.zeros(3), "rope.periods": torch.ones(16),
                         "blocks.0.attn.qkv.bias": torch.ones(1)}), "do not belong together"),
    (lambda s: s.pop("pos_embed"), "missing pos_embed"),
    (lambda s: s.pop("cls_token"), "no ViT in a known layout"),
    (lambda s: s.clear(), "not a state dict"),
])
def test_bad_tensors_are_one_line(tmp_path, change, said):
    state = dinov2_state((64, 2, 1), grid=4)
    change(state)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=said) as error:
        from_pretrained(tmp_path / "w.pth", img_size=56)
    assert "\n" not in str(error.value) and "w.pth" in str(error.value)


def test_code_in_the_options_is_not_executed(tmp_path):
    torch.save({"model": dinov2_state((64, 1, 1), grid=2), "args": argparse.Namespace(x=Evil())},
               tmp_path / "w.pth")
    with pytest.raises(ValueError, match="refused"):
        from_pretrained(tmp_path / "w.pth")
    assert not Path("/tmp/executed-by-a-weight-file").exists()


def test_without_safetensors_one_line_says_what_to_install(tmp_path, monkeypatch):
    save_file(dinov2_state((64, 1, 1), grid=2), tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match="pip install safetensors"):
        from_pretrained(tmp_path / "w.safetensors")
