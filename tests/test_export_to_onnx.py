"""From a run to a file: parity, refusal, metadata, reduced precisions, calibration."""

import getpass
import json
import os
import re
import shutil
import signal
import threading
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from export_models import radiograph, random_model
from PIL import Image
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression

import data
from data import preprocess
from data.console import Refused
from data.phantom.layouts import make_phantom
from data.settings import DataSettings
from export import precision, quantize, runtime, to_onnx
from export.calibrate import Calibrated, calibrate, calibration_error, choose, folds, platt, sigmoid
from export.graph import classifier
from export.precision import check_precision
from export.predict import main as predict_main
from export.quantize import int8
from export.runtime import Predictor
from export.to_onnx import main
from export.verify import sha256
from models.checkpoint import save_checkpoint
from models.inference import predict, to_input
from stats.predictions import Predictions, save_predictions

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A phantom corpus and its config."""
    folder = tmp_path_factory.mktemp("corpus")
    make_phantom(folder / "phantom", patients=140, size=80)
    settings = DataSettings("phantom", folder / "phantom", image_size=64,
                            cache_dir=folder / "cache", workers=1)
    split_hash = data.open_split(settings, "train", tables_only=True).split_hash
    return settings.to_config() | dict(init="random", split_hash=split_hash)


def open_split(config, split):
    return data.open_split(DataSettings.from_config(config), split)


@pytest.fixture(scope="module")
def checkpoint(corpus):
    """A random model with a least-squares head, so that it tells the phantoms apart."""
    train = open_split(corpus, "train")
    model = random_model(embed_dim=96)[0]
    model.head = torch.nn.Linear(96, len(train.labels))
    model.config["num_classes"] = len(train.labels)
    for split in (train, open_split(corpus, "val")):
        images, labels = split.batch(np.arange(len(split)))
        with torch.inference_mode():
            x = model.forward_features(to_input(images)).numpy()
        design = np.column_stack([x, np.ones(len(x))])
        y = np.where(labels.numpy() == 1, 2.0, -2.0)
    # of validation, on which the file is checked; the ridge keeps int8's rounding from being
    # multiplied, as a fit of so many features to so few images would
    ridge = 30 * np.eye(design.shape[1])
    solution = np.linalg.solve(design.T @ design + ridge, design.T @ y)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor(solution[:-1].T))
        model.head.bias.copy_(torch.tensor(solution[-1]))
    return dict(
        model=model.state_dict(),
        model_config=model.config,
        labels=list(train.labels),
        config=corpus,
        epoch=3,
        step=9,
        thresholds=[0.875] * 5 + [None],
        val_auroc=[0.9] * 6,
        input_mean=None,
        input_std=None,
    )


@pytest.fixture
def run(checkpoint, tmp_path):
    (folder := tmp_path / "phantom-random").mkdir()
    save_checkpoint(folder / "best.pt", checkpoint)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reduced_precisions_keep_the_ranking(run, precision, capsys):
    assert main([str(run)]) == 0
    assert main([str(run), "--precision", precision]) == 0
    assert "largest change" in capsys.readouterr().out
    whole, reduced = run / "model.onnx", run / f"model-{precision}.onnx"
    assert Predictor(reduced, "cpu").metadata["precision"] == precision
    assert reduced.stat().st_size < whole.stat().st_size * (0.75 if precision == "fp16" else 0.6)
    assert predict_main([str(reduced), "--verify", "--provider", "cpu"]) == 0
    cards = [(run / f"MODEL_CARD{which}.md").read_text() for which in ("", f"-{precision}")]
    assert "| precision | fp32 |" in cards[0] and f"| precision | {precision} |" in cards[1]
    assert len(names(run)) == 9


def test_reference_radiographs_are_recognized(run, corpus, capsys):
    assert main([str(run)]) == 0
    capsys.readouterr()
    words = [str(run / "model.onnx"), corpus["root"], "--verify", "--provider", "cpu"]
    assert predict_main(words) == 0
    assert capsys.readouterr().out.count("ok") == 6 + 4  # patterns and radiographs


def test_the_precision_is_checked_where_it_was_asked_for(run, corpus, monkeypatch):
    monkeypatch.setattr(precision, "MAX_LABEL_LOSS", 1)
    monkeypatch.setattr(precision, "MAX_MEAN_LOSS", 1)
    assert main([str(run), "--precision", "int8", "--check-on", "test"]) == 0
    check = Predictor(run / "model-int8.onnx", "cpu").metadata["precision_check"]
    assert check["split"] == "test" and check["images"] == len(open_split(corpus, "test"))


def test_int8_sees_training_images_alone(run, corpus, monkeypatch):
    seen, train = [], open_split(corpus, "train")

    def watched(model, state, images):
        seen.append(images)
        return int8(model, state, images)

    monkeypatch.setattr(to_onnx, "int8", watched)
    assert main([str(run), "--precision", "int8"]) == 0
    every = to_input(train.batch(np.arange(len(train)))[0])
    assert 40 < len(seen[0]) <= 64
    assert all((image == every).all((1, 2, 3)).any() for image in seen[0])


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


def spoiled(model, state, images):
    """int8 of a model whose last block is noise."""
    rng = np.random.default_rng(0)
    state = {
        k: rng.standard_normal(v.shape).astype(v.dtype) if "blocks.2.mlp" in k else v
        for k, v in state.items()
    }
    return int8(model, state, images)


def test_a_reduced_model_that_lost_too_much_is_not_written(run, monkeypatch, capsys):
    monkeypatch.setattr(to_onnx, "int8", spoiled)
    assert main([str(run), "--precision", "int8"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "AUC of" in error and "fell by" in error
    assert names(run) == ["best.pt"]


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


@pytest.mark.parametrize(
    "name, expected",
    [
        ("model.onnx", "MODEL_CARD.md"),
        ("model-fp16.onnx", "MODEL_CARD-fp16.md"),
        ("site.onnx", "MODEL_CARD-site.md"),
        ("modelx.onnx", "MODEL_CARD-modelx.md"),
        ("model-.onnx", "MODEL_CARD-model-.md"),
    ],
)
def test_every_file_has_its_own_card(tmp_path, name, expected):
    assert to_onnx.output_files(tmp_path / name).card == tmp_path / expected


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


# -- what is written ------------------------------------------------------------------------------


def test_metadata_lie_beside_the_model_as_json(run, checkpoint):
    save_checkpoint(run / "best.pt", checkpoint | dict(thresholds=[0.1] * 5 + [None]))
    assert main([str(run)]) == 0
    beside = json.loads((run / "model.json").read_text())
    content = (run / "model.onnx").read_bytes()
    assert beside.pop("file_sha256").encode() in content
    assert beside == Predictor(content, "cpu").metadata
    assert beside["thresholds"] == [float(np.float32(0.1))] * 5 + [
        None
    ]  # the same number in float32 and in float64


@pytest.mark.parametrize(
    "out, reason",
    [
        ("", "is a folder"),
        ("gone/m.onnx", "does not exist"),
        ("m", "expected a name.onnx"),
        ("m.json", "expected a name.onnx"),
        ("config.onnx", "expected a name.onnx"),
        ("split.onnx", "expected a name.onnx"),
    ],
)
def test_bad_targets_are_refused_before_any_work(run, monkeypatch, capsys, out, reason):
    monkeypatch.setattr(to_onnx, "restore_model", None)
    assert main([str(run), "--out", str(run / out)]) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and str(run / out) in error
        and reason in error
        and names(run) == ["best.pt"]
    )


def test_a_device_gets_the_model_alone(run):
    os.mkfifo(fifo := run / "fifo")
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()), daemon=True)
    reader.start()
    assert main([str(run), "--out", str(fifo)]) == 0
    reader.join(10)
    assert read and Predictor(read[0], "cpu").labels and names(run) == ["best.pt", "fifo"]


@pytest.mark.parametrize(
    "blocked, options",
    [("MODEL_CARD.md", []), ("model.json", []), ("reliability.png", ["--calibrate"])],
)
def test_a_model_is_written_with_all_that_goes_beside_it_or_not_at_all(
    run, capsys, blocked, options
):
    (run / blocked).mkdir()
    (run / "model.onnx").write_text("old")
    assert main([str(run), *options]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and (run / "model.onnx").read_text() == "old"
    assert names(run) == sorted(["best.pt", "model.onnx", blocked])


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_writing_leaves_nothing(run, monkeypatch, capsys, number, code):
    def stop(*_):
        assert len([name for name in names(run) if name.endswith(".part")]) == 4
        os.kill(os.getpid(), number)

    monkeypatch.setattr(to_onnx, "draw_reliability", stop)
    assert main([str(run), "--calibrate"]) == code
    assert capsys.readouterr().err == (
        f"python -m export.to_onnx: stopped by {number.name}; what was complete is kept\n")
    assert names(run) == ["best.pt"]


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


# -- fp16 -----------------------------------------------------------------------------------------


def changed(checkpoint, **change):
    """A checkpoint with tensors changed by a function."""
    model = {name: value.clone() for name, value in checkpoint["model"].items()}
    for name, function in change.items():
        function(model[name.replace("__", ".")])
    return checkpoint | dict(model=model)


def test_values_too_large_for_fp16_are_refused_on_a_cpu(run, checkpoint, capsys):
    large = changed(
        checkpoint,
        blocks__1__mlp__fc1__bias=lambda bias: bias[3].fill_(40_000),
        blocks__1__mlp__fc2__weight=lambda weight: weight[:, 3].fill_(0),
    )  # it changes no probability
    save_checkpoint(run / "best.pt", large)
    assert main([str(run), "--precision", "fp16"]) == 3
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "blocks.1.mlp.fc1" in error
        and re.search("(39,9|40,0)[0-9]{2} occurs", error)
    )
    assert names(run) == ["best.pt"]


def test_values_that_fp16_does_not_hold_are_refused_with_the_remedy(run, checkpoint, capsys):
    """In any place of a block, weights and what they are folded with: in one line, without NaN."""
    places = dict(
        blocks__1__mlp__fc2__weight=lambda weight: weight[0].fill_(1e5),
        blocks__0__mlp__fc1__bias=lambda bias: bias[3].fill_(-7e4),
        blocks__2__attn__qkv__weight=lambda weight: weight[5].fill_(1e6),
        blocks__0__ls1__gamma=lambda gamma: gamma[0].fill_(1e7),
        blocks__2__norm1__weight=lambda weight: weight[0].fill_(7e4),
    )
    for name, change in places.items():
        save_checkpoint(run / "best.pt", changed(checkpoint, **{name: change}))
        assert main([str(run), "--precision", "fp16"]) == 3
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "use fp32 or int8" in error
        assert "blocks." in error and "65,504" in error
        assert names(run) == ["best.pt"]


def test_a_graph_that_overflows_is_refused_with_the_remedy(run, monkeypatch, capsys):
    """As a GPU computes an fp16 file: NaN, in a value that no training image came near to."""
    def overflowing(state, *args, **options):
        bias = np.full_like(state["head.bias"], np.nan)
        return classifier(state | {"head.bias": bias}, *args, **options)

    monkeypatch.setattr(to_onnx, "classifier", overflowing)
    assert main([str(run), "--precision", "fp16"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "not a number; use fp32 or int8" in error
    assert names(run) == ["best.pt"]


def test_digits_that_fp16_does_not_have_are_refused_on_a_cpu(run, checkpoint, capsys):
    def lift(attention_bias):
        attention_bias += (
            20_000  # of every channel alike, which the next LayerNorm takes away again
        )

    ones = {f"blocks__{n}__ls1__gamma": lambda gamma: gamma.fill_(1) for n in range(3)}
    save_checkpoint(run / "best.pt", changed(checkpoint, blocks__0__attn__proj__bias=lift, **ones))
    assert main([str(run), "--precision", "fp16"]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "half precision differs" in error
    assert names(run) == ["best.pt"]


def test_attention_logits_count(checkpoint):
    model = random_model()[0]
    with torch.inference_mode():
        model.blocks[0].attn.qkv.bias[:96] += (
            300.0  # queries and keys: 16 channels a head, 300 * 300 * 16 / 4
        )
        values = precision.largest_values(model, torch.rand(2, 3, 64, 64))
    assert values["blocks.0.attn logits"] == pytest.approx(360_000, rel=0.1)
    assert max(values, key=values.get) == "blocks.0.attn logits"


def test_what_was_measured_travels_with_the_file(run, capsys):
    assert main([str(run), "--precision", "fp16"]) == 0
    out = capsys.readouterr().out
    check = Predictor(run / "model-fp16.onnx", "cpu").metadata["precision_check"]
    if runtime.cuda_problem():
        assert check["device"].startswith(
            "the CPU, which computes fp16 files in fp32; the largest value in the "
        )
    assert (
        f"checked on {check['device']}" in out
        and check["device"] in (run / "MODEL_CARD-fp16.md").read_text()
    )
    assert check["split"] == "val" and check["decisions"] == 5 * check["images"]
    assert 0 < check["largest_change"] < 0.05


# -- int8 -----------------------------------------------------------------------------------------


def outlier_model():
    """A model with a few channels much larger than the rest, as large ViTs have them."""
    model, _ = random_model()
    with torch.no_grad():
        for block in model.blocks:
            block.norm1.weight[::16] *= 30
            block.norm2.weight[::16] *= 30
    return model, {name: value.numpy() for name, value in model.state_dict().items()}


def test_smoothing_changes_no_output():
    model, state = outlier_model()
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(images)
        smoothed, _ = int8(model, state, images)
        assert not np.array_equal(smoothed["blocks.0.norm1.weight"], state["blocks.0.norm1.weight"])
        model.load_state_dict({name: torch.tensor(value) for name, value in smoothed.items()})
        assert torch.allclose(model(images), expected, rtol=1e-3, atol=1e-3)


def outputs(proto, images):
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"image": images})[0]


def test_smoothing_makes_int8_closer(monkeypatch):
    model, state = outlier_model()
    images = np.stack([radiograph(64, 64, seed) for seed in range(24)])[:, None].astype(np.float32)
    exact = outputs(classifier(state, model.config), images)
    errors = {}
    for strength in (0.0, 0.5):
        monkeypatch.setattr(quantize, "SMOOTHING", strength)
        with torch.inference_mode():
            smoothed, linear = int8(model, state, to_input(torch.from_numpy(images)))
        found = outputs(classifier(smoothed, model.config, block_linear=linear), images)
        errors[strength] = np.abs(found - exact).mean()
    assert errors[0.5] < errors[0.0] and errors[0.5] < 0.1


def test_int8_ranges_are_without_the_bias_of_the_values():
    """The graph adds it behind the projection; seen before it, it would take the whole range."""
    images = np.stack([radiograph(64, 64, seed) for seed in range(24)])[:, None].astype(np.float32)
    errors = []
    for bias in (0.0, 50.0):
        model, state = random_model()
        for block in model.blocks:  # state shares the memory
            width = model.config["embed_dim"]
            block.attn.qkv.bias.detach()[2 * width:] = bias
            block.attn.proj.bias.detach()[:] = -bias * block.attn.proj.weight.detach().sum(1)
        with torch.inference_mode():
            smoothed, linear = int8(model, state, to_input(torch.from_numpy(images)))
        exact = outputs(classifier(state, model.config), images)
        found = outputs(classifier(smoothed, model.config, block_linear=linear), images)
        errors.append(np.abs(found - exact).mean())
    assert errors[1] < 1.5 * errors[0]


def test_int8_does_not_depend_on_the_rest_of_the_batch():
    model, state = random_model()
    images = np.stack([radiograph(70, 70, seed) for seed in range(4)])[:, None].astype(np.float32)
    with torch.inference_mode():
        smoothed, linear = int8(model, state, to_input(torch.rand(4, 3, 64, 64) * 255))
    proto = classifier(smoothed, model.config, block_linear=linear)
    alone = np.concatenate([outputs(proto, images[i : i + 1]) for i in range(4)])
    assert np.allclose(outputs(proto, images), alone, atol=1e-6)


def checked(y, before, after, labels, thresholds):
    return check_precision(y, before, after, np.arange(len(y)).astype(str), labels, thresholds)


def test_check_precision_measures_both_losses():
    rng = np.random.default_rng(0)
    y = np.tile(np.arange(400) % 2, (3, 1)).T.astype(float)
    good = y + 0.3 * rng.standard_normal(y.shape)
    checked(y, good, good, "abc", [0.5] * 3)
    worse = good.copy()
    worse[:, 1] = rng.standard_normal(400)
    with pytest.raises(Refused, match="AUC of b fell by 0.[345].*95 % interval 0.[345]"):
        checked(y, good, worse, "abc", [None] * 3)
    ordered = np.repeat([0.0, 1.0], 2000)  # of 2000 negatives, 200 go over 80 of 2000 positives
    y, ordered = np.tile(ordered, (3, 1)).T, np.tile(np.arange(4000.0) / 4000, (3, 1)).T
    moved = ordered.copy()
    moved[:2000:10] = 2079.5 / 4000
    with pytest.raises(Refused, match="mean AUC fell by 0.0040.*4000 radiographs of 4000 patients"):
        checked(y, ordered, moved, "abc", [None] * 3)
    with pytest.raises(Refused, match="cannot be checked.*--check-on train"):
        checked(np.ones((5, 1)), np.ones((5, 1)), np.ones((5, 1)), "a", [0.5])


def one_label(positives, negatives=400):
    """Labels, and scores that put the positives in the upper half of the negatives."""
    y = np.repeat([1.0, 0.0], [positives, negatives])[:, None]
    score = np.r_[np.linspace(0.6, 0.7, positives), np.linspace(0.1, 0.8, negatives)][:, None]
    return y, score


@pytest.mark.parametrize("positives", [1, 6])
def test_one_positive_patient_refuses_no_file(positives):
    """Its rounding by 0.0003 crosses many negatives, and in the one case is all there is."""
    y, before = one_label(positives)
    before[positives + 200 :] = 0.6001 + 1e-7 * np.arange(200)[:, None]  # crowded around the first
    after = before.copy()
    after[0] += 0.0003
    before, after = after, before  # it falls
    y, before, after = (np.c_[a, b] for a, b in zip((y, before, after), (y, before, before)))
    y[:, 1] = np.arange(len(y)) % 2  # a label that can be checked in any case
    found = checked(y, before, after, ["rare", "common"], [None, None])
    assert found.largest_change < 0.0004
    assert found.unchecked == (["rare"] if positives == 1 else [])
    assert (found.largest_auroc_loss > 0.005) == (positives == 6)
    assert found.not_excluded == ([] if positives == 1 else ["the AUC of rare", "the mean AUC"])


@pytest.mark.parametrize(
    "positives, flipped, change, refused",
    [(10, 2, 0.0003, True), (5, 1, 0.3, True), (5, 1, 0.0003, False), (50, 10, 0.3, True)],
)
def test_a_sensitivity_of_08_does_not_become_06(positives, flipped, change, refused):
    y, before = one_label(positives)
    before[:positives] = 0.7
    before[: positives // 5] = 0.3  # a sensitivity of 0.8
    rows = slice(positives // 5, positives // 5 + flipped)
    before[rows], after = 0.5 + change / 2, before.copy()
    after[rows] = 0.5 - change / 2
    if refused:
        with pytest.raises(Refused, match="of rare fell by"):
            checked(y, before, after, ["rare"], [0.5])
    else:
        assert checked(y, before, after, ["rare"], [0.5]).changed_decisions == 1


# -- what few radiographs cannot tell -------------------------------------------------------------


def noisy(images, noise, seed=0):
    """Five labels, a third positive, and probabilities before and after noise in the log-odds."""
    rng = np.random.default_rng(seed)
    y = (rng.random((images, 5)) < 1 / 3).astype(float)
    odds = 1.5 * (2 * y - 1) + 1.5 * rng.standard_normal(y.shape)
    return y, sigmoid(odds), sigmoid(odds + noise * rng.standard_normal(y.shape))


def test_noise_that_moves_a_probability_far_is_refused_on_few_images_too():
    """It turned 17 of 600 decisions and passed, since the loss was "not more than chance"."""
    y, before, after = noisy(120, noise=0.45)
    assert np.abs(after - before).max() == pytest.approx(0.3, abs=0.05)
    turned = ((before >= 0.5) != (after >= 0.5)).sum()
    assert 10 < turned < 40
    with pytest.raises(Refused, match="a probability of label [0-4] changed by 0[.][23].*allowed"):
        checked(y, before, after, [f"label {i}" for i in range(5)], [0.5] * 5)


def test_what_few_images_cannot_exclude_is_said_and_more_images_exclude_it(capsys):
    labels = [f"label {i}" for i in range(5)]
    few = checked(*noisy(120, noise=0.15), labels, [0.5] * 5)
    assert few.largest_change < precision.MAX_CHANGE
    assert "the AUC of label 3" in few.not_excluded
    assert "cannot be excluded on so few images (120 radiographs of 120" in capsys.readouterr().out
    many = checked(*noisy(4000, noise=0.15), labels, [0.5] * 5)
    assert many.not_excluded == [] and "cannot be excluded" not in capsys.readouterr().out


@pytest.mark.parametrize("positives, is_excluded", [(20, False), (30, False), (50, True)])
def test_a_sensitivity_that_few_patients_keep_is_no_proof(positives, is_excluded):
    """No decision of n patients turned: a loss in one of ten has a chance of 0.9^n to stay unseen.

    That is 12 % for 20 patients, 4 % for 30 and 0.5 % for 50; to exclude it takes 2.5 %.
    """
    y, before = one_label(positives)
    before[:positives] = 0.7
    found = checked(y, before, before, ["rare"], [0.5])
    assert ("the sensitivity of rare" not in found.not_excluded) == is_excluded
    assert "the AUC of rare" not in found.not_excluded


def test_images_of_one_patient_count_once():
    """Twenty images of two patients are no evidence: the label is not checked."""
    y, before = one_label(20)
    patients = np.r_[np.repeat(["a", "b"], 10), np.arange(400).astype(str)]
    y, before = np.c_[y, np.arange(420) % 2], np.c_[before, before]
    found = check_precision(y, before, before, patients, ["two", "many"], [None, None])
    assert found.unchecked == ["two"]


def test_check_precision_shows_what_happens_at_the_thresholds(capsys):
    y = np.tile([[1, 1], [1, 0], [0, 1], [0, 0], [np.nan, 1]], (5, 1))
    before = np.tile([[0.8, 0.9], [0.6, 0.2], [0.2, 0.8], [0.1, 0.3], [0.4, 0.7]], (5, 1))
    after = before.copy()
    after[[2, 4], 0] = 0.4, 0.6  # one without a label changes its decision
    assert checked(y, before, after, ["first", "second"], [0.5, None]) == precision.PrecisionCheck(
        largest_auroc_loss=0.0,
        mean_auroc_loss=0.0,
        largest_change=pytest.approx(0.2),
        decisions=25,
        changed_decisions=1,
        unchecked=[],
        not_excluded=["the AUC of first", "the AUC of second", "the mean AUC",  # of 25 patients
                      "the specificity of first", "the sensitivity of first"],  # of 10 each
    )
    first, second, total, doubt = capsys.readouterr().out.splitlines()[1:]
    assert "cannot be excluded on so few images (25 radiographs of 25 patients)" in doubt
    assert first.split()[3:] == "0.2000 1 1.000 -> 1.000 1.000 -> 1.000".split()
    assert "no threshold" in second and total.endswith("1 of 25")


def test_check_precision_names_what_it_cannot_check(capsys):
    y = np.tile([[1, 0, np.nan], [0, 0, 1], [1, 0, np.nan]], (5, 1))
    scores = np.tile([[0.8, 0.9, 0.4], [0.6, 0.2, 0.5], [0.7, 0.3, 0.1]], (5, 1))
    found = checked(y, scores, scores, ["first", "second", "third"], [0.5, 0.5, None])
    assert found.unchecked == ["second", "third"]
    out = capsys.readouterr().out
    assert "AUC not checked, with fewer than 5 patients with or without it: second, third" in out
    assert "nan" not in out


# -- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("slope, offset, count", [(0.4, -2.0, 500), (3.0, 1.0, 80), (1.0, 0.0, 30)])
def test_platt_is_scikit_learns_logistic_regression_on_platts_targets(slope, offset, count):
    rng = np.random.default_rng(count)
    logit = rng.normal(0, 2, count)
    y = (rng.random(count) < sigmoid(slope * logit + offset)).astype(float)
    target = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))
    both = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.tile(logit, 2)[:, None],
        np.repeat([1, 0], count),
        sample_weight=np.concatenate([target, 1 - target]),
    )
    assert platt(y, logit) == pytest.approx((both.coef_[0, 0], both.intercept_[0]), abs=1e-4)


def test_platt_finds_the_map_that_made_the_labels():
    rng = np.random.default_rng(1)
    logit = rng.normal(0, 2, 200_000)
    y = (rng.random(200_000) < sigmoid(0.7 * logit - 1.5)).astype(float)
    assert platt(y, logit) == pytest.approx((0.7, -1.5), abs=0.03)


def test_calibration_error_of_hand_made_bins():
    probability = np.array([0.05] * 10 + [0.75] * 20 + [1.0] * 10)
    y = np.array([0] * 8 + [1] * 2 + [0] * 5 + [1] * 15 + [1] * 9 + [0])
    assert calibration_error(y, probability) == pytest.approx(
        (10 * 0.15 + 20 * 0.0 + 10 * 0.1) / 40
    )


def test_a_label_is_calibrated_only_where_that_helps(monkeypatch, capsys):
    rng = np.random.default_rng(0)
    inflated = rng.uniform(0.05, 0.95, 1000)
    exact = np.repeat(
        np.arange(10) / 10 + 0.05, 100
    )  # of each bin, as many are positive as its probability says
    y_true = np.stack(
        [
            rng.random(1000) < sigmoid(np.log(inflated / (1 - inflated)) - 2),
            np.arange(1000) % 100 < np.repeat(np.arange(10) * 10 + 5, 100),
        ],
        axis=1,
    ).astype(np.float32)
    scores = np.stack([inflated, exact], axis=1).astype(np.float32)
    table = SimpleNamespace(patient_id=np.arange(1000).astype(str))

    def fitted(columns):
        labels = ["inflated", "exact"][columns]
        dataset = type("Validation", (), dict(labels=labels, table=table, __len__=lambda _: 1000))()
        monkeypatch.setattr(
            "export.calibrate.predict", lambda *_, **__: (y_true[:, columns], scores[:, columns])
        )
        model = SimpleNamespace(head=torch.nn.Linear(1, scores[:, columns].shape[1]))
        torch.nn.init.ones_(model.head.weight), torch.nn.init.zeros_(model.head.bias)
        count = scores[:, columns].shape[1]
        return calibrate(model, dataset, [0.5] * count, {}, np.full(count, 20.0)), model.head

    result, head = fitted(slice(0, 2))
    assert head.bias[0].item() == pytest.approx(-2, abs=0.3) and result.thresholds[0] < 0.2
    assert (
        head.weight[1].item() == 1
        and head.bias[1].item() == 0
        and result.thresholds[1] == pytest.approx(0.5)
    )
    assert np.isnan(result.after[:, 1]).all() and not np.isnan(result.after[:, 0]).any()
    assert [one["method"] for one in result.calibration] == ["platt", "none"]
    assert "left as it is" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no label's probabilities come nearer"):
        fitted(slice(1, 2))


@pytest.mark.parametrize("first", range(0, 60, 6))
def test_folds_keep_patients_whole_and_have_both_kinds(first):
    patients = np.repeat(np.arange(60), 3)
    y = np.zeros(180)
    y[3 * np.arange(first, first + 6) + 1] = 1  # one image each of six patients
    fold, counts = folds(y, patients)
    assert counts == (6, 54)
    assert all(len(set(fold[patients == patient])) == 1 for patient in range(60))
    assert all(y[fold == k].any() for k in range(5)) and np.bincount(fold).max() <= 3 * (11 + 2)


def calibrated(monkeypatch, y, scores, patients, weight, thresholds=None):
    """`calibrate` on given validation predictions: its result and the head."""
    labels = [f"label {i}" for i in range(y.shape[1])]
    table = SimpleNamespace(patient_id=patients)
    dataset = type("Validation", (), dict(labels=labels, table=table, __len__=lambda _: len(y)))()
    monkeypatch.setattr("export.calibrate.predict", lambda *_, **__: (y, scores))
    model = SimpleNamespace(head=torch.nn.Linear(1, len(labels)))
    torch.nn.init.ones_(model.head.weight), torch.nn.init.zeros_(model.head.bias)
    result = calibrate(model, dataset, thresholds or [0.5] * len(labels), {}, weight)
    return result, model.head


def test_a_label_of_too_few_patients_loses_its_class_weight(monkeypatch, capsys):
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.05, 0.95, (400, 3)).astype(np.float32)
    y = (rng.random((400, 3)) < sigmoid(np.log(scores / (1 - scores)) - 2)).astype(np.float32)
    patients = np.arange(400).astype(str)
    y[:, 1:], patients[:40] = 0, np.repeat(["a", "b", "c", "d"], 10)
    y[:40, 1:] = 1  # many images, of four patients
    weight = np.array([8.0, 8.0, 1.0])
    result, head = calibrated(monkeypatch, y, scores, patients, weight)
    after = result.after
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    reason = "4 patients with it and 360 without; 5 of each are needed"
    assert (
        f"class weight taken back: {reason}" in lines[2] and f"left as it is: {reason}" in lines[3]
    )
    assert [one["method"] for one in result.calibration] == ["platt", "prior", "none"]
    odds = scores[:, 1] / (1 - scores[:, 1])
    assert np.allclose(after[:, 1] / (1 - after[:, 1]), odds / 8, rtol=1e-4)
    assert np.isnan(after[:, 2]).all()
    assert head.bias[1].item() == pytest.approx(-np.log(8)) and head.bias[2].item() == 0
    assert result.thresholds[1] == pytest.approx(1 / 9) and result.thresholds[2] == 0.5


def test_the_class_weight_is_what_the_weighted_loss_adds():
    """A fit of PyTorch's weighted loss, less log(w), says the frequencies of the data."""
    rng = np.random.default_rng(3)
    x = torch.tensor(rng.integers(0, 4, 4000), dtype=torch.long)
    rate = torch.tensor([0.02, 0.05, 0.1, 0.3])
    y = (torch.tensor(rng.random(4000)) < rate[x]).double()
    w = torch.tensor(float((1 - y).sum() / y.sum())).double()
    logit = torch.zeros(4, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=200, tolerance_grad=1e-12)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logit[x], y, pos_weight=w)
        loss.backward()
        return loss

    optimizer.step(closure)
    frequency = torch.stack([y[x == k].mean() for k in range(4)])
    shifted = choose(
        np.array([1.0, 0.0]), logit.detach().numpy()[:2], np.array(["a", "b"]), w.item()
    ).map
    found = torch.sigmoid(logit.detach() + shifted.offset)
    assert shifted.method == "prior" and torch.allclose(found, frequency, atol=1e-6)


