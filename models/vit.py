"""The vision transformer of Dosovitskiy et al. 2021 (arXiv:2010.11929), with what later ones added:
LayerScale, registers (Darcet et al. 2023, arXiv:2309.16588), and the rotary positions of DINOv3
(Simeoni et al. 2025, arXiv:2508.10104). Parameters are named as DINOv2 and timm name them.

Shapes: B images, T tokens (class token, registers, N patches, in this order) of D channels.
"""

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

Rotation = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each (N, D / heads)

ARCHITECTURES: dict[str, dict[str, int]] = {
    # ours, for the demo and tests: learns synthetic radiographs on a laptop in a minute
    "vit_micro": {"embed_dim": 128, "depth": 4, "num_heads": 4},
    "vit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "vit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "vit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "vit_large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}

# What may compute the attention of one query: not cuDNN, which PyTorch prefers from Hopper on. With
# one query and strongly negative logits its backward pass gives NaN for keys and values (cuDNN
# 9.26; https://github.com/NVIDIA/cudnn-frontend/issues/1072).
FEW_QUERIES = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


class PatchEmbed(nn.Module):
    """Non-overlapping patches as vectors: a linear map of each patch's pixels."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, H, W) to patches (B, N, D)."""
        grid = self.proj(images)  # (B, D, H / P, W / P)
        return grid.flatten(2).transpose(1, 2)


