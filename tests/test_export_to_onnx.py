"""From a run to a file: PyTorch's probabilities, refusals, what the metadata say."""

import getpass
import shutil

import numpy as np
import pytest
import torch
from export_models import names, open_split
from PIL import Image

from data import preprocess
from data.phantom.layouts import make_phantom
from export import to_onnx
from export.graph import classifier
from export.predict import main as predict_main
from export.runtime import Predictor
from export.to_onnx import main
from export.verify import sha256
from models.checkpoint import save_checkpoint
from models.inference import predict
from stats.predictions import Predictions, save_predictions

torch.set_num_threads(1)

pytest_plugins = ["export_runs"]  # corpus, checkpoint, run


def test_the_file_gives_pytorchs_probabilities_on_test_images(run, corpus, capsys):
    assert main([str(run)]) == 0
    assert names(run) == [
        "MODEL_CARD.md",
        "best.pt",
        "model.golden.json",
        "model.json",
        "model.onnx",
    ]
    assert "of PyTorch on" in capsys.readouterr().out
    model = to_onnx.restore_model(to_onnx.load_checkpoint(run / "best.pt"))
    test = open_split(corpus, "test")
    expected = predict(model, test)[1]
    found = Predictor(run / "model.onnx", "cpu")([test.path(i) for i in range(len(test))])
    assert np.abs(found - expected).max() < 1e-3 and expected.std(0).min() > 0.03


def test_a_normalized_run_gives_what_it_gives_normalized(run, checkpoint, corpus):
    mean, std = [0.5, 0.4, 0.6], [0.2, 0.25, 0.3]
    save_checkpoint(run / "best.pt", checkpoint | dict(input_mean=mean, input_std=std))
    assert main([str(run)]) == 0
    model = to_onnx.restore_model(to_onnx.load_checkpoint(run / "best.pt"))
    test = open_split(corpus, "test")
    expected = predict(model, test, mean=mean, std=std)[1]
    found = Predictor(run / "model.onnx", "cpu")([test.path(i) for i in range(len(test))])
    assert np.abs(found - expected).max() < 1e-3


def test_metadata_and_card(run, checkpoint, corpus, capsys):
    test = open_split(corpus, "test")
    score = np.random.default_rng(0).random(test.table.y.shape)
    digest = sha256(run / "best.pt")
    predictions = Predictions(
        test.table.image_id,
        test.table.patient_id,
        list(test.labels),
        test.table.y,
        score,
        dict(checkpoint_sha256=digest),
    )
    save_predictions(run / "predictions.npz", predictions)
    assert main([str(run)]) == 0
    metadata = Predictor(run / "model.onnx", "cpu").metadata
    assert (
        metadata["labels"] == checkpoint["labels"]
        and metadata["thresholds"] == checkpoint["thresholds"]
    )
    assert metadata["checkpoint_sha256"] == digest
    assert metadata["corpus"] == "phantom" and metadata["init"] == "random"
    assert "not a medical device" in metadata["intended_use"].lower()
    for i, (value, low, high) in enumerate(metadata["test_auroc"]["labels"]):
        positive, negative = (score[test.table.y[:, i] == k, i] for k in (1, 0))
        by_pairs = (np.sign(positive[:, None] - negative).mean() + 1) / 2
        assert value == pytest.approx(by_pairs, abs=1e-4) and low <= value <= high
    assert f"{metadata['test_auroc']['labels'][0][0]:.3f}" in (run / "MODEL_CARD.md").read_text()
    assert predict_main([str(run / "model.onnx"), "--verify", "--provider", "cpu"]) == 0
    content = (run / "model.onnx").read_bytes() + (run / "MODEL_CARD.md").read_bytes()
    private = [
        corpus["root"],
        str(run),
        f"/{getpass.getuser()}/",
        *test.table.patient_id,
        *test.table.image_id,
    ]
    assert not [text for text in map(str, private) if len(text) > 3 and text.encode() in content]


def test_predictions_of_another_checkpoint_are_not_shown(run, checkpoint, capsys):
    y = np.eye(6)[np.arange(12) % 6]
    predictions = Predictions(
        np.arange(12).astype(str),
        None,
        checkpoint["labels"],
        y,
        y,
        dict(checkpoint_sha256="1" * 64),
    )
    save_predictions(run / "predictions.npz", predictions)
    assert main([str(run)]) == 0
    assert "not of this checkpoint" in capsys.readouterr().out
    assert Predictor(run / "model.onnx", "cpu").metadata["test_auroc"] is None


