"""What is read off the fields of the settings: command line, limits, resume, kinds of runs."""

import csv
import json
import shutil
from dataclasses import dataclass, fields

import pytest

import data
import train
from models import settings
from models.checkpoint import load_checkpoint
from models.settings import Config, ProbeConfig, kind_of_run, setting, settings_of


@dataclass
class Longer(Config):
    """Fine-tuning with a setting of which nothing is said but its help and group."""

    dropout: float = setting(0.0, "Drops so many activations.", "recipe")


def test_a_new_setting_is_safe_where_nothing_is_said_of_it(monkeypatch, tmp_path):
    """It may not change at a resume, tells runs apart, and is on the command line."""
    parser = settings.build_parser(Longer, "")
    assert parser.parse_args(["--dropout", "0.5"]).dropout == 0.5
    before = {"dropout": 0.0, "schedule": "constant"}
    with pytest.raises(ValueError, match="dropout was 0.0 and is 0.5"):
        settings.check_resumed(before, before | {"dropout": 0.5}, tmp_path, Longer)
    monkeypatch.setattr(settings, "Config", Longer)
    assert kind_of_run({"dropout": 0.5}) != kind_of_run({})
    assert settings.departs_from_paper({"dropout": 0.5}) == ["dropout"]


def test_every_setting_has_its_record_and_a_sentence():
    for config in (Config, ProbeConfig):
        known = settings_of(config)
        assert set(known) == {f.name for f in fields(config)}
        for name, one in known.items():
            assert one.group in settings.GROUPS and one.help.endswith("."), name
            assert one.help[0].isupper() or one.help.startswith("'"), name


@pytest.mark.parametrize("option, value", [
    ("limit", 40), ("uncertain", "ignore"), ("epochs", 3), ("train_images", 1000), ("patience", 2),
    ("augment", "none"), ("weights_sha256", "ab"), ("method", "linear probe"),
    ("images_train", 20), ("split_hash", "ab"), ("labels_hash", "ab"),
    ("preprocessing", "ab")])
def test_runs_that_differ_in_what_matters_are_of_another_kind(option, value):
    assert kind_of_run({option: value}) != kind_of_run({})


@pytest.mark.parametrize("option, value", [
    ("seed", 3), ("root", "/x"), ("cache_dir", "/x"), ("workers", 3), ("device", "cpu"),
    ("accumulate", 4), ("out", "x"), ("resume", True), ("compile", True), ("processes", 4)])
def test_runs_that_differ_in_the_machine_are_of_one_kind(option, value):
    assert kind_of_run({option: value}) == kind_of_run({})


def test_sizes_of_whole_patients_are_one_size():
    """1,001 and 1,003 images of two seeds are both the size of 1,000."""
    one = {"train_images": 1000, "images_train": 1001, "labels_hash": "of these images"}
    other = {"train_images": 1000, "images_train": 1003, "labels_hash": "of those"}
    assert kind_of_run(one) == kind_of_run(other)


def test_help_shows_the_basic_options_and_help_all_the_rest(capsys):
    for option, count in (("--help", 11), ("--help-all", 60)):
        with pytest.raises(SystemExit) as end:
            train.main([option])
        printed = capsys.readouterr().out
        assert end.value.code == 0 and ("--layer-decay" in printed) == (option == "--help-all")
        assert printed.count("\n  --") <= count
        titles = [printed.index(f"\n{title}:") for title in settings.GROUPS.values()
                  if f"\n{title}:" in printed]
        assert titles == sorted(titles) and len(titles) == 5


