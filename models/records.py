"""What a run can start from: one record an init (no torch: a command line lists them at once)."""

from dataclasses import dataclass, field

IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # of its pixels
META = "https://dl.fbaipublicfiles.com/"


@dataclass(frozen=True)
class File:
    """A published weight file."""

    url: str
    sha256: str | None = None  # or its first digits; None where nobody has published it

    @property
    def name(self):
        """The file's own name, which it has in `weights/` too."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Init:
    """One initialization."""

    name: str  # as --init takes it
    title: str  # as tables print it
    reference: str  # who made it
    files: dict = field(default_factory=dict)  # File by architecture
    license: str = ""
    gated: str | None = None  # where the license has to be accepted before a file can be had
    shape: dict = field(default_factory=dict)  # arguments of `VisionTransformer`
    mean: tuple | None = None  # subtracted in pretraining from the three channels in [0, 1]
    std: tuple | None = None  # and what they were divided by
    native: int | None = None  # side in pixels of the images that its positions were trained at
    resize: str | None = "antialias"  # of positions, a key of `models.weights.RESIZE`
    pretrained_on: tuple = ()  # image collections; a corpus by its name in --data
    in_paper: bool = False  # whether Tayebi Arasteh et al. 2024 compare it

    def is_paper(self, arch, sha256):
        """Whether these weights are an arm of the paper; where no hash is public, the init is."""
        public = self.files[arch].sha256 if arch in self.files else None
        return self.in_paper and arch == "vit_base" and public in (None, sha256)


def files(url, **sizes):
    """Files by architecture; each is (what `{}` stands for in the URL, sha256)."""
    return {f"vit_{size}": File(url.replace("{}", name), *known)
            for size, (name, *known) in sizes.items()}


INITS = {init.name: init for init in (
    Init("dinov2", "DINOv2", "Oquab et al. 2023", files(
            META + "dinov2/dinov2_{}14/dinov2_{}14_pretrain.pth",
            small=("vits", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9"),
            base=("vitb", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73"),
            large=("vitl", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428")),
         license="Apache 2.0", shape=dict(patch_size=14, layer_scale=True), **IMAGENET,
         native=518, resize="offset", pretrained_on=("LVD-142M",), in_paper=True),
    Init("imagenet", "ImageNet-21k", "Steiner et al. 2022", files(
            "https://storage.googleapis.com/vit_models/augreg/{}.npz",
            tiny=("Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0",),
            small=("S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0",),
            base=("B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0",),
            large=("L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1",)),
         license="Apache 2.0", mean=(0.5,) * 3, std=(0.5,) * 3, native=224,
         pretrained_on=("ImageNet-21k",), in_paper=True),
    Init("mimic", "MIMIC-CXR", "`pretrain_mimic.py`", license="your own",
         pretrained_on=("ImageNet-21k", "mimic"), in_paper=True),
    Init("random", "random weights", "no pretraining", mean=(0.5,) * 3, std=(0.25,) * 3),
    Init("dinov2-reg", "DINOv2 with registers", "Darcet et al. 2023", files(
            META + "dinov2/dinov2_{}14/dinov2_{}14_reg4_pretrain.pth",
            small=("vits", "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb"),
            base=("vitb", "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71"),
            large=("vitl", "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51")),
         license="Apache 2.0", shape=dict(patch_size=14, layer_scale=True, registers=4),
         **IMAGENET, native=518, pretrained_on=("LVD-142M",)),
    Init("dinov3", "DINOv3", "Simeoni et al. 2025", files(
            META + "dinov3/dinov3_{}.pth",
            small=("vits16/dinov3_vits16_pretrain_lvd1689m-08c60483", "08c60483"),
            base=("vitb16/dinov3_vitb16_pretrain_lvd1689m-73cec8be", "73cec8be"),
            large=("vitl16/dinov3_vitl16_pretrain_lvd1689m-8aa4cbdd", "8aa4cbdd")),
         license="DINOv3 License",
         gated="https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/",
         shape=dict(layer_scale=True, registers=4, rotary=True, norm_eps=1e-5),
         **IMAGENET, native=256, resize=None, pretrained_on=("LVD-1689M",)),
    Init("rad-dino", "RAD-DINO", "Perez-Garcia et al. 2024", files(
            "https://huggingface.co/microsoft/rad-dino/resolve/main/{}.safetensors",
            base=("backbone_compatible",
                  "1eac0464b2a00d368aa3eea1dc029964b10320fbabc59a8a4e768c43a23d26f4")),
         license="MIT", shape=dict(patch_size=14, layer_scale=True), mean=(0.5307,) * 3,
         std=(0.2583,) * 3, native=518, resize="offset",
         pretrained_on=("LVD-142M", "mimic", "chexpert", "cxr14", "padchest", "brax")),
    Init("mae", "MAE", "He et al. 2022", files(
            META + "mae/pretrain/mae_pretrain_vit_{}.pth", base=("base",), large=("large",)),
         license="CC BY-NC 4.0", **IMAGENET, native=224, pretrained_on=("ImageNet-1k",)),
    Init("dino", "DINO", "Caron et al. 2021", files(
            META + "dino/{}_pretrain/{}_pretrain.pth", small=("dino_deitsmall16",),
            base=("dino_vitbase16",
                  "bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e")),
         license="Apache 2.0", **IMAGENET, native=224, resize="offset",
         pretrained_on=("ImageNet-1k",)),
)}


def find_init(sha256):
    """The record and the architecture that a file of this hash belongs to, or None."""
    return next(((init, arch) for init in INITS.values() for arch, file in init.files.items()
                 if file.sha256 and sha256.startswith(file.sha256)), None)


def family(shape):
    """What tells the transformers apart: (LayerScale, registers, rotary positions), as bools."""
    return tuple(bool(shape.get(key)) for key in ("layer_scale", "registers", "rotary"))
