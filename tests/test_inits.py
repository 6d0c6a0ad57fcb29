"""What a run starts from: records, downloads, hashes, names."""

import urllib.error

import pytest
import torch
from layouts import dinov2_state
from test_weights import checkpoint_of

from models import create_model
from models.inits import fetch, initialize


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
        initialize("mimic", "vit_tiny", labels=list("abcde"), target="cxr14")
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
