"""Weight files in the layouts of their authors -> our state dict, loaded strictly: every parameter
of the model but the head's has to be in the file with its shape."""

import argparse
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models.checkpoint import first_line, read_torch
from models.init_catalog import INITS, family
from models.vit import ARCHITECTURES, RotaryPositions, build


@dataclass
class LoadReport:
    """What loading did with each tensor, by name."""

    loaded: list  # parameters of the model taken from the file, resized ones included
    resized: dict  # name: (shape in the file, shape in the model)
    skipped: list  # tensors of the file that the encoder has no use for
    missing: list  # parameters of the model that keep their random values: the head's, or none

    def __str__(self):
        resized = [f"{name} {list(a)} -> {list(b)}" for name, (a, b) in self.resized.items()]
        return (f"{len(self.loaded)} tensors loaded; resized: {some(resized)}; "
                f"skipped: {some(self.skipped)}; new: {some(self.missing)}")


@dataclass
class Encoder:
    """What a weight file holds."""

    path: Path
    tensors: dict  # by our names, a classifier's too
    config: dict  # arguments of `VisionTransformer`, without img_size and num_classes
    resize: str  # how its positions are resized, a key of RESIZE
    ours: bool  # whether it is a checkpoint of this project


def load_pretrained(model, init, path):
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


def from_pretrained(path, *, num_classes=0, img_size=224, num_heads=None):
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
    model = build(encoder.config | dict(img_size=img_size, num_classes=num_classes))
    return model.eval(), fill(model, encoder)


def fill(model, encoder, of=""):
    """Copy an encoder into a model, all of it or nothing; gives the `LoadReport`."""
    own, state, resized, problems = model.state_dict(), {}, {}, []
    skipped = sorted(filter(NOT_ENCODER.match, encoder.tensors))
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
    missing = [name for name in own if name not in state]
    problems += [f"missing {name} {list(own[name].shape)}" for name in missing
                 if not name.startswith("head.")]
    if problems:
        raise ValueError(f"{encoder.path}: not the weights of this model{of}: "
                         f"{some(problems, '; ')}. It looks like {describe(encoder.config)}")
    model.load_state_dict(state | {name: own[name] for name in missing}, strict=True)
    return LoadReport(loaded=list(state), resized=resized, skipped=skipped, missing=missing)


def describe(config):
    """A config in words, with the flags that ask for it."""
    width, depth = config["embed_dim"], config["depth"]
    arch = next((arch for arch, known in ARCHITECTURES.items()
                 if (known["embed_dim"], known["depth"]) == (width, depth)),
                f"a transformer of width {width} and {depth} blocks")
    kin = next((f" of {init.title} (--init {name})" for name, init in INITS.items()
                if any(family(config)) and family(init.shape) == family(config)), "")
    return f"{arch} with patches of {config['patch_size']}{kin}"


def some(items, comma=", "):
    """The first six items in words, and how many more there are."""
    more = f"{comma}and {len(items) - 6} more" if len(items) > 6 else ""
    return comma.join(items[:6]) + more or "none"


# -- position embedding ---------------------------------------------------------------------------

# Google's files and the others without LayerScale as timm resizes them, DINOv2's as its hub model
# does at run time: the 0.1 that it adds to the new side moves the sample points.
RESIZE = {
    "bilinear": lambda old, new: dict(size=(new, new), mode="bilinear"),
    "antialias": lambda old, new: dict(size=(new, new), mode="bicubic", antialias=True),
    "offset": lambda old, new: dict(scale_factor=((new + 0.1) / old,) * 2, mode="bicubic"),
}


def grid(pos_embed, others=1):
    """The side n of positions (1, others + n * n, D), or 0."""
    patches = max(0, pos_embed.shape[1] - others) if pos_embed.ndim == 3 else 0
    side = math.isqrt(patches)
    return side if side * side == patches else 0


