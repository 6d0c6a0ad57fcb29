"""Official weights in their own layouts -> our state dict, loaded strictly.

Each layout is a pure function from the file's arrays to our names; `load_pretrained` then insists
that every parameter of the model but the head is there with its shape.
"""

import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models.checkpoint import read_torch
from models.vit import ARCHITECTURES

# In the file but not in our encoder: the old classifier, the masked-image token, and the layer
# between class token and classifier of some ImageNet-21k files. All else unexpected is an error.
NOT_ENCODER = re.compile(r"(head|head_dist|pre_logits|dino_head|ibot_head)\.|mask_token$")


@dataclass
class LoadReport:
    """What `load_pretrained` did with each tensor.

    Attributes
    ----------
    loaded : list of str
        Parameters of the model taken from the file (resized ones included).
    resized : dict of str -> (tuple, tuple)
        Shape in the file and shape in the model.
    skipped : list of str
        Tensors of the file that the encoder has no use for.
    missing : list of str
        Parameters of the model that keep their random values: the head's, or none.
    """

    loaded: list
    resized: dict
    skipped: list
    missing: list

    def __str__(self):
        resized = [f"{name} {list(old)} -> {list(new)}"
                   for name, (old, new) in self.resized.items()]
        return (f"{len(self.loaded)} tensors loaded; resized: {', '.join(resized) or 'none'}; "
                f"skipped: {', '.join(self.skipped) or 'none'}; "
                f"new: {', '.join(self.missing) or 'none'}")


def load_pretrained(model, init, path):
    """Fill a model's encoder from a weight file; the head stays as it is.

    Parameters
    ----------
    model : VisionTransformer
        Built with the file's patch size, and with `layer_scale=True` for DINOv2.
    init : {"dinov2", "imagenet", "mimic"}
        `dinov2`: Meta's `dinov2_vit*14_pretrain.pth`. `imagenet`: Google's AugReg `.npz`, or the
        same weights as a timm or torchvision state dict. `mimic`: a checkpoint of this project.
    path : path-like

    Returns
    -------
    LoadReport

    Raises
    ------
    FileNotFoundError, ValueError
        The file is absent, unreadable or unsafe, or a tensor other than the head's is missing,
        unexpected, of the wrong shape or not finite. The model is then unchanged.

    Notes
    -----
    The position embedding is resized once, here: for `dinov2` as DINOv2's own hub model does at run
    time (bicubic, scale factor (new + 0.1) / old, no antialiasing); for Google's `.npz` as timm's
    loader of these files does (bilinear, no antialiasing); for state dicts as timm does (bicubic,
    antialiased).
    """
    if init not in ("dinov2", "imagenet", "mimic"):
        raise ValueError(f"unknown init {init!r}, expected dinov2, imagenet or mimic")
    path = Path(path)
    if is_npz(path):
        tensors, resize = from_augreg(read_npz(path), path), resize_as_augreg
    else:
        tensors = from_torch(read_torch(path), path)
        resize = resize_as_dinov2 if init == "dinov2" else resize_as_timm

    state, resized = {}, {}
    own = model.state_dict()
    skipped = sorted(name for name in tensors if NOT_ENCODER.match(name))
    problems = []
    for name, value in tensors.items():
        if name in skipped:
            continue
        if name not in own:
            problems.append(f"unexpected {name} {list(value.shape)}")
            continue
        value = value.float()
        wrong_shape = value.shape != own[name].shape
        if name == "pos_embed" and wrong_shape and can_resize(value, own[name]):
            resized[name] = (tuple(value.shape), tuple(own[name].shape))
            value = resize(value, math.isqrt(own[name].shape[1] - 1))
        if value.shape != own[name].shape:
            problems.append(f"{name} is {list(value.shape)}, expected {list(own[name].shape)}")
        elif not torch.isfinite(value).all():
            problems.append(f"{name} has values that are not finite")
        state[name] = value
    missing = [name for name in own if name not in state]
    problems += [f"missing {name} {list(own[name].shape)}" for name in missing
                 if not name.startswith("head.")]
    if problems:
        more = f"; and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise ValueError(f"{path}: not the weights of this model ({init}): "
                         f"{'; '.join(problems[:6])}{more}{looks_like(tensors)}")

    model.load_state_dict(state | {name: own[name] for name in missing}, strict=True)
    return LoadReport(loaded=list(state), resized=resized, skipped=skipped, missing=missing)


def looks_like(tensors):
    """What a file of weights seems to be, for the message of an error."""
    if "cls_token" not in tensors or "patch_embed.proj.weight" not in tensors:
        return ""
    shape = dict(embed_dim=tensors["cls_token"].shape[-1],
                 depth=len({name.split(".")[1] for name in tensors if name.startswith("blocks.")}))
    arch = next((arch for arch, known in ARCHITECTURES.items() if shape.items() <= known.items()),
                f"a transformer of width {shape['embed_dim']} and {shape['depth']} blocks")
    patch = tensors["patch_embed.proj.weight"].shape[-1]
    family = " of DINOv2 (--init dinov2)" if "blocks.0.ls1.gamma" in tensors else ""
    return f". It looks like {arch} with patches of {patch}{family}"


# -- position embedding ---------------------------------------------------------------------------

def can_resize(old, new):
    """Whether both are (1, 1 + n * n, D): a class token and a square grid."""
    def square(t):
        patches = t.shape[1] - 1 if t.ndim == 3 else 0
        return patches > 0 and math.isqrt(patches) ** 2 == patches
    return square(old) and square(new) and old.shape[2] == new.shape[2]


