"""Networks that were trained elsewhere become run folders: `python adopt.py`."""

import json

import numpy as np
import pytest
import timm
import torch
from layouts import dinov2_state, randomize
from phantom_layouts import main as draw

import evaluate
import train
from adopt import AUTHORS, main
from data import labels_of_table3
from export.to_onnx import main as to_onnx
from models import create_model, load_pretrained
from models.checkpoint import load_checkpoint, restore_model

pytestmark = pytest.mark.usefixtures("blank_figures")

TABLE3 = labels_of_table3()

# Of our 14 labels of ChestX-ray14, where each stands in the authors' network: counted off the
# paper's and their code's lists by hand.
CXR14 = [0, 1, 10, 2, 6, 3, 5, 12, 13, 7, 9, 8, 11, 4]


@pytest.fixture(scope="module")
def cxr14(tmp_path_factory):
    root = tmp_path_factory.mktemp("adopt") / "cxr14"
    assert draw(["--layout", "cxr14", "--out", str(root), "--patients", "60", "--size", "64"]) == 0
    return root


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def timm_network(labels=14):
    """As the authors' imagenet arms: timm's model with a head."""
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=labels).eval()


@pytest.mark.parametrize("wrapped", [False, True])
def test_timms_layout(tmp_path, cxr14, wrapped, capsys):
    """With the corpus at hand, and on a machine that has it only later."""
    theirs = timm_network()
    state = theirs.state_dict()
    torch.save({"model_state_dict": state, "epoch": 100} if wrapped else state, "arm.pth")
    command = ["arm.pth", "--data", "cxr14", "--init", "imagenet"]
    assert main(command + (["--root", str(cxr14)] if wrapped else [])) == 0
    said = capsys.readouterr().out
    assert "caveat: patients that the thresholds were chosen on may have been trained on" in said
    best = load_checkpoint("runs/cxr14-arm/best.pt")
    assert best["labels"] == list(TABLE3["cxr14"]) and best["config"]["init_name"] == "arm"
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(restore_model(best)(images), theirs(images)[:, CXR14],
                                   rtol=0, atol=1e-5)
    config = json.loads((tmp_path / "runs/cxr14-arm/config.json").read_text())
    assert config == best["config"] and config["weights"] == "arm.pth" and config["caveat"] in said
    assert any(t is not None for t in best["thresholds"]) == wrapped
    assert (config["split_hash"] is not None) == wrapped
    assert ("no thresholds" in said) == (not wrapped)

    words = ["--bootstrap", "100", "--device", "cpu", "--limit", "16", "--root", str(cxr14.parent)]
    assert evaluate.main(words) == 0
    assert config["caveat"] in capsys.readouterr().err
    if wrapped:
        assert to_onnx(["runs/cxr14-arm"]) == 0
    assert main(command) == 2 and "holds a run already" in capsys.readouterr().err


