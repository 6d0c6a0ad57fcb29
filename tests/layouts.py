"""Random weights in the layouts of the official files, for any size of the family."""

import numpy as np
import torch

SIZES = {"vit_tiny": (192, 12, 3), "vit_small": (384, 12, 6), "vit_base": (768, 12, 12)}


def relative(a, b):
    """The relative norm of a difference."""
    return ((a - b).norm() / b.norm()).item()


def randomize(model, seed=0):
    """Random parameters of which all matter, and eval mode."""
    g = torch.Generator().manual_seed(seed)
    for name, value in model.named_parameters():
        center = {"norm": 1.0, "lambda1": 0.3, "gamma_1": 0.3, "gamma_2": 0.3}
        shift = next((at for part, at in center.items() if part in name), 0.0)
        shift = 0.0 if name.endswith("bias") else shift
        value.data = torch.randn(value.shape, generator=g) * 0.1 + shift
    return model.eval()


def dinov2_state(arch="vit_tiny", seed=0, grid=37, patch=14):
    """As `dinov2_vit*14_pretrain.pth`: trained at 518 px, LayerScale, a mask token, no head."""
    dim, depth, _ = SIZES.get(arch, arch)  # or a (dim, depth, heads) of its own
    g = torch.Generator().manual_seed(seed)

    def draw(*shape, scale=0.05, shift=0.0):
        return torch.randn(*shape, generator=g) * scale + shift

    state = {"cls_token": draw(1, 1, dim), "pos_embed": draw(1, 1 + grid**2, dim, scale=0.5),
             "mask_token": draw(1, dim), "patch_embed.proj.weight": draw(dim, 3, patch, patch),
             "patch_embed.proj.bias": draw(dim)}
    for n in range(depth):
        for name, shape in {
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "mlp.fc1": (4 * dim, dim),
            "mlp.fc2": (dim, 4 * dim),
        }.items():
            state[f"blocks.{n}.{name}.weight"], state[f"blocks.{n}.{name}.bias"] = (
                draw(*shape),
                draw(shape[0]),
            )
        for norm in ("norm1", "norm2"):
            state[f"blocks.{n}.{norm}.weight"], state[f"blocks.{n}.{norm}.bias"] = (
                draw(dim, shift=1.0),
                draw(dim),
            )
        state[f"blocks.{n}.ls1.gamma"], state[f"blocks.{n}.ls2.gamma"] = (
            draw(dim, shift=0.3),
            draw(dim, shift=0.3),
        )
    state["norm.weight"], state["norm.bias"] = draw(dim, shift=1.0), draw(dim)
    return state


def augreg_arrays(arch="vit_tiny", seed=0, grid=14, patch=16, classes=21843):
    """As Google's AugReg ImageNet-21k `.npz`."""
    dim, depth, heads = SIZES[arch]
    rng = np.random.default_rng(seed)

    def draw(*shape, shift=0.0):
        return (rng.standard_normal(shape, dtype=np.float32) * 0.05 + shift).astype(np.float32)

    arrays = {
        "cls": draw(1, 1, dim),
        "embedding/kernel": draw(patch, patch, 3, dim),
        "embedding/bias": draw(dim),
        "Transformer/posembed_input/pos_embedding": draw(1, 1 + grid**2, dim),
        "Transformer/encoder_norm/scale": draw(dim, shift=1),
        "Transformer/encoder_norm/bias": draw(dim),
        "head/kernel": draw(dim, classes),
        "head/bias": draw(classes),
    }
    for n in range(depth):
        block = f"Transformer/encoderblock_{n}/"
        for part in ("query", "key", "value"):
            arrays[f"{block}MultiHeadDotProductAttention_1/{part}/kernel"] = draw(
                dim, heads, dim // heads
            )
            arrays[f"{block}MultiHeadDotProductAttention_1/{part}/bias"] = draw(heads, dim // heads)
        arrays[f"{block}MultiHeadDotProductAttention_1/out/kernel"] = draw(heads, dim // heads, dim)
        arrays[f"{block}MultiHeadDotProductAttention_1/out/bias"] = draw(dim)
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            arrays[f"{block}{norm}/scale"], arrays[f"{block}{norm}/bias"] = (
                draw(dim, shift=1),
                draw(dim),
            )
        arrays[f"{block}MlpBlock_3/Dense_0/kernel"] = draw(dim, 4 * dim)
        arrays[f"{block}MlpBlock_3/Dense_0/bias"] = draw(4 * dim)
        arrays[f"{block}MlpBlock_3/Dense_1/kernel"] = draw(4 * dim, dim)
        arrays[f"{block}MlpBlock_3/Dense_1/bias"] = draw(dim)
    return arrays
