"""What a run starts from: records, downloads, hashes, names."""

import dataclasses
import re
import urllib.error

import numpy as np
import pytest
import torch
from inits_table import PAGE, written
from layouts import SIZES, augreg_arrays, dinov2_state
from PIL import Image
from test_weights import checkpoint_of

from data.files import sha256
from models import create_model, inits
from models.init_catalog import INITS, WeightFile, find_init
from models.inits import fetch, run_name
from models.settings import Config
from models.vit import ARCHITECTURES
from models.weights import RESIZE


@pytest.fixture(autouse=True)
def tiny_is_one_block(monkeypatch):
    """What is tested here does not depend on the size."""
    monkeypatch.setitem(ARCHITECTURES, "vit_tiny", dict(embed_dim=64, depth=1, num_heads=1))
    monkeypatch.setitem(SIZES, "vit_tiny", (64, 1, 1))


def initialize(init, arch, labels, keep_head=False, **settings):
    settings = Config(data=settings.pop("data", "phantom"), init=init, arch=arch, **settings)
    return inits.initialize(settings, labels, keep_head=keep_head)


def test_no_network_says_where_the_file_is_had(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(
        ValueError, match=r"dinov2_vitb14_pretrain.pth elsewhere and pass it with --weights FILE"
    ):
        fetch("dinov2", "vit_base", tmp_path / "weights")
    assert list((tmp_path / "weights").iterdir()) == []
    with pytest.raises(ValueError, match="no official weights for --init dinov2 --arch vit_tiny"):
        fetch("dinov2", "vit_tiny", tmp_path)


def test_download_happens_once_and_a_broken_one_leaves_nothing(tmp_path, monkeypatch):
    asked = []

    class Reply:
        def __init__(self, body, length):
            self.body, self.headers = [body, b""], {"Content-Length": str(length)}

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def read(self, size):
            return self.body.pop(0)

    def serve(body, length):
        monkeypatch.setattr(
            "urllib.request.urlopen", lambda url, timeout: asked.append(url) or Reply(body, length)
        )

    serve(b"half", 8)
    with pytest.raises(ValueError, match="4 of 8 bytes"):
        fetch("imagenet", "vit_base", tmp_path)
    assert list(tmp_path.iterdir()) == []
    serve(b"complete", 8)
    path = fetch("imagenet", "vit_base", tmp_path)
    assert (
        path.read_bytes() == b"complete"
        and fetch("imagenet", "vit_base", tmp_path) == path
        and len(asked) == 2
    )
    assert (
        path.name == "B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0.npz"
        and len(list(tmp_path.iterdir())) == 2  # and its hash
    )


def test_initialize_takes_shape_and_statistics_from_the_init(tmp_path):
    torch.save(dinov2_state(), tmp_path / "w.pth")
    start = initialize("dinov2", "vit_tiny", weights=tmp_path / "w.pth", labels=list("abc"),
                       normalize="pretrain")
    assert start.model.config["patch_size"] == 14 and start.model.config["layer_scale"]
    assert start.mean == [0.485, 0.456, 0.406]
    checkpoint_of(start.model, tmp_path / "mimic.pt", list("abc"))
    again = initialize("mimic", "vit_tiny", weights=tmp_path / "mimic.pt", labels=list("abcde"))
    assert again.model.config["patch_size"] == 14 and again.model.config["layer_scale"]
    assert again.mean is None and again.report.missing == ["head.weight", "head.bias"]
    with pytest.raises(FileNotFoundError, match="pretrain_mimic.py --target cxr14"):
        initialize("mimic", "vit_tiny", labels=list("abcde"), data="cxr14")
    with pytest.raises(ValueError, match="--weights is given"):
        initialize("random", "vit_tiny", weights="x", labels=list("abcde"))


def test_the_head_is_kept_where_labels_and_their_order_agree(tmp_path):
    model = create_model("vit_tiny", 16, 3, seed=7)
    checkpoint_of(model, tmp_path / "mimic.pt", list("abc"))
    kept = initialize("mimic", "vit_tiny", weights=tmp_path / "mimic.pt", labels=list("abc"),
                      keep_head=True)
    assert torch.equal(kept.model.head.weight, model.head.weight) and kept.report.missing == []
    fresh = initialize("mimic", "vit_tiny", weights=tmp_path / "mimic.pt", labels=list("abc"))
    assert not torch.equal(fresh.model.head.weight, model.head.weight)
    with pytest.raises(ValueError, match="has the labels a, b, c; expected b, a, c"):
        initialize("mimic", "vit_tiny", weights=tmp_path / "mimic.pt", labels=list("bac"),
                   keep_head=True)


# -- records --------------------------------------------------------------------------------------

def test_the_table_of_the_docs_is_that_of_the_records():
    assert PAGE.read_text() == written(PAGE.read_text()), "run python tests/inits_table.py"


def test_records_are_whole():
    """Hashes as the authors publish them, or the first digits that a file's name has."""
    names = [file.name for init in INITS.values() for file in init.files.values()]
    assert len(names) == len(set(names)) == 18
    for init in INITS.values():
        assert init.files or init.name in ("mimic", "random")
        assert (init.resize in RESIZE) != bool(init.shape.get("rotary"))
        for arch, file in init.files.items():
            assert init.license and init.native and init.mean and init.pretrained_on
            assert create_model("vit_tiny", img_size=56 if init.shape.get("patch_size") else 64,
                                **init.shape)
            if file.sha256:
                assert re.fullmatch("[0-9a-f]{64}|[0-9a-f]{8}", file.sha256)
                assert find_init(file.sha256.ljust(64, "0")) == (init, arch)
    assert find_init("73cec8be" + "0" * 56) == (INITS["dinov3"], "vit_base")
    assert find_init("f" * 64) is None


def test_which_runs_are_the_papers_and_what_an_init_has_seen():
    dinov2 = INITS["dinov2"].files["vit_base"].sha256
    assert INITS["dinov2"].is_paper("vit_base", dinov2)
    assert not INITS["dinov2"].is_paper("vit_base", "f" * 64)
    assert not INITS["dinov2"].is_paper("vit_base", None)
    assert not INITS["dinov2"].is_paper("vit_small", INITS["dinov2"].files["vit_small"].sha256)
    assert INITS["imagenet"].is_paper("vit_base", "f" * 64)  # no hash is public
    rad_dino = INITS["rad-dino"]
    assert not rad_dino.is_paper("vit_base", rad_dino.files["vit_base"].sha256)
    assert "cxr14" in rad_dino.pretrained_on and "vindr" not in rad_dino.pretrained_on
    assert "mimic" in INITS["mimic"].pretrained_on


# -- hashes ---------------------------------------------------------------------------------------

def publish(monkeypatch, path, sha, init="dinov2", arch="vit_tiny"):
    """Make a file the official one of an init."""
    file = WeightFile(f"https://x.org/{path.name}", sha)
    monkeypatch.setitem(INITS, init, dataclasses.replace(INITS[init], files={arch: file}))


def test_a_file_of_another_hash_is_not_used(tmp_path, monkeypatch):
    torch.save(dinov2_state(), tmp_path / "w.pth")
    found = sha256(tmp_path / "w.pth")
    publish(monkeypatch, tmp_path / "w.pth", "0" * 64)
    with pytest.raises(ValueError, match=f"sha256 is {found}, expected {'0' * 64}"):
        fetch("dinov2", "vit_tiny", tmp_path)
    publish(monkeypatch, tmp_path / "w.pth", found[:8])
    assert fetch("dinov2", "vit_tiny", tmp_path) == tmp_path / "w.pth"
    assert list(tmp_path.iterdir()) == [tmp_path / "w.pth"]


def test_where_no_hash_is_public_that_of_the_first_use_holds(tmp_path):
    path = tmp_path / INITS["mae"].files["vit_base"].name
    path.write_bytes(b"one")
    assert fetch("mae", "vit_base", tmp_path) == fetch("mae", "vit_base", tmp_path) == path
    first = sha256(path)
    path.write_bytes(b"another")
    with pytest.raises(ValueError, match=f"sha256 is {sha256(path)}, expected {first}"):
        fetch("mae", "vit_base", tmp_path)


def test_a_gated_file_is_never_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)
    with pytest.raises(ValueError, match="DINOv3 weights are under a license: accept it at https.*"
                                         "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth"):
        fetch("dinov3", "vit_base", tmp_path)
    assert fetch("dinov3", "vit_base", tmp_path, download=False).startswith("https://")