def test_dinov2s_layout_without_the_corpus(capsys):
    state = dinov2_state()  # 1,370 positions
    head = torch.nn.Linear(192, 17)
    state |= {"head.weight": head.weight.data, "head.bias": head.bias.data}
    torch.save(state, "padchest.pth")
    assert main(["padchest.pth", "--data", "padchest", "--init", "dinov2", "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "no thresholds: " in said and "may be among those that it is tested on" in said
    assert "pos_embed [1, 1370, 192] -> [1, 257, 192]" in said
    best = load_checkpoint("run/best.pt")
    assert best["thresholds"] == [None] * 17 and best["config"]["split_hash"] is None
    encoder = create_model("vit_tiny", 14, layer_scale=True)
    load_pretrained(encoder, "dinov2", "padchest.pth")
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        expected, found = head(encoder(images)), restore_model(best)(images)
    for label in ("Kyphosis", "Infiltrates", "No finding", "Cardiomegaly"):
        torch.testing.assert_close(found[:, TABLE3["padchest"].index(label)],
                                   expected[:, AUTHORS["padchest"].index(label)])
    assert AUTHORS["padchest"][11:14] == ("Aortic elongation", "Kyphosis", "COPD")


def test_a_network_of_ones_own(capsys):
    torch.save(timm_network(2).state_dict(), "mine.pth")
    words = ["mine.pth", "--data", "custom", "--init", "imagenet", "--normalize", "pretrain"]
    assert main([*words, "--labels", "Fracture", "Effusion"]) == 0
    best = load_checkpoint("runs/custom-mine/best.pt")
    assert best["labels"] == ["Fracture", "Effusion"] and best["input_mean"] == [0.5] * 3
    np.testing.assert_array_equal(best["model"]["head.bias"],
                                  torch.load("mine.pth")["head.bias"])


def test_hugging_faces_classifier(tmp_path):
    import transformers
    theirs = randomize(transformers.ViTForImageClassification(transformers.ViTConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512,
        image_size=64, num_labels=2)))
    theirs.save_pretrained("vit")
    words = ["--data", "custom", "--init", "imagenet", "--image-size", "64", "--labels", "A", "B"]
    assert main(["vit/model.safetensors", *words]) == 0
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(restore_model(load_checkpoint("runs/custom-vit/best.pt"))(images),
                                   theirs(images).logits, rtol=0, atol=1e-4)


def one_block(width=64, outputs=14, biases=None):
    head = {"head.weight": torch.zeros(outputs, width), "head.bias": torch.zeros(biases or outputs)}
    return dinov2_state((width, 1, 1), grid=4) | head


@pytest.mark.parametrize("state, words, said", [
    (one_block(96), "--data cxr14", "96 channels are no multiple of 64"),
    (one_block(biases=13), "--data cxr14", "expected a classifier of 14 outputs"),
    (one_block(outputs=2), "--data custom --labels A A", "--labels A A: expected each label once"),
    (one_block(outputs=6), "--data mimic", "expected a classifier of 10 outputs"),
    (dict(model=one_block(), model_config=dict(num_heads=1), labels=[], config={}), "--data cxr14",
     "is a checkpoint of this project"),  # its labels stand in our order, not in the authors'
])
def test_what_would_be_adopted_wrongly_is_refused(state, words, said, capsys):
    torch.save(state, "net.pth")
    assert main(["net.pth", "--init", "dinov2", *words.split()]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_a_folder_that_holds_a_run_is_told_before_the_work(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").touch()
    assert main("nowhere.pth --data cxr14 --init dinov2 --out run".split()) == 2
    assert "run: holds a run already; --out takes another folder" in capsys.readouterr().err


def test_resume_does_not_train_over_what_was_adopted(arguments, capsys):
    """`train.py --weights arm.pth --resume` has a folder of the same name."""
    torch.save(one_block(), "arm.pth")
    assert main("arm.pth --data cxr14 --init dinov2 --out run".split()) == 0
    before = load_checkpoint("run/best.pt")["model"]["head.weight"]
    assert train.main(arguments(resume=True, epochs=1)) == 2
    assert "run: holds a network that was trained elsewhere" in capsys.readouterr().err
    assert torch.equal(load_checkpoint("run/best.pt")["model"]["head.weight"], before)


@pytest.mark.parametrize("words, said", [
    (["--data", "chexpert"], "expected a classifier of 10 outputs"),
    (["--data", "ukacxr"], "name them with --labels"),
    (["--data", "cxr14", "--image-size", "230"], "--image-size 230"),
])
def test_what_does_not_fit_is_one_line(words, said, capsys):
    torch.save(timm_network().state_dict(), "arm.pth")
    assert main(["arm.pth", "--init", "imagenet", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1


def test_every_list_of_the_authors_has_our_labels():
    for corpus, labels in AUTHORS.items():
        assert set(labels) == set(TABLE3[corpus]) and len(labels) == len(TABLE3[corpus])
