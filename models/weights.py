"""Weight files in the layouts of their authors -> our state dict, loaded strictly: every parameter
of the model but the head's has to be in the file with its shape."""

import argparse
import math
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from models.checkpoint import first_line, read_torch
from models.init_catalog import INITS, family
from models.vit import ARCHITECTURES, RotaryPositions, VisionTransformer, build

State = dict[str, torch.Tensor]  # tensors by name
Renaming = tuple[tuple[str, str], ...]  # regular expressions, and what takes the place of a match


@dataclass(frozen=True)
class LoadReport:
    """What loading did with each tensor, by name."""

    loaded: list[str]  # parameters of the model taken from the file, resized ones included
    # by name: the shape in the file, and that in the model
    resized: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    skipped: list[str]  # tensors of the file that the encoder has no use for
    missing: list[str]  # parameters of the model that keep their random values: the head's, or none

    def with_head(self) -> "LoadReport":
        """The report after the file's head was copied as well."""
        skipped = [name for name in self.skipped if not name.startswith("head.")]
        return LoadReport([*self.loaded, *self.missing], self.resized, skipped, missing=[])

    def __str__(self) -> str:
        resized = []
        for name, (old_shape, new_shape) in self.resized.items():
            resized.append(f"{name} {list(old_shape)} -> {list(new_shape)}")
        return (f"{len(self.loaded)} tensors loaded; resized: {first_six(resized)}; "
                f"skipped: {first_six(self.skipped)}; new: {first_six(self.missing)}")


@dataclass(frozen=True)
class Encoder:
    """What a weight file holds."""

    path: Path
    tensors: State  # by our names, a classifier's too
    config: dict[str, Any]  # arguments of `VisionTransformer`, without img_size and num_classes
    resize: str  # how its positions are resized, one of RESIZE
    is_ours: bool  # whether it is a checkpoint of this project


def load_pretrained(model: VisionTransformer, init: str, path: str | os.PathLike) -> LoadReport:
    """Fill a model's encoder from a weight file; the head stays as it is.

    Parameters
    ----------
    model : VisionTransformer
        Of the file's shape; its image size may be another.
    init : str
        A name of `models.init_catalog.INITS`, which says how positions are resized.
    path : path-like
        A file in any layout of `LAYOUTS`, or a checkpoint of this project.

    Returns
    -------
    LoadReport

    Raises
    ------
    FileNotFoundError, ValueError
        The file is absent, unreadable or unsafe, or a tensor other than the head's is missing,
        unexpected, of the wrong shape or type or not finite. The model is then unchanged.
    """
    if init not in INITS:
        raise ValueError(f"unknown init {init!r}, expected one of {', '.join(INITS)}")
    return fill(model, read_encoder(path, model.config["num_heads"], init), f" ({init})")


def from_pretrained(path: str | os.PathLike, *, num_classes: int = 0, img_size: int = 224,
                    num_heads: int | None = None) -> tuple[VisionTransformer, LoadReport]:
    """A model whose shape is read off a weight file, filled from it.

    Parameters
    ----------
    path : path-like
        As in `load_pretrained`, with the same errors.
    num_classes : int
        Outputs of a new, random head; 0 for none.
    img_size : int
        Side of the input in pixels; learned positions are resized as the file's family does.
    num_heads : int, optional
        By default one for every 64 channels, but 16 for ViT-H.

    Returns
    -------
    VisionTransformer, in eval mode
    LoadReport
    """
    encoder = read_encoder(path, num_heads)
    model = build(encoder.config | {"img_size": img_size, "num_classes": num_classes})
    return model.eval(), fill(model, encoder)