def test_images_of_a_size_are_those_of_the_first_patients(arguments, tmp_path, capsys):
    """Nested within a seed, whole patients, validation and test whole, weights of the subset."""
    config = {}
    for name, options in (("small", dict(train_images=6)), ("large", dict(train_images=20)),
                          ("other", dict(train_images=20, seed=1))):
        assert train.main(arguments(name, epochs=1, **options)) == 0
        config[name] = load_checkpoint(tmp_path / name / "best.pt")["config"]
    printed = capsys.readouterr().out
    assert "no positive image in training" in printed  # of six images, some label has none
    root = config["small"]["root"]
    whole = data.CORPORA["phantom"](root, "train", tables_only=True)
    chosen = {}
    for name, (count, seed) in dict(small=(6, 0), large=(20, 0), other=(20, 1)).items():
        rows = whole.first_patients(count, seed)
        chosen[name] = set(whole.table.image_id[rows])
        assert config[name]["images_train"] == len(rows) >= count
        patients = set(whole.table.patient_id[rows])
        assert len(rows) == sum(patient in patients for patient in whole.table.patient_id)
    assert chosen["small"] < chosen["large"] and chosen["large"] != chosen["other"]
    assert {one["images_val"] for one in config.values()} == {6}
    assert {one["split_hash"] for one in config.values()} == {whole.split_hash}


def own_images(root, phantom, header="image,patient_id,split,Edema,Mass"):
    """A custom corpus of phantom images: patients in turn with one label, the other, or both."""
    root.mkdir()
    lines = [header]
    for number, path in enumerate(sorted((phantom / "images").glob("*.png"))[:24]):
        shutil.copy(path, root / path.name)
        split = ("train", "train", "val", "test")[number % 4]
        lines.append(f"{path.name},p{number},{split},{number // 4 % 2},{number // 8 % 2}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.mark.parametrize("change, expected", [
    ("columns", "the labels were Edema, Mass and are Mass, Edema"),
    ("name", "the labels were Edema, Mass and are Edema, Tumor"),
    ("cell", "the images' labels have changed")])
def test_a_resume_with_other_labels_is_refused_and_the_run_can_still_go_on(
        arguments, phantom, tmp_path, capsys, change, expected):
    root = own_images(tmp_path / "own", phantom)
    words = arguments(data="custom", root=root, epochs=1, labels="all", keep="last",
                      cache_dir=tmp_path / "cache")
    assert train.main(words) == 0
    files = {name: (tmp_path / "run" / name).read_bytes() for name in ("last.pt", "best.pt")}
    table = root / "labels.csv"
    given = table.read_text()
    lines = given.splitlines()
    if change == "columns":
        cells = [line.split(",") for line in lines]
        lines = [",".join([*row[:3], row[4], row[3]]) for row in cells]
    elif change == "name":
        lines[0] = lines[0].replace("Mass", "Tumor")
    else:
        lines[1] = lines[1][:-1] + "1"
    table.write_text("\n".join(lines) + "\n")
    more = [*[word for word in words if "--epochs" not in word], "--epochs=2", "--resume"]
    assert train.main(more) == 2
    assert expected in capsys.readouterr().err
    for name, content in files.items():
        assert (tmp_path / "run" / name).read_bytes() == content
    table.write_text(given)
    assert train.main(more) == 0
    with open(tmp_path / "run" / "log.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["labels_trained"] == [
        "Edema", "Mass"]


@pytest.mark.parametrize("label", ["Effusion ($$)", "$x_$", "a^b$c^$", "_hidden", "x" * 300])
def test_a_label_is_text_in_the_picture_and_ends_no_run(tmp_path, label):
    from matplotlib.image import imread

    from stats.curves import plot_curves
    rows = [dict(epoch=epoch, train_loss=1 / epoch, val_loss=1 / epoch, val_auroc=0.5,
                 **{f"auroc {label}": 0.5}) for epoch in (1, 2)]
    assert plot_curves(rows, tmp_path / "curves.png") is None
    picture = imread(tmp_path / "curves.png")
    assert picture.shape[1] > 1000
    left_axes = picture[:, 80:480, :3].mean(axis=2)
    assert (left_axes < 0.9).mean() > 0.01  # the axes were not squeezed away by the legend


def test_a_picture_that_fails_is_said_once_and_the_run_goes_on(
        arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda *args, **options: 1 / 0)
    assert train.main(arguments(epochs=2)) == 0
    assert capsys.readouterr().out.count("no curves.png: ZeroDivisionError") == 1
    assert (tmp_path / "run" / "best.pt").exists()