def test_a_file_that_differs_is_not_written(run, monkeypatch, capsys):
    def wrong(state, *args, **kwargs):
        return classifier(
            state | {"head.bias": state["head.bias"] + np.float32(0.1)}, *args, **kwargs
        )

    monkeypatch.setattr(to_onnx, "classifier", wrong)
    assert main([str(run)]) == 3  # a check refused
    error = capsys.readouterr().err
    assert "not written" in error and error.count("\n") == 1
    assert names(run) == ["best.pt"]


def test_preprocessing_that_was_changed_in_one_place_alone_is_named(run, monkeypatch, capsys):
    """Equalization taken out of data/preprocess.py: the graph still has it."""
    monkeypatch.setattr(preprocess, "_equalize", lambda levels: levels)
    assert main([str(run)]) == 3
    error = capsys.readouterr().err
    assert "data/preprocess.py" in error and "export/graph.py" in error
    assert names(run) == ["best.pt"]


def test_reference_radiographs_are_recognized(run, corpus, capsys):
    assert main([str(run)]) == 0
    capsys.readouterr()
    words = [str(run / "model.onnx"), corpus["root"], "--verify", "--provider", "cpu"]
    assert predict_main(words) == 0
    assert capsys.readouterr().out.count("ok") == 6 + 4  # patterns and radiographs


def test_the_interval_on_the_card_is_by_patient(run, checkpoint, capsys):
    """Twenty patients of ten identical images each: by image, the interval would be a third."""
    rng = np.random.default_rng(0)
    y = (rng.random((20, 6)) < 0.5).astype(float).repeat(10, 0)
    score = (rng.random((20, 6)) + 0.3 * y[::10]).repeat(10, 0)
    meta = dict(checkpoint_sha256=sha256(run / "best.pt"))
    ids, patients = np.arange(200).astype(str), np.arange(20).astype(str).repeat(10)
    save_predictions(
        run / "predictions.npz",
        Predictions(ids, patients, checkpoint["labels"], y, score / 2, meta),
    )
    assert main([str(run)]) == 0
    rows = Predictor(run / "model.onnx", "cpu").metadata["test_auroc"]["labels"]
    for i, (value, low, high) in enumerate(rows):
        n1 = y[::10, i].sum()  # Hanley and McNeil's standard error, of the patients
        q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
        variance = value * (1 - value) + (n1 - 1) * (q1 - value**2) + (19 - n1) * (q2 - value**2)
        assert high - low > 2 * np.sqrt(variance / (n1 * (20 - n1)))


def test_a_model_of_synthetic_radiographs_in_a_corpus_s_layout_says_so(run, checkpoint, corpus):
    config = corpus | dict(synthetic=True, data="cxr14")
    save_checkpoint(run / "best.pt", checkpoint | dict(config=config))
    assert main([str(run), "--images", corpus["root"] + "/images"]) == 0
    assert Predictor(run / "model.onnx", "cpu").metadata["synthetic"] is True
    assert "synthetic phantoms" in (run / "MODEL_CARD.md").read_text()


def test_weights_of_another_file_go_by_their_own_name(run, checkpoint, corpus):
    config = corpus | dict(init="dinov2", init_name="hospital-vit")
    save_checkpoint(run / "best.pt", checkpoint | dict(config=config))
    assert main([str(run)]) == 0
    assert Predictor(run / "model.onnx", "cpu").metadata["init"] == "hospital-vit"
    assert "| initialized from | hospital-vit |" in (run / "MODEL_CARD.md").read_text()


def test_a_network_of_images_that_other_code_preprocessed_is_named(run, checkpoint, corpus, capsys):
    config = corpus | dict(preprocessing="0" * 16)
    save_checkpoint(run / "best.pt", checkpoint | dict(config=config))
    assert main([str(run)]) == 0
    assert f"warning: {run / 'best.pt'}: was trained on images that" in capsys.readouterr().err


def test_a_network_that_was_trained_elsewhere_is_exported(run, checkpoint, corpus, capsys):
    """As adopt.py writes it where the corpus is not at hand: no thresholds, split or cohort."""
    config = {k: v for k, v in corpus.items() if k not in ("cohort", "split_hash")}
    config |= dict(root="gone", init_name="theirs", caveat="its test patients are not known")
    nothing = [None] * len(checkpoint["labels"])
    adopted = dict(config=config, thresholds=nothing, val_auroc=nothing, epoch=None, step=None)
    save_checkpoint(run / "best.pt", checkpoint | adopted)
    assert main([str(run), "--images", corpus["root"] + "/images"]) == 0
    assert "note: its test patients are not known\n" in capsys.readouterr().out
    model, card = Predictor(run / "model.onnx", "cpu"), (run / "MODEL_CARD.md").read_text()
    assert model.thresholds == nothing
    assert "| thresholds | none, so that nothing is called positive |" in card
    assert "| cohort rule | not known |" in card and "Worse than chance" not in card
    assert (model.predict_labels(np.full((1, len(nothing)), 0.9)) == None).all()  # noqa: E711