def fill(model: VisionTransformer, encoder: Encoder, whose: str = "") -> LoadReport:
    """Copy an encoder into a model, all of it or nothing; an error names `whose` weights it is."""
    own = model.state_dict()
    head = [name for name in own if name.startswith("head.")]
    skipped = sorted(filter(NOT_ENCODER.match, encoder.tensors))
    state: State = {}
    resized = {}
    problems = []
    for name, value in encoder.tensors.items():
        if name in skipped:
            continue
        if name not in own:
            problems.append(f"unexpected {name} {list(value.shape)}")
            continue
        shape = own[name].shape
        if not value.is_floating_point():
            problems.append(f"{name} is {str(value.dtype).removeprefix('torch.')}, expected float")
        value = value.float()
        if name == "pos_embed" and value.shape != shape and grid(value) and grid(own[name]):
            resized[name] = (tuple(value.shape), tuple(shape))
            value = resize_positions(value, grid(own[name]), encoder.resize)
        if value.shape != shape:
            problems.append(f"{name} is {list(value.shape)}, expected {list(shape)}")
        elif not torch.isfinite(value).all():
            problems.append(f"{name} has values that are not finite")
        state[name] = value
    for name, value in own.items():
        if name not in state and name not in head:
            problems.append(f"missing {name} {list(value.shape)}")
    if problems:
        raise ValueError(f"{encoder.path}: not the weights of this model{whose}: "
                         f"{first_six(problems, '; ')}. It looks like {describe(encoder.config)}")
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == head and not unexpected, (missing, unexpected)  # exactly the head is new
    return LoadReport(loaded=list(state), resized=resized, skipped=skipped, missing=missing)


def describe(config: Mapping[str, Any]) -> str:
    """A config in words, with the flags that ask for it."""
    width, depth = config["embed_dim"], config["depth"]
    words = [f"a transformer of width {width} and {depth} blocks"]
    for arch, known in ARCHITECTURES.items():
        if (known["embed_dim"], known["depth"]) == (width, depth):
            words = [arch]
    words.append(f"with patches of {config['patch_size']}")
    if any(family(config)):
        for name, init_spec in INITS.items():
            if family(init_spec.shape) == family(config):
                words.append(f"of {init_spec.title} (--init {name})")
                break
    return " ".join(words)


def first_six(items: Sequence[str], comma: str = ", ") -> str:
    """The first six items in words, and how many more there are."""
    if not items:
        return "none"
    shown = list(items[:6])
    if len(items) > 6:
        shown.append(f"and {len(items) - 6} more")
    return comma.join(shown)


# -- position embedding ---------------------------------------------------------------------------

# Google's files and the others without LayerScale as timm resizes them ("bilinear", "antialias"),
# DINOv2's as its hub model does at run time ("offset"): the 0.1 that it adds to the new side moves
# the sample points.
RESIZE = ("bilinear", "antialias", "offset")


def grid(pos_embed: torch.Tensor, others: int = 1) -> int:
    """The side n of positions (1, others + n * n, D), or 0 where they are of another shape."""
    if pos_embed.ndim != 3 or pos_embed.shape[1] < others:
        return 0
    patches = pos_embed.shape[1] - others
    side = math.isqrt(patches)
    if side * side != patches:
        return 0
    return side