def resize_grid(pos_embed, **how):
    """Interpolate the grid of (1, 1 + n * n, D) positions; the class token's stays."""
    old = math.isqrt(pos_embed.shape[1] - 1)
    cls, grid = pos_embed[:, :1], pos_embed[:, 1:].unflatten(1, (old, old))
    grid = grid.permute(0, 3, 1, 2)  # (1, D, old, old)
    grid = F.interpolate(grid, align_corners=False, **how)
    return torch.cat([cls, grid.flatten(2).transpose(1, 2)], dim=1)


def resize_as_dinov2(pos_embed, new):
    """DINOv2's `interpolate_pos_encoding`; its 0.1 moves the sample points."""
    old = math.isqrt(pos_embed.shape[1] - 1)
    return resize_grid(pos_embed, scale_factor=((new + 0.1) / old,) * 2, mode="bicubic")


def resize_as_augreg(pos_embed, new):
    """As timm reads Google's files."""
    return resize_grid(pos_embed, size=(new, new), mode="bilinear")


def resize_as_timm(pos_embed, new):
    """As timm resizes a state dict."""
    return resize_grid(pos_embed, size=(new, new), mode="bicubic", antialias=True)


# -- layouts --------------------------------------------------------------------------------------

def from_augreg(arrays, path):
    """Google's AugReg names (Steiner et al. 2022, arXiv:2106.10270) -> ours.

    JAX keeps a linear kernel as (in, out), a convolution as (H, W, in, out), and the heads as an
    axis of their own.
    """
    if "embedding/kernel" not in arrays or "Transformer/encoder_norm/scale" not in arrays:
        raise ValueError(f"{path}: not Google's ViT layout "
                         "(no embedding/kernel or Transformer/encoder_norm)")
    state = {
        "cls_token": arrays["cls"],
        "pos_embed": arrays["Transformer/posembed_input/pos_embedding"],
        "patch_embed.proj.weight": arrays["embedding/kernel"].transpose(3, 2, 0, 1),
        "patch_embed.proj.bias": arrays["embedding/bias"],
        "norm.weight": arrays["Transformer/encoder_norm/scale"],
        "norm.bias": arrays["Transformer/encoder_norm/bias"],
    }
    blocks = {name.split("/")[1] for name in arrays if "/encoderblock_" in name}
    for n in range(len(blocks)):
        theirs, ours = f"Transformer/encoderblock_{n}/", f"blocks.{n}."
        attention = theirs + "MultiHeadDotProductAttention_1/"
        dim = arrays["embedding/bias"].shape[0]
        qkv = ("query", "key", "value")
        state[ours + "attn.qkv.weight"] = np.concatenate(  # each (dim, heads, dim/heads)
            [arrays[f"{attention}{part}/kernel"].reshape(dim, dim).T for part in qkv])
        state[ours + "attn.qkv.bias"] = np.concatenate(
            [arrays[f"{attention}{part}/bias"].reshape(dim) for part in qkv])
        out = arrays[attention + "out/kernel"]  # (heads, dim/heads, dim)
        state[ours + "attn.proj.weight"] = out.reshape(dim, dim).T
        state[ours + "attn.proj.bias"] = arrays[attention + "out/bias"]
        for norm, layer in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            state[f"{ours}{norm}.weight"] = arrays[f"{theirs}{layer}/scale"]
            state[f"{ours}{norm}.bias"] = arrays[f"{theirs}{layer}/bias"]
        for fc, layer in (("fc1", "MlpBlock_3/Dense_0"), ("fc2", "MlpBlock_3/Dense_1")):
            state[f"{ours}mlp.{fc}.weight"] = arrays[f"{theirs}{layer}/kernel"].T
            state[f"{ours}mlp.{fc}.bias"] = arrays[f"{theirs}{layer}/bias"]
    for name in arrays:  # the 21,843-way classifier; never used, but reported
        if name.startswith(("head/", "pre_logits/")):
            state[name.replace("/kernel", ".weight").replace("/bias", ".bias")] = arrays[name]
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in state.items()}


TORCHVISION_NAMES = (  # applied in order
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


def from_torch(content, path):
    """Every PyTorch layout we know -> our names.

    DINOv2's release and timm's use our names. DINOv2's and DINO's training checkpoints keep the
    encoder in `teacher` under `backbone.`, with the blocks in chunks (`blocks.0.3.` for block 3);
    timm, DeiT and this project keep it in `model` or `state_dict`; DataParallel prefixes `module.`;
    torchvision has names of its own.
    """
    for wrapper in ("model", "state_dict", "teacher"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(
            isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError(f"{path}: not a state dict (found {type(content).__name__}, expected "
                         "names and tensors)")
    state = {re.sub(r"^(module\.)?(backbone\.)?", "", name): value
             for name, value in content.items()}
    if any(name.startswith(("register_tokens", "reg_token")) for name in state):
        raise ValueError(f"{path}: a DINOv2 model with registers; use the file without "
                         "(dinov2_vit*14_pretrain.pth)")
    if "class_token" in state:
        for pattern, ours in TORCHVISION_NAMES:
            state = {re.sub(pattern, ours, name): value for name, value in state.items()}
    return {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): value
            for name, value in state.items()}


# -- files ----------------------------------------------------------------------------------------

def is_npz(path):
    """Whether the file is a zip of `.npy` arrays; torch's files are zips too."""
    if path.suffix == ".npz":
        return True
    try:
        with zipfile.ZipFile(path) as archive:
            return all(name.endswith(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        return False


def read_npz(path):
    """All arrays of an `.npz`; never unpickles."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such weight file") from None
    except Exception as error:  # a damaged file can make the reader stumble in any way at all
        raise ValueError(f"{path}: not a readable .npz of plain arrays ({first_line(error)})"
                         ) from None


def first_line(error):
    """The first line of an exception's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