class RotaryPositions(nn.Module):
    """The angles by which DINOv3 turns queries and keys, from rows and columns."""

    periods: torch.Tensor  # (head_dim / 4,)

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        # a buffer of the state dict, since Meta's files hold it rounded to bfloat16
        self.register_buffer("periods", 100.0 ** (torch.arange(head_dim // 4) * 4 / head_dim))

    def forward(self, side: int) -> Rotation:
        """Cosines and sines, each (side * side, head_dim), of a square grid of patches."""
        centers = torch.arange(0.5, side, device=self.periods.device) / side * 2 - 1  # in [-1, 1]
        yx = torch.cartesian_prod(centers, centers)  # (N, 2)
        angles = 2 * math.pi * yx[:, :, None] / self.periods  # (N, 2, head_dim / 4)
        angles = angles.flatten(1).tile(2)  # (N, head_dim)
        return angles.cos(), angles.sin()


def rotate(x: torch.Tensor, rope: Rotation) -> torch.Tensor:
    """Turn the last tokens of queries or keys (B, heads, T, d), which are the patches."""
    cos, sin = rope
    n_patches = len(cos)
    others, patches = x.split([x.shape[2] - n_patches, n_patches], dim=2)
    a, b = patches.chunk(2, dim=-1)
    turned = patches * cos + torch.cat([-b, a], dim=-1) * sin
    return torch.cat([others, turned.to(x.dtype)], dim=2)


class KeysWithoutBias(nn.Linear):
    """DINOv3's layer for queries, keys and values: the bias of the keys is always zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, D) to (B, T, 3 * D)."""
        query, key, value = self.bias.chunk(3)
        return F.linear(x, self.weight, torch.cat([query, key * 0, value]))


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, num_heads: int, rotary: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        linear = KeysWithoutBias if rotary else nn.Linear
        self.qkv = linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def split_heads(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, D) to (B, heads, T, D / heads)."""
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def project(self, x: torch.Tensor, rope: Rotation | None = None,
                ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Tokens (B, T, D) to queries, keys and values, each (B, heads, T, D / heads)."""
        # `chunk`, since the gradient of `unbind` is stacked and then copied once more: 7 GB per
        # step of ViT-B/14 at batch 256 in bf16 (counted on a pretended H100).
        q, k, v = self.qkv(x).chunk(3, dim=2)  # each (B, T, D)
        q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        return q, k, v

    def forward(self, x: torch.Tensor, first: int | None = None, rope: Rotation | None = None,
                ) -> torch.Tensor:
        """Tokens (B, T, D) to (B, T, D); with `first`, only so many of the first attend, to all."""
        q, k, v = self.project(x, rope)
        if first is None or not x.is_cuda:
            out = F.scaled_dot_product_attention(q[:, :, :first], k, v)
        else:
            with sdpa_kernel(FEW_QUERIES):
                out = F.scaled_dot_product_attention(q[:, :, :first], k, v)
        return self.proj(out.transpose(1, 2).flatten(2))  # heads side by side again


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, D) to (B, T, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Multiplies each channel of a residual branch by a learned factor (Touvron et al. 2021)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, D) to (B, T, D)."""
        return branch * self.gamma


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and added to its input."""

    def __init__(self, dim: int, num_heads: int, layer_scale: bool, rotary: bool = False,
                 norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, rotary)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, 4 * dim)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()

    def forward(self, x: torch.Tensor, first: int | None = None, rope: Rotation | None = None,
                ) -> torch.Tensor:
        """Tokens (B, T, D) to (B, T, D), or to (B, first, D): those alone, which attend to all."""
        # With LayerScale `torch.addcmul` would be one kernel for product and sum, but autocast
        # casts all it is given to float32, and autograd keeps that copy: ViT-B/14 at batch 256 in
        # bf16 moved 235 GB per step and took 25.0 GiB, and moves 223 GB and takes 22.9 GiB like
        # this (counted on a pretended H100).
        x = x[:, :first] + self.ls1(self.attn(self.norm1(x), first, rope))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """A ViT with a class token and pre-normalization.

    Parameters
    ----------
    img_size, patch_size : int
        Sides of the square input and of a patch in pixels; the one is a multiple of the other.
    embed_dim, depth, num_heads : int
        Width, number of blocks, and attention heads in each.
    num_classes : int
        Outputs of the linear head; 0 leaves the head out and `forward` returns the features.
    layer_scale : bool
        Whether each residual branch is scaled by a learned vector, as in DINOv2.
    registers : int
        Tokens beside the class token that are no patch, as in DINOv2 with registers.
    rotary : bool
        Whether positions turn queries and keys, as in DINOv3, or are added to the tokens.
    norm_eps : float

    Attributes
    ----------
    config : dict
        The arguments above, enough to build the model again.
    side : int
        Patches along a side of the image.
    """

    def __init__(self, img_size: int = 224, patch_size: int = 16, embed_dim: int = 768,
                 depth: int = 12, num_heads: int = 12, num_classes: int = 0,
                 layer_scale: bool = False, registers: int = 0, rotary: bool = False,
                 norm_eps: float = 1e-6) -> None:
        super().__init__()
        if img_size < patch_size or img_size % patch_size:
            below = max(1, img_size // patch_size) * patch_size
            raise ValueError(f"--image-size {img_size}: expected a multiple of the patch size "
                             f"{patch_size}, such as {below} or {below + patch_size}")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        self.config: dict[str, Any] = {
            "img_size": img_size, "patch_size": patch_size, "embed_dim": embed_dim, "depth": depth,
            "num_heads": num_heads, "num_classes": num_classes, "layer_scale": layer_scale,
            "registers": registers, "rotary": rotary, "norm_eps": norm_eps}
        self.side = img_size // patch_size

        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.reg_token: nn.Parameter | None = None
        if registers:
            self.reg_token = nn.Parameter(torch.zeros(1, registers, embed_dim))
        self.pos_embed: nn.Parameter | None = None  # of the class token and the patches
        self.rope: RotaryPositions | None = None
        if rotary:
            self.rope = RotaryPositions(embed_dim // num_heads)
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.side**2, embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, layer_scale, rotary, norm_eps)
                                    for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.head: nn.Module = nn.Identity()
        if num_classes:
            self.head = nn.Linear(embed_dim, num_classes)
        self.init_weights()

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew, as ViT and DINOv2 start: normals of SD 0.02, zero biases."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02, generator=generator)
        nn.init.normal_(self.cls_token, std=1e-6, generator=generator)
        if self.reg_token is not None:
            nn.init.normal_(self.reg_token, std=1e-6, generator=generator)

    def encode(self, images: torch.Tensor) -> tuple[torch.Tensor, Rotation | None]:
        """Tokens after all blocks but the last (B, T, D), and the rotation of the last one."""
        size = self.config["img_size"]
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"images {tuple(images.shape)}, expected (B, 3, {size}, {size})")
        x = self.patch_embed(images)  # (B, N, D)
        # A token loses its first dimension before it is repeated: else the gradient of a single
        # image is a view into that of all tokens, and DDP warns of its strides.
        class_tokens = self.cls_token.squeeze(0).expand(len(x), -1, -1)  # (B, 1, D)
        x = torch.cat([class_tokens, x], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        if self.reg_token is not None:  # they have no position
            registers = self.reg_token.squeeze(0).expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
        rope = None
        if self.rope is not None:
            rope = self.rope(self.side)
        for block in self.blocks[:-1]:
            x = block(x, rope=rope)
        return x, rope

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """The normalized class token (B, D) of images (B, 3, img_size, img_size)."""
        return self.tokens(images, first=1)[:, 0]  # all that the head reads: 6 % less work

    def tokens(self, images: torch.Tensor, first: int | None = None) -> torch.Tensor:
        """All tokens (B, T, D), or the `first` of them, normalized; the patches are the last."""
        x, rope = self.encode(images)
        return self.norm(self.blocks[-1](x, first, rope))

    def attention(self, images: torch.Tensor) -> torch.Tensor:
        """How the last block's class token attends to the patches (B, heads, N), for pictures."""
        x, rope = self.encode(images)
        block = cast(Block, self.blocks[-1])
        q, k, _ = block.attn.project(block.norm1(x), rope)
        class_query = q[:, :, :1]  # (B, heads, 1, D / heads)
        scores = class_query @ k.transpose(2, 3) * q.shape[-1] ** -0.5  # (B, heads, 1, T)
        return scores.softmax(dim=-1)[:, :, 0, -self.side**2:]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, shape (B, num_classes), of images (B, 3, img_size, img_size)."""
        return self.head(self.forward_features(images))


def build(config: Mapping[str, Any], seed: int = 0) -> VisionTransformer:
    """The model of a config, its random weights from the seed alone."""
    # Layers draw random weights when they are constructed; the caller's generator keeps its state.
    with torch.random.fork_rng(devices=[]):
        model = VisionTransformer(**config)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def create_model(arch: str, patch_size: int = 16, num_classes: int = 0, *, img_size: int = 224,
                 seed: int = 0, **shape: Any) -> VisionTransformer:
    """Build a `VisionTransformer` of a named size (`ARCHITECTURES`) with reproducible weights.

    Parameters
    ----------
    arch : {"vit_micro", "vit_tiny", "vit_small", "vit_base", "vit_large"}
    patch_size, num_classes, img_size, **shape
        As in `VisionTransformer`.
    seed : int
        Fixes the random weights; the global random state is not read.
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}, expected one of "
                         f"{', '.join(ARCHITECTURES)}")
    config = {**ARCHITECTURES[arch], "img_size": img_size, "patch_size": patch_size,
              "num_classes": num_classes, **shape}
    return build(config, seed)