def resize_positions(pos_embed: torch.Tensor, new: int, rule: str) -> torch.Tensor:
    """Interpolate (1, 1 + n * n, D) positions to a side of `new` patches; the class token's stays.

    `rule` is one of `RESIZE`.
    """
    old = grid(pos_embed)
    patches = pos_embed[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)  # (1, D, old, old)
    if rule == "offset":
        scale = (new + 0.1) / old
        patches = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic",
                                align_corners=False)
    elif rule == "antialias":
        patches = F.interpolate(patches, (new, new), mode="bicubic", align_corners=False,
                                antialias=True)
    else:
        patches = F.interpolate(patches, (new, new), mode="bilinear", align_corners=False)
    return torch.cat([pos_embed[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


# -- layouts --------------------------------------------------------------------------------------

AUGREG: Renaming = (  # Steiner et al. 2022, arXiv:2106.10270
    (r"^cls$", "cls_token"),
    (r"^Transformer/posembed_input/pos_embedding$", "pos_embed"),
    (r"^embedding/", "patch_embed.proj."),
    (r"^Transformer/encoder_norm/", "norm."),
    (r"^Transformer/encoderblock_(\d+)/", r"blocks.\1."),
    (r"MultiHeadDotProductAttention_1/([qkv])(uery|ey|alue)/", r"attn.\1."),
    (r"MultiHeadDotProductAttention_1/out/", "attn.proj."),
    (r"LayerNorm_0/", "norm1."),
    (r"LayerNorm_2/", "norm2."),
    (r"MlpBlock_3/Dense_0/", "mlp.fc1."),
    (r"MlpBlock_3/Dense_1/", "mlp.fc2."),
    (r"/", "."),
    (r"(kernel|scale)$", "weight"),
)
TORCHVISION: Renaming = (
    (r"^class_token$", "cls_token"),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.(head\.)?", "head."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(linear_1|0)\.", ".mlp.fc1."),
    (r"\.mlp\.(linear_2|3)\.", ".mlp.fc2."),
)
HUGGING_FACE: Renaming = (  # Dinov2, Dinov2WithRegisters, DINOv3ViT, ViT and ViTMAE, as in files
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.", ""),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"^(encoder\.)?layers?\.(\d+)\.", r"blocks.\2."),  # "layers" in memory
    (r"\.attention\.(attention\.)?([qkv])(uery|ey|alue|_proj)\.", r".attn.\2."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.(mlp\.up_proj|intermediate\.dense)\.", ".mlp.fc1."),
    (r"\.(mlp\.down_proj|output\.dense)\.", ".mlp.fc2."),
)
META: Renaming = (  # DINO, DINOv2, DINOv3; MAE, DeiT, timm and this project name the rest alike
    (r"^(register_tokens|storage_tokens)$", "reg_token"),
    (r"^rope_embed\.", "rope."),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # training checkpoints keep blocks in chunks
    (r"\.gamma_([12])$", r".ls\1.gamma"),  # timm's DINOv3
    (r"\.attn\.([qkv])_bias$", r".attn.\1.bias"),
)


@dataclass(frozen=True)
class Layout:
    """How a family of files names its tensors."""

    marker: str  # a name that this layout alone has
    renaming: Renaming  # to our names
    is_rotary: bool = False  # whether positions are rotary though no tensor says so


LAYOUTS = (
    Layout("embedding/kernel", AUGREG),
    Layout("class_token", TORCHVISION),
    Layout("embeddings.position_embeddings", HUGGING_FACE),
    Layout("embeddings.patch_embeddings.weight", HUGGING_FACE, is_rotary=True),
    Layout("blocks.0.gamma_1", META, is_rotary=True),
    Layout("cls_token", META),
)
# Prefixes that wrappers such as DDP and torch.compile put before every name; removed first.
PREFIXES: Renaming = (
    (r"^((module|_orig_mod|model|backbone|dinov2|dinov2_with_registers|dinov3_vit|vit)\.)+", ""),
)
# In the file but not in our encoder: classifiers, and what pretraining alone needs.
NOT_ENCODER = re.compile(
    r"(head|head_dist|pre_logits|dino_head|ibot_head|classifier|pooler|local_cls_norm)\.|"
    r"decoder|mask_token$")
GATED = "a transformer with gated MLPs (EVA-02, DINOv2's ViT-g, DINOv3's ViT-S+ and H+)"
FOREIGN: Renaming = (  # a pattern of names that only another architecture has, and which it is
    (r"relative_position|^layers\.\d+\.blocks\.", "a Swin transformer or BEiT"),
    (r"(^|\.)stages\.\d+\.|^downsample_layers\.|^layer1\.0\.conv|^features\.",
     "a ConvNeXt or another convolutional network"),
    (r"^visual\.|^vision_model\.|^visual_projection|^text_projection|norm_pre\.|^attn_pool\.",
     "the image part of a CLIP or SigLIP model"),
    (r"\.mlp\.(w1|w12|fc1_g|gate_proj|weights_in)\.", GATED),
)


def read_encoder(path: str | os.PathLike, num_heads: int | None = None, init: str | None = None,
                 ) -> Encoder:
    """The `Encoder` of a weight file in any layout, its tensors not yet held to a model.

    `init` says how its positions are resized; without it, its layout and LayerScale do.
    """
    path = Path(path)
    content = read_file(path)
    own_config = config_of_ours(content)
    state = rename(unwrap(content, path), PREFIXES, path)
    layout = find_layout(state, path)
    # Hugging Face's ViT has another epsilon than all others; its names say which it is.
    is_hugging_face_vit = any(".layernorm_before." in name for name in state)
    state = rename(state, layout.renaming, path)
    patch_weight = check_shapes(state, path)
    width = len(patch_weight)
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    is_rotary = layout.is_rotary or "rope.periods" in state
    try:
        unmask_biases(state)
        join_qkv(state, depth, is_rotary)
        pad_class_position(state)
    except (RuntimeError, LookupError) as error:
        raise ValueError(f"{path}: its tensors do not belong together ({first_line(error)})"
                         ) from None

    num_heads = num_heads or own_config.get("num_heads") or usual_heads(width)
    if not num_heads:
        raise ValueError(f"{path}: {width} channels are no multiple of 64: give num_heads")
    if is_rotary:
        state.setdefault("rope.periods", RotaryPositions(width // num_heads).periods)
    norm_eps = 1e-6
    if is_rotary:
        norm_eps = 1e-5
    elif is_hugging_face_vit:
        norm_eps = 1e-12
    registers = 0
    if "reg_token" in state:
        registers = state["reg_token"].numel() // width
    config = {"patch_size": patch_weight.shape[-1], "embed_dim": width, "num_heads": num_heads,
              "depth": depth, "layer_scale": "blocks.0.ls1.gamma" in state, "rotary": is_rotary,
              "registers": registers, "norm_eps": own_config.get("norm_eps", norm_eps)}
    return Encoder(path, state, config, resize_rule(layout, config, init), bool(own_config))


def config_of_ours(content: Any) -> dict[str, Any]:
    """The model's config in a checkpoint of this project; empty for what others wrote."""
    if isinstance(content, dict) and isinstance(content.get("model_config"), dict):
        return content["model_config"]
    return {}


def unwrap(content: Any, path: Path) -> State:
    """The state dict of a checkpoint, which may keep it under a key beside other things."""
    for wrapper in ("model", "state_dict", "model_state_dict", "teacher"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    problem = (f"{path}: not a state dict (found {type(content).__name__}, expected names and "
               "tensors)")
    if not isinstance(content, dict) or not content:
        raise ValueError(problem)
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(problem)
    return content


def find_layout(state: State, path: Path) -> Layout:
    """Which of `LAYOUTS` names these tensors; ValueError for networks that are no plain ViT."""
    for pattern, what in FOREIGN:
        for name in state:
            if re.search(pattern, name):
                raise ValueError(f"{path}: {what}, no plain ViT with a class token (it has {name})")
    for layout in LAYOUTS:
        if layout.marker in state:
            return layout
    raise ValueError(f"{path}: no ViT in a known layout (it has {first_six(list(state))})")


def rename(state: State, renaming: Renaming, path: Path) -> State:
    """Apply the rows of a renaming in order to every name; two tensors of one name are an error."""
    renamed: State = {}
    for old, value in state.items():
        new = old
        for pattern, ours in renaming:
            new = re.sub(pattern, ours, new)
        if new in renamed:
            raise ValueError(f"{path}: two tensors for {new}; one of them is {old}")
        renamed[new] = value
    return renamed


def check_shapes(state: State, path: Path) -> torch.Tensor:
    """The weight of the patch embedding (D, 3, P, P); ValueError without it, or with gated MLPs."""
    patch_weight = state.get("patch_embed.proj.weight")
    if patch_weight is None or patch_weight.ndim != 4 or not patch_weight.numel():
        raise ValueError(f"{path}: no patch embedding of shape (D, 3, P, P)")
    fc1, fc2 = state.get("blocks.0.mlp.fc1.weight"), state.get("blocks.0.mlp.fc2.weight")
    if fc1 is not None and fc2 is not None and fc1.ndim == fc2.ndim == 2:
        if len(fc1) == 2 * fc2.shape[1]:
            raise ValueError(f"{path}: {GATED}, no plain ViT (its fc1 is twice as wide as its fc2)")
    return patch_weight


def unmask_biases(state: State) -> None:
    """Multiply biases by the masks that Meta's DINOv3 keeps beside them."""
    for name in [name for name in state if name.endswith(".bias_mask")]:
        bias = name.removesuffix("_mask")
        state[bias] = state[bias] * state.pop(name)


def join_qkv(state: State, depth: int, is_rotary: bool) -> None:
    """Make one tensor of queries, keys and values in each block, where a file has them apart.

    In DINOv3 some of the three have no bias in any block: those are zeros.
    """
    without_bias = ""
    if is_rotary and not any(".attn.qkv.bias" in name for name in state):
        for part in "qkv":
            if not any(f".attn.{part}.bias" in name for name in state):
                without_bias += part
    for block in range(depth):
        attn = f"blocks.{block}.attn."
        join_parts(state, attn, "weight")
        join_parts(state, attn, "bias", optional=without_bias)
        if is_rotary:
            key_bias = state[f"{attn}qkv.bias"].chunk(3)[1]
            if key_bias.any():
                raise RuntimeError(f"{attn}qkv.bias: of keys, which DINOv3 has not")


def join_parts(state: State, attn: str, kind: str, optional: str = "") -> None:
    """Join a block's q, k and v weights, or biases; parts named in `optional` may be absent.

    An absent optional part becomes zeros. If another part is absent, nothing is joined.
    """
    if f"{attn}qkv.{kind}" in state:
        return
    names = [f"{attn}{part}.{kind}" for part in "qkv"]
    parts = []
    for part, name in zip("qkv", names):
        if name in state:
            parts.append(state[name])
        elif part in optional:
            parts.append(torch.zeros_like(state.get(f"{attn}proj.bias", torch.empty(0))))
        else:
            return  # `fill` reports the missing tensor by its name
    for name in names:
        state.pop(name, None)
    state[f"{attn}qkv.{kind}"] = torch.cat(parts)


def pad_class_position(state: State) -> None:
    """Give the class token a position of zeros, where the positions are of the patches alone."""
    if "pos_embed" in state and grid(state["pos_embed"], others=0):
        state["pos_embed"] = F.pad(state["pos_embed"], (0, 0, 1, 0))


def usual_heads(width: int) -> int | None:
    """Heads of 64 channels, but 16 of 80 in ViT-H; None for other widths."""
    if width == 1280:
        return 16
    if width % 64:
        return None
    return width // 64


def resize_rule(layout: Layout, config: Mapping[str, Any], init: str | None) -> str:
    """How the positions of a file are resized, one of `RESIZE`."""
    if layout.renaming is AUGREG:
        return "bilinear"
    if init is None:
        init = "dinov2" if family(config) == family(INITS["dinov2"].shape) else "imagenet"
    return INITS[init].resize or "antialias"


# -- files ----------------------------------------------------------------------------------------

def read_file(path: Path) -> Any:
    """What a weight file holds, tensors by the file's names; nothing in it is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    with open(path, "rb") as file:
        first_bytes = file.read(64)
    if first_bytes.lstrip().startswith(b"<"):
        raise ValueError(f"{path}: a web page, not weights: was a login or an error saved?")
    if re.search(r"-\d{5}-of-\d{5}\.|\.index\.json$", path.name):
        raise ValueError(f"{path}: one part of a model in several files, which is not supported: "
                         "merge them into one first")
    npz = is_npz(path)
    safetensors = path.suffix == ".safetensors" or first_bytes[8:9] == b"{"
    if not npz and not safetensors:
        with torch.serialization.safe_globals([argparse.Namespace]):  # MAE's and DINO's options
            return read_torch(path)
    try:
        if npz:
            return read_npz(path)
        from safetensors.torch import load_file
        return load_file(path)
    except ImportError:
        raise ValueError(f"{path}: to read it, pip install safetensors") from None
    except Exception as error:  # a damaged file can make the reader stumble in any way at all
        kind = ".npz" if npz else ".safetensors"
        raise ValueError(f"{path}: not a readable {kind} file of plain arrays "
                         f"({first_line(error)})") from None


def is_npz(path: Path) -> bool:
    """Whether the file is a zip of `.npy` arrays; torch's files are zips too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return path.suffix == ".npz"


def read_npz(path: Path) -> State:
    """The arrays of Google's `.npz` as tensors in PyTorch's order; never unpickles."""
    state: State = {}
    with np.load(path, allow_pickle=False) as archive:
        for name, array in archive.items():
            if name.endswith("bias"):
                array = array.reshape(-1)  # heads are an axis of their own, in kernels too
            elif name.endswith("kernel") and array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)  # (H, W, in, out) of the convolution
            elif name.endswith("kernel"):  # (in, out), where one of them may be (heads, D / heads)
                in_axes = array.shape[:1]
                if "/out/" in name:
                    in_axes = array.shape[:-1]
                array = array.reshape(math.prod(in_axes), -1).T
            state[name] = torch.from_numpy(np.ascontiguousarray(array))
    return state