def resize_positions(pos_embed, new, rule):
    """Interpolate the grid of (1, 1 + n * n, D) positions; the class token's stays."""
    old = grid(pos_embed)
    patches = pos_embed[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)  # (1, D, old, old)
    patches = F.interpolate(patches, align_corners=False, **RESIZE[rule](old, new))
    return torch.cat([pos_embed[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)


# -- layouts --------------------------------------------------------------------------------------

AUGREG = (  # Steiner et al. 2022, arXiv:2106.10270
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
TORCHVISION = (
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
HUGGING_FACE = (  # as its files name them: Dinov2, Dinov2WithRegisters, DINOv3ViT, ViT, ViTMAE
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
META = (  # DINO, DINOv2, DINOv3; MAE, DeiT, timm and this project name the rest alike
    (r"^(register_tokens|storage_tokens)$", "reg_token"),
    (r"^rope_embed\.", "rope."),
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # training checkpoints keep blocks in chunks
    (r"\.gamma_([12])$", r".ls\1.gamma"),  # timm's DINOv3
    (r"\.attn\.([qkv])_bias$", r".attn.\1.bias"),
)
# A name that the layout alone has, its table, and whether positions are rotary without a tensor.
LAYOUTS = (
    ("embedding/kernel", AUGREG, False),
    ("class_token", TORCHVISION, False),
    ("embeddings.position_embeddings", HUGGING_FACE, False),
    ("embeddings.patch_embeddings.weight", HUGGING_FACE, True),
    ("blocks.0.gamma_1", META, True),
    ("cls_token", META, False),
)
# What wraps a model; it goes before the layout is looked for.
PREFIXES = r"^((module|_orig_mod|model|backbone|dinov2|dinov2_with_registers|dinov3_vit|vit)\.)+"
# In the file but not in our encoder: classifiers, and what pretraining alone needs.
NOT_ENCODER = re.compile(
    r"(head|head_dist|pre_logits|dino_head|ibot_head|classifier|pooler|local_cls_norm)\.|"
    r"decoder|mask_token$")
GATED = "a transformer with gated MLPs (EVA-02, DINOv2's ViT-g, DINOv3's ViT-S+ and H+)"
FOREIGN = (  # a name that only they have, and what they are
    (r"relative_position|^layers\.\d+\.blocks\.", "a Swin transformer or BEiT"),
    (r"(^|\.)stages\.\d+\.|^downsample_layers\.|^layer1\.0\.conv|^features\.",
     "a ConvNeXt or another convolutional network"),
    (r"^visual\.|^vision_model\.|^visual_projection|^text_projection|norm_pre\.|^attn_pool\.",
     "the image part of a CLIP or SigLIP model"),
    (r"\.mlp\.(w1|w12|fc1_g|gate_proj|weights_in)\.", GATED),
)


def read_encoder(path, num_heads=None, init=None):
    """The `Encoder` of a weight file in any layout, its tensors not yet held to a model.

    `init` says how its positions are resized; without it, its layout and LayerScale do.
    """
    path = Path(path)
    content = read_file(path)
    own = content.get("model_config") if isinstance(content, dict) else None
    own = own if isinstance(own, dict) else {}
    for wrapper in ("model", "state_dict", "model_state_dict", "teacher"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(
            isinstance(name, str) and isinstance(value, torch.Tensor)
            for name, value in content.items()):
        raise ValueError(f"{path}: not a state dict (found {type(content).__name__}, expected "
                         "names and tensors)")
    state = rename(content, ((PREFIXES, ""),), path)
    for pattern, what in FOREIGN:
        if found := next(filter(re.compile(pattern).search, state), None):
            raise ValueError(f"{path}: {what}, no plain ViT with a class token (it has {found})")
    _, table, rotary = next((layout for layout in LAYOUTS if layout[0] in state), (None,) * 3)
    if table is None:
        raise ValueError(f"{path}: no ViT in a known layout (it has {some(list(state))})")
    eps = 1e-12 if any(".layernorm_before." in name for name in state) else 1e-6
    state = rename(state, table, path)
    patch = state.get("patch_embed.proj.weight")
    if patch is None or patch.ndim != 4 or not patch.numel():
        raise ValueError(f"{path}: no patch embedding of shape (D, 3, P, P)")
    fc1, fc2 = (state.get(f"blocks.0.mlp.fc{n}.weight", patch) for n in (1, 2))
    if fc1.ndim == fc2.ndim == 2 and len(fc1) == 2 * fc2.shape[1]:
        raise ValueError(f"{path}: {GATED}, no plain ViT (its fc1 is twice as wide as its fc2)")
    rotary, width = rotary or "rope.periods" in state, len(patch)
    depth = len({name.split(".")[1] for name in state if name.startswith("blocks.")})
    try:
        unify(state, depth, rotary)
    except (RuntimeError, LookupError) as error:
        raise ValueError(f"{path}: its tensors do not belong together ({first_line(error)})"
                         ) from None
    usual = 16 if width == 1280 else 0 if width % 64 else width // 64  # ViT-H has 16 of 80 channels
    num_heads = num_heads or own.get("num_heads", usual)
    if not num_heads:
        raise ValueError(f"{path}: {width} channels are no multiple of 64: give num_heads")
    if rotary:
        state.setdefault("rope.periods", RotaryPositions(width // num_heads).periods)
    config = dict(
        patch_size=patch.shape[-1], embed_dim=width, num_heads=num_heads, depth=depth,
        layer_scale="blocks.0.ls1.gamma" in state, rotary=rotary,
        registers=state["reg_token"].numel() // width if "reg_token" in state else 0,
        norm_eps=own.get("norm_eps", 1e-5 if rotary else eps))
    if init is None:
        init = "dinov2" if family(config) == family(INITS["dinov2"].shape) else "imagenet"
    resize = "bilinear" if table is AUGREG else INITS[init].resize or "antialias"
    return Encoder(path, state, config, resize, bool(own))


def rename(state, table, path):
    """Apply a table's rows in order to every name; two tensors of one name are an error."""
    renamed = {}
    for old, value in state.items():
        new = old
        for pattern, ours in table:
            new = re.sub(pattern, ours, new)
        if new in renamed:
            raise ValueError(f"{path}: two tensors for {new}; one of them is {old}")
        renamed[new] = value
    return renamed


def unify(state, depth, rotary):
    """What is no renaming: queries, keys and values as one, masked biases, a class position."""
    for name in [name for name in state if name.endswith(".bias_mask")]:
        bias = name.removesuffix("_mask")
        state[bias] = state[bias] * state.pop(name)
    names = " ".join(state)
    without = [part for part in "qkv" if rotary and f".attn.{part}.bias" not in names
               and ".attn.qkv.bias" not in names]
    for n in range(depth):
        attn = f"blocks.{n}.attn."
        zero = torch.zeros_like(state.get(attn + "proj.bias", torch.empty(0)))
        for kind, optional in (("weight", []), ("bias", without)):
            parts, joint = [f"{attn}{part}.{kind}" for part in "qkv"], f"{attn}qkv.{kind}"
            if joint not in state and all(
                    name in state or name.split(".")[3] in optional for name in parts):
                state[joint] = torch.cat([state.pop(name, zero) for name in parts])
        if rotary and state[f"{attn}qkv.bias"].chunk(3)[1].any():
            raise RuntimeError(f"{attn}qkv.bias: of keys, which DINOv3 has not")
    if "pos_embed" in state and grid(state["pos_embed"], others=0):
        state["pos_embed"] = F.pad(state["pos_embed"], (0, 0, 1, 0))  # the class token has its own


# -- files ----------------------------------------------------------------------------------------

def read_file(path):
    """What a weight file holds, tensors by the file's names; nothing in it is executed."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    with open(path, "rb") as file:
        start = file.read(64)
    if start.lstrip().startswith(b"<"):
        raise ValueError(f"{path}: a web page, not weights: was a login or an error saved?")
    if re.search(r"-\d{5}-of-\d{5}\.|\.index\.json$", path.name):
        raise ValueError(f"{path}: one part of a model in several files, which is not supported: "
                         "merge them into one first")
    npz = is_npz(path)
    if not npz and path.suffix != ".safetensors" and start[8:9] != b"{":
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
        raise ValueError(f"{path}: not a readable {'.npz' if npz else '.safetensors'} file of "
                         f"plain arrays ({first_line(error)})") from None


def is_npz(path):
    """Whether the file is a zip of `.npy` arrays; torch's files are zips too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return path.suffix == ".npz"


def read_npz(path):
    """The arrays of Google's `.npz` as tensors in PyTorch's order; never unpickles."""
    state = {}
    with np.load(path, allow_pickle=False) as archive:
        for name, array in archive.items():
            if name.endswith("bias"):
                array = array.reshape(-1)  # heads are an axis of their own, in kernels too
            elif name.endswith("kernel") and array.ndim == 4:
                array = array.transpose(3, 2, 0, 1)  # (H, W, in, out) of the convolution
            elif name.endswith("kernel"):  # (in, out), where one of them may be (heads, D / heads)
                ins = array.shape[:-1] if "/out/" in name else array.shape[:1]
                array = array.reshape(math.prod(ins), -1).T
            state[name] = torch.from_numpy(np.ascontiguousarray(array))
    return state
