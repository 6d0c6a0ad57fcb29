"""What a run can start from: one `InitSpec` per init (no torch: a command line lists them at once).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Channels = tuple[float, float, float]  # one number for each of the three input channels

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)  # of ImageNet's pixels in [0, 1]
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)
META = "https://dl.fbaipublicfiles.com/"


@dataclass(frozen=True)
class WeightFile:
    """A published weight file."""

    url: str
    sha256: str | None = None  # or its first digits; None where nobody has published it

    @property
    def name(self) -> str:
        """The file's own name, which it has in `weights/` too."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class InitSpec:
    """One initialization."""

    name: str  # as --init takes it
    title: str  # as tables print it
    reference: str  # who made it
    license: str = ""
    gated: str | None = None  # the page where the license is accepted before a file can be had
    files: Mapping[str, WeightFile] = field(default_factory=dict)  # by architecture
    shape: Mapping[str, Any] = field(default_factory=dict)  # arguments of `VisionTransformer`
    mean: Channels | None = None  # what pretraining subtracted from channels in [0, 1]
    std: Channels | None = None  # what it then divided them by
    native: int | None = None  # side in pixels of the images that its positions were trained at
    resize: str | None = "antialias"  # how positions are resized: a key of `models.weights.RESIZE`
    pretrained_on: tuple[str, ...] = ()  # image collections; a corpus by its name in --data
    in_paper: bool = False  # whether Tayebi Arasteh et al. 2024 compare it

    def is_paper(self, arch: str, sha256: str | None) -> bool:
        """Whether weights with this hash are an arm of the paper.

        Where no hash of the init's file is public, every file counts as the init's own.
        """
        if not self.in_paper or arch != "vit_base":
            return False
        if arch not in self.files or self.files[arch].sha256 is None:
            return True
        return sha256 == self.files[arch].sha256


def weight_files(url: str, **names: str | tuple[str, str]) -> dict[str, WeightFile]:
    """Files by architecture, from what `{}` stands for in their URL, alone or with a sha256."""
    files = {}
    for size, known in names.items():
        name, sha256 = (known, None) if isinstance(known, str) else known
        files[f"vit_{size}"] = WeightFile(url.replace("{}", name), sha256)
    return files


DINOV2 = InitSpec(
    name="dinov2",
    title="DINOv2",
    reference="Oquab et al. 2023",
    license="Apache 2.0",
    files=weight_files(
        META + "dinov2/dinov2_{}14/dinov2_{}14_pretrain.pth",
        small=("vits", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
        base=("vitb", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
        large=("vitl", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428")),
    shape={"patch_size": 14, "layer_scale": True},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    native=518,
    resize="offset",
    pretrained_on=("LVD-142M",),
    in_paper=True)

IMAGENET_21K = InitSpec(
    name="imagenet",
    title="ImageNet-21k",
    reference="Steiner et al. 2022",
    license="Apache 2.0",
    files=weight_files(
        "https://storage.googleapis.com/vit_models/augreg/{}.npz",
        tiny="Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0",
        small="S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0",
        base="B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0",
        large="L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1"),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    native=224,
    pretrained_on=("ImageNet-21k",),
    in_paper=True)

MIMIC = InitSpec(
    name="mimic",
    title="MIMIC-CXR",
    reference="`pretrain_mimic.py`",
    license="your own",
    pretrained_on=("ImageNet-21k", "mimic"),
    in_paper=True)

RANDOM = InitSpec(
    name="random",
    title="random weights",
    reference="no pretraining",
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25))

DINOV2_REGISTERS = InitSpec(
    name="dinov2-reg",
    title="DINOv2 with registers",
    reference="Darcet et al. 2023",
    license="Apache 2.0",
    files=weight_files(
        META + "dinov2/dinov2_{}14/dinov2_{}14_reg4_pretrain.pth",
        small=("vits", "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb"),
        base=("vitb", "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71"),
        large=("vitl", "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51")),
    shape={"patch_size": 14, "layer_scale": True, "registers": 4},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    native=518,
    pretrained_on=("LVD-142M",))

DINOV3 = InitSpec(
    name="dinov3",
    title="DINOv3",
    reference="Simeoni et al. 2025",
    license="DINOv3 License",
    gated="https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/",
    files=weight_files(
        META + "dinov3/dinov3_{}.pth",
        small=("vits16/dinov3_vits16_pretrain_lvd1689m-08c60483", "08c60483"),
        base=("vitb16/dinov3_vitb16_pretrain_lvd1689m-73cec8be", "73cec8be"),
        large=("vitl16/dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd", "8aa4cbdd")),
    shape={"layer_scale": True, "registers": 4, "rotary": True, "norm_eps": 1e-5},
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    native=256,
    resize=None,  # rotary positions have no tensor to resize
    pretrained_on=("LVD-1689M",))

RAD_DINO = InitSpec(
    name="rad-dino",
    title="RAD-DINO",
    reference="Perez-Garcia et al. 2024",
    license="MIT",
    files=weight_files(
        "https://huggingface.co/microsoft/rad-dino/resolve/main/{}.safetensors",
        base=("backbone_compatible",
              "1eac0464b2a00d368aa3eea1dc029964b10320fbabc59a8a4e768c43a23d26f4")),
    shape={"patch_size": 14, "layer_scale": True},
    mean=(0.5307, 0.5307, 0.5307),
    std=(0.2583, 0.2583, 0.2583),
    native=518,
    resize="offset",
    pretrained_on=("LVD-142M", "mimic", "chexpert", "cxr14", "padchest", "brax"))

MAE = InitSpec(
    name="mae",
    title="MAE",
    reference="He et al. 2022",
    license="CC BY-NC 4.0",
    files=weight_files(META + "mae/pretrain/mae_pretrain_vit_{}.pth", base="base", large="large"),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    native=224,
    pretrained_on=("ImageNet-1k",))

DINO = InitSpec(
    name="dino",
    title="DINO",
    reference="Caron et al. 2021",
    license="Apache 2.0",
    files=weight_files(
        META + "dino/{}_pretrain/{}_pretrain.pth",
        small="dino_deitsmall16",
        base=("dino_vitbase16",
              "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e")),
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    native=224,
    resize="offset",
    pretrained_on=("ImageNet-1k",))

# In the order in which --help and the tables list them.
INITS: dict[str, InitSpec] = {init_spec.name: init_spec for init_spec in (
    DINOV2, IMAGENET_21K, MIMIC, RANDOM, DINOV2_REGISTERS, DINOV3, RAD_DINO, MAE, DINO)}


def find_init(sha256: str) -> tuple[InitSpec, str] | None:
    """The init and the architecture whose published file has this hash, or None."""
    for init_spec in INITS.values():
        for arch, file in init_spec.files.items():
            if file.sha256 and sha256.startswith(file.sha256):
                return init_spec, arch
    return None


def family(shape: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """What tells the transformers apart: LayerScale, registers, rotary positions."""
    return bool(shape.get("layer_scale")), bool(shape.get("registers")), bool(shape.get("rotary"))