# -- names ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("file, name, called", [
    ("chest dino.pth", None, "chest-dino"), ("chest.pth", "mine", "mine"),
    ("dinov2.pth", None, "dinov2-file"), ("epoch7/model.pth", None, "epoch7"),
    ("rad/pytorch_model.bin", None, "rad")])
def test_unknown_weights_have_a_name_of_their_own(tmp_path, monkeypatch, file, name, called):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    torch.save(dinov2_state(), tmp_path / file)
    assert run_name("dinov2", tmp_path / file, name) == called
    monkeypatch.chdir((tmp_path / file).parent)  # a path without a folder in it
    assert run_name("dinov2", (tmp_path / file).name, name) == called
    start = initialize("dinov2", "vit_tiny", labels="ab", weights=tmp_path / file)
    assert start.sha256 == sha256(tmp_path / file)


def test_an_inits_own_weights_take_no_other_name():
    assert run_name("dinov2", None) == run_name("dinov2", None, "dinov2") == "dinov2"
    with pytest.raises(ValueError, match="--init-name mine: for other weights than --init dinov2"):
        run_name("dinov2", None, "mine")


def test_no_other_weights_have_an_inits_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth: no such weight file"):
        run_name("dinov2", tmp_path / "nowhere.pth")
    torch.save(dinov2_state(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="cannot be called rad-dino"):
        run_name("dinov2", tmp_path / "w.pth", "rad-dino")


def test_weights_of_a_known_hash_have_their_inits_name_alone(tmp_path, monkeypatch):
    path = tmp_path / "renamed.pth"
    torch.save(dinov2_state(), path)
    publish(monkeypatch, path, sha256(path), "rad-dino")
    with pytest.raises(ValueError, match="is RAD-DINO by its sha256: use --init rad-dino"):
        initialize("dinov2", "vit_tiny", labels="ab", weights=path)
    start = initialize("rad-dino", "vit_tiny", labels="ab", weights=path, normalize="pretrain")
    assert run_name("rad-dino", path) == "rad-dino"
    assert start.mean == [0.5307] * 3 and start.std == [0.2583] * 3


def test_a_checkpoint_is_the_mimic_arm_only_if_it_was_trained_on_mimic(tmp_path):
    for corpus, called in (("mimic", "mimic"), ("cxr14", "cxr14-dinov2")):
        folder = tmp_path / "cxr14-dinov2"
        folder.mkdir(exist_ok=True)
        model = create_model("vit_tiny", 16, 2)
        checkpoint_of(model, folder / "best.pt", list("ab"), data=corpus)
        assert run_name("mimic", folder / "best.pt") == called
    assert run_name("random", None) == "random"


# -- starting from each ---------------------------------------------------------------------------

def test_each_family_starts_a_run_and_a_file_of_another_is_refused(tmp_path):
    state = dinov2_state(grid=4)
    register = {"register_tokens": torch.randn(1, 4, 64)}
    rotary = {name: value for name, value in state.items() if name != "pos_embed"} | register
    rotary |= {"rope_embed.periods": torch.arange(1.0, 17.0)}
    rotary |= {name + "_mask": torch.zeros(192) for name in state if name.endswith("qkv.bias")}
    plain = {name: value for name, value in dinov2_state(grid=4, patch=16).items()
             if "gamma" not in name}
    files = {"dinov2": state, "rad-dino": state, "dinov2-reg": state | register, "dinov3": rotary,
             "mae": plain, "dino": plain, "imagenet": plain}
    for init, tensors in files.items():
        torch.save(tensors, tmp_path / f"{init}-tiny.pth")
    for init in files:
        size = 16 * 6 if INITS[init].shape.get("patch_size", 16) == 16 else 14 * 6
        path, options = tmp_path / f"{init}-tiny.pth", dict(labels="ab", image_size=size)
        if init == "dinov3":
            options["image_size"] = 14 * 6  # the patch is read off the file
        start = initialize(init, "vit_tiny", weights=path, **options, normalize="pretrain")
        assert start.mean == list(INITS[init].mean) and start.report.missing == [
            "head.weight", "head.bias"]
        assert bool(start.report.resized) == (init != "dinov3")
        assert start.model(torch.rand(1, 3, options["image_size"], options["image_size"])).shape \
            == (1, 2)
        for other in files:
            if files[other].keys() != files[init].keys():
                with pytest.raises(ValueError, match=f"not the weights of --init {init} --arch"):
                    initialize(init, "vit_tiny", weights=tmp_path / f"{other}-tiny.pth", **options)
        with pytest.raises(ValueError, match="--arch vit_small. It looks like vit_tiny"):
            initialize(init, "vit_small", weights=path, **options)


def test_positions_are_resized_as_the_inits_own_code_does(tmp_path):
    """DINO adds 0.1 as DINOv2 does, MAE and timm's ImageNet weights are antialiased."""
    state = {name: value for name, value in dinov2_state(grid=4, patch=16).items()
             if "gamma" not in name}
    torch.save(state, tmp_path / "w.pth")
    found = {init: initialize(init, "vit_tiny", labels="a", image_size=96,
                              weights=tmp_path / "w.pth").model.pos_embed
             for init in ("dino", "mae", "imagenet")}
    assert torch.equal(found["mae"], found["imagenet"])
    from test_weights import hub_pos_embed
    torch.testing.assert_close(found["dino"].data, hub_pos_embed(state["pos_embed"], 6),
                               rtol=1e-4, atol=1e-5)
    np.savez(tmp_path / "augreg.npz", **augreg_arrays(classes=2, grid=4))
    start = initialize("imagenet", "vit_tiny", labels="a", image_size=96,
                       weights=tmp_path / "augreg.npz")
    assert start.report.resized


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len(code.splitlines()) == 8
    for folder in ("weights", "images"):
        (tmp_path / folder).mkdir()
    torch.save(dinov2_state((64, 1, 1), grid=4), tmp_path / "weights/dinov2_vitb14_pretrain.pth")
    for n in range(3):
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 50), dtype=np.uint8)).save(
            tmp_path / f"images/{n}.png")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["features"].shape == (3, 64)
