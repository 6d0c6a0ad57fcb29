"""The vision transformer of Dosovitskiy et al. 2021 (arXiv:2010.11929), with optional LayerScale.

Parameters are named as DINOv2 (Oquab et al. 2023, arXiv:2304.07193) and timm name them, so that
the official DINOv2 file loads without renaming.
"""

import torch
import torch.nn.functional as F
from torch import nn

ARCHITECTURES = {
    # ours, for the demo and tests: learns synthetic radiographs on a laptop in a minute
    "vit_micro": dict(embed_dim=128, depth=4, num_heads=4),
    "vit_tiny": dict(embed_dim=192, depth=12, num_heads=3),
    "vit_small": dict(embed_dim=384, depth=12, num_heads=6),
    "vit_base": dict(embed_dim=768, depth=12, num_heads=12),
    "vit_large": dict(embed_dim=1024, depth=24, num_heads=16),
}


class PatchEmbed(nn.Module):
    """Non-overlapping patches as vectors: a linear map of each patch's pixels."""

    def __init__(self, patch_size, embed_dim):
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images):
        """Images (B, 3, H, W) to patches (B, N, D)."""
        return self.proj(images).flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, first=None):
        """Tokens (B, T, D) to (B, T, D); with `first`, the queries of that many alone."""
        B, T, D = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.num_heads, D // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, D/heads)
        x = F.scaled_dot_product_attention(q[:, :, :first], k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x):
        """Tokens (B, T, D) to (B, T, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Adds a residual branch, each channel times a learned factor (Touvron et al. 2021)."""

    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x, branch):
        """Both (B, T, D)."""
        return torch.addcmul(x, branch, self.gamma)  # one kernel, and no copy of the product


class Residual(nn.Module):
    """Adds a residual branch."""

    def forward(self, x, branch):
        """Both (B, T, D)."""
        return x + branch


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and added to its input."""

    def __init__(self, dim, num_heads, layer_scale):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.ls1 = LayerScale(dim) if layer_scale else Residual()
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, 4 * dim)
        self.ls2 = LayerScale(dim) if layer_scale else Residual()

    def forward(self, x, first=None):
        """Tokens (B, T, D) to (B, T, D), or to (B, first, D): those alone, which attend to all."""
        x = self.ls1(x[:, :first], self.attn(self.norm1(x), first))
        return self.ls2(x, self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """A ViT with a class token, learned positions and pre-normalization.

    Parameters
    ----------
    img_size : int
        Side of the square input in pixels; a multiple of `patch_size`.
    patch_size : int
        Side of a patch in pixels: 16 for ImageNet-21k, 14 for DINOv2.
    embed_dim, depth, num_heads : int
        Width, number of blocks, and attention heads in each.
    num_classes : int
        Outputs of the linear head; 0 leaves the head out and `forward` returns the features.
    layer_scale : bool
        Whether each residual branch is scaled by a learned vector, as in DINOv2.

    Attributes
    ----------
    config : dict
        The arguments above, enough to build the model again.
    """

    def __init__(self, img_size=224, patch_size=16, embed_dim=768, depth=12, num_heads=12,
                 num_classes=0, layer_scale=False):
        super().__init__()
        if img_size < patch_size or img_size % patch_size:
            below = max(1, img_size // patch_size) * patch_size
            raise ValueError(f"--image-size {img_size}: expected a multiple of the patch size "
                             f"{patch_size}, such as {below} or {below + patch_size}")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        self.config = dict(img_size=img_size, patch_size=patch_size, embed_dim=embed_dim,
                           depth=depth, num_heads=num_heads, num_classes=num_classes,
                           layer_scale=layer_scale)
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (img_size // patch_size) ** 2, embed_dim))
        self.blocks = nn.ModuleList(Block(embed_dim, num_heads, layer_scale) for _ in range(depth))
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()
        self.init_weights()

    def init_weights(self, generator=None):
        """Draw the weights anew, as ViT and DINOv2 start: normals of SD 0.02, zero biases.

        Parameters
        ----------
        generator : torch.Generator, optional
            Where the randomness comes from.
        """
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(module.weight, std=0.02, generator=generator)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02, generator=generator)
        nn.init.normal_(self.cls_token, std=1e-6, generator=generator)

    def forward_features(self, images):
        """The normalized class token.

        Parameters
        ----------
        images : Tensor, shape (B, 3, img_size, img_size), float

        Returns
        -------
        Tensor, shape (B, embed_dim)
        """
        size = self.config["img_size"]
        if images.shape[1:] != (3, size, size):
            raise ValueError(f"images of shape {tuple(images.shape)}, "
                             f"expected (B, 3, {size}, {size})")
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + patches, D)
        x = x + self.pos_embed
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](x, first=1)  # the head reads the class token alone: 6 % less work
        return self.norm(x[:, 0])

    def forward(self, images):
        """Logits, shape (B, num_classes), of images (B, 3, img_size, img_size)."""
        return self.head(self.forward_features(images))


def create_model(arch, patch_size=16, num_classes=0, *, img_size=224, layer_scale=False, seed=0):
    """Build a `VisionTransformer` of a named size with reproducible random weights.

    Parameters
    ----------
    arch : {"vit_micro", "vit_tiny", "vit_small", "vit_base", "vit_large"}
    patch_size, num_classes, img_size, layer_scale
        As in `VisionTransformer`.
    seed : int
        Fixes the random weights; the global random state is not read.

    Returns
    -------
    VisionTransformer
    """
    if arch not in ARCHITECTURES:
        raise ValueError(f"unknown architecture {arch!r}, expected one of "
                         f"{', '.join(ARCHITECTURES)}")
    with torch.random.fork_rng(devices=[]):  # layers draw when constructed: not from the caller's
        model = VisionTransformer(img_size=img_size, patch_size=patch_size, num_classes=num_classes,
                                  layer_scale=layer_scale, **ARCHITECTURES[arch])
    model.init_weights(torch.Generator().manual_seed(seed))
    return model