def test_images_from_elsewhere_stand_in_for_the_corpus(run, checkpoint, corpus, tmp_path):
    save_checkpoint(
        run / "best.pt", checkpoint | dict(config=corpus | dict(root=str(tmp_path / "gone")))
    )
    images = corpus["root"] + "/images"
    assert main([str(run / "best.pt"), "--images", images, "--out", str(tmp_path / "m.onnx")]) == 0
    assert Predictor(tmp_path / "m.onnx", "cpu").labels == checkpoint["labels"]


@pytest.mark.parametrize("options", [[], ["--calibrate"], ["--precision", "int8"]])
def test_training_patients_never_check(run, tmp_path, capsys, options):
    """Other patients under --root: the split is drawn anew, validation may hold trained ones."""
    make_phantom(tmp_path / "grown", patients=80, size=80)
    assert main([str(run), "--root", str(tmp_path / "grown"), *options]) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and str(tmp_path / "grown") in error
        and "not split as it was in training" in error
    )
    assert names(run) == ["best.pt"]


def test_training_patients_never_check_where_images_are_given(run, corpus, tmp_path, capsys):
    make_phantom(tmp_path / "grown", patients=80, size=80)
    images = corpus["root"] + "/images"
    assert (
        main(
            [str(run), "--root", str(tmp_path / "grown"), "--images", images, "--precision", "fp16"]
        )
        == 2
    )
    assert str(tmp_path / "grown") in capsys.readouterr().err
    assert names(run) == ["best.pt"]


def other_outputs(checkpoint):
    return checkpoint | dict(labels=checkpoint["labels"][:2])


def other_corpus(checkpoint, **config):
    return checkpoint | dict(config=checkpoint["config"] | config)


def other_architecture(checkpoint):
    return checkpoint | dict(model_config=checkpoint["model_config"] | dict(depth=2))


@pytest.mark.parametrize(
    "damage, reason",
    [
        (lambda run, c: (run / "best.pt").unlink(), "no such file"),
        (
            lambda run, c: (run / "best.pt").write_bytes((run / "best.pt").read_bytes()[:5000]),
            "truncated",
        ),
        (
            lambda run, c: torch.save(c["model"], run / "best.pt"),
            "not a checkpoint of this project",
        ),
        (lambda run, c: save_checkpoint(run / "best.pt", other_outputs(c)), "labels"),
        (
            lambda run, c: save_checkpoint(
                run / "best.pt", c | dict(labels=[*c["labels"][:5], "No\x1b[2J"])
            ),
            "best.pt: label 'No\\x1b[2J': holds a control character",
        ),
        (
            lambda run, c: save_checkpoint(
                run / "best.pt", c | dict(labels=[*c["labels"][:5], c["labels"][0] + " "])
            ),
            "best.pt: label 'Cardiomegaly ': occurs twice",
        ),
        (lambda run, c: save_checkpoint(run / "best.pt", other_architecture(c)), "architecture"),
        (lambda run, c: save_checkpoint(run / "best.pt", other_corpus(c, data="mars")), "mars"),
        (
            lambda run, c: save_checkpoint(
                run / "best.pt", other_corpus(c, data="cxr14", root="/no")
            ),
            "/no",
        ),
    ],
)
def test_bad_runs_are_one_line_and_leave_nothing(run, checkpoint, capsys, damage, reason):
    damage(run, checkpoint)
    before = names(run)
    assert main([str(run)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m export.to_onnx: error: ")
    assert error.count("\n") == 1 and reason in error
    assert names(run) == before


def test_images_of_one_intensity_are_bad_ones_here_as_in_training(
        run, checkpoint, corpus, tmp_path, capsys):
    root = tmp_path / "phantom"
    shutil.copytree(corpus["root"], root)
    val = open_split(corpus | dict(root=str(root), cache_dir=str(tmp_path / "cache")), "val")
    for i in (0, 7):
        Image.new("L", (80, 80)).save(val.path(i))
    assert main([str(run), "--root", str(root), "--precision", "int8"]) == 2
    assert "holds one intensity only (bad images: 2)" in capsys.readouterr().err
    save_checkpoint(run / "best.pt", checkpoint | dict(config=corpus | dict(on_bad="skip")))
    assert main([str(run), "--root", str(root), "--precision", "int8"]) == 0
    assert f"on {len(val) - 2} radiographs of val" in capsys.readouterr().out