@pytest.mark.parametrize("kind", ["backwards", "steep"])
def test_a_label_that_would_be_inverted_or_stretched_is_refused_by_name(monkeypatch, capsys, kind):
    rng = np.random.default_rng(2)
    y = (rng.random((300, 2)) < 0.2).astype(np.float32)
    logit = rng.normal(0, 1, (300, 2)) + 2 * y - 1
    if kind == "backwards":
        logit[:, 1] = rng.normal(2, 1, 300) - 2 * y[:, 1]
    else:
        logit[:, 1] = 0.02 * (rng.normal(0, 1, 300) + 4 * y[:, 1])  # a slope of about 200
    scores = sigmoid(logit).astype(np.float32)
    result, head = calibrated(
        monkeypatch, y, scores, np.arange(300).astype(str), np.array([4.0, 4.0])
    )
    line = next(line for line in capsys.readouterr().out.splitlines() if "label 1" in line)
    assert ("AUC on validation is 0.0" if kind == "backwards" else "a slope of ") in line
    first, second = result.calibration
    assert first["method"] == "platt" and second["method"] != "platt" and second["slope"] == 1
    assert head.weight[1].item() == 1


def test_reliability_shows_calibrated_labels_alone(tmp_path, monkeypatch):
    """The number of predictions that are drawn, read off the figure's lower axes."""
    pytest.importorskip("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figures, made = [], Figure.__init__

    def init(self, *args, **kwargs):
        figures.append(self)
        made(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "__init__", init)
    rng = np.random.default_rng(0)
    before = rng.random((200, 2))
    y = (rng.random((200, 2)) < before).astype(float)
    after = np.stack([before[:, 0] ** 2, np.full(200, np.nan)], 1)
    result = Calibrated([], [], y, before, after)
    to_onnx.draw_reliability(tmp_path / "reliability.png", result)
    upper, lower = figures[0].axes
    assert [int(line.get_ydata().sum()) for line in lower.lines] == [200, 200]
    assert "1 calibrated labels" in upper.get_title() and len(upper.containers) == 2
    bars = upper.containers[0]  # before calibration, a bin each tenth
    tenth = (before[:, 0] * 10).astype(int)
    for found, values in zip(bars[0].get_data(), (before[:, 0], y[:, 0]), strict=True):
        assert found == pytest.approx([values[tenth == i].mean() for i in range(10)])
    for count, frequency, bar in zip(lower.lines[0].get_ydata(), bars[0].get_ydata(),
                                     bars[2][0].get_segments(), strict=True):
        wilson = binomtest(round(count * frequency), int(count)).proportion_ci(method="wilson")
        assert bar[0, 1] <= wilson.low <= wilson.high <= bar[1, 1]  # Student's t is a bit wider
        assert np.ptp(bar[:, 1]) < 1.2 * (wilson.high - wilson.low)
    FigureCanvasAgg(figures[0]).draw()
    size = figures[0].bbox
    for text in [
        upper.title,
        *upper.texts,
        upper.xaxis.label,
        upper.yaxis.label,
        lower.xaxis.label,
    ]:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= size.x1 and box.y0 >= 0 and box.y1 <= size.y1


def test_calibrated_file_ranks_and_decides_as_before(run, checkpoint, corpus):
    test = open_split(corpus, "test")
    files = [test.path(i) for i in range(len(test))]
    assert main([str(run)]) == 0
    middle = np.median(Predictor(run / "model.onnx", "cpu")(files), axis=0)[:5].tolist()
    save_checkpoint(run / "best.pt", checkpoint | dict(thresholds=[*middle, None]))
    assert main([str(run)]) == 0
    assert main([str(run), "--calibrate", "--out", str(run / "calibrated.onnx")]) == 0
    before, after = Predictor(run / "model.onnx", "cpu"), Predictor(run / "calibrated.onnx", "cpu")
    p, q = before(files), after(files)
    assert np.abs(p - q).max() > 0.02
    for i in range(p.shape[1]):
        order = np.argsort(p[:, i], kind="stable")
        assert (np.diff(q[order, i]) >= -1e-6).all()
    same = before.predict_labels(p) == after.predict_labels(q)
    for t, moved, old, new in zip(before.thresholds[:5], after.thresholds, p.T, q.T):
        assert moved == pytest.approx(np.interp(t, np.sort(old), np.sort(new)), abs=0.02)
    assert same.mean() > 0.95  # float32 may tip the one probability of a label on its threshold
    assert "platt" in after.calibration and after.metadata["thresholds"][5] is None
    assert (
        "logistic map (Platt) fitted on validation: "
        in (run / "MODEL_CARD-calibrated.md").read_text()
    )
    assert (run / "reliability.png").exists()
