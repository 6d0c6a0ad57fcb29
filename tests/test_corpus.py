"""The base Dataset: splits by patient, missing and bad files, limits, batches and strict reading of
tables."""

import csv
import gzip
import hashlib
import json
import pickle
import random
import shutil

import numpy as np
import pytest
import torch
from configs import open_config
from phantom_layouts import draw_layout
from phantom_layouts import main as phantom_main
from PIL import Image

import evaluate
import train
from data import CORPORA, default_root
from data.cohort import main as cohort_main
from data.decode import read_image
from data.files import find_elsewhere
from data.phantom.layouts import make_phantom
from data.preprocess import preprocess
from data.splits import SPLITS, assign, check_disjoint, draw_patients, read_split, split_hash
from data.tables import read_csv
from stats.predictions import load_predictions

Phantom = CORPORA["phantom"]


def load(path, size):
    return preprocess(read_image(path), size)


@pytest.fixture(scope="module")
def phantom_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom") / "phantom"
    make_phantom(root, patients=20, size=64)
    return root


@pytest.fixture
def options(tmp_path, phantom_root):
    """A small phantom of one's own, to be spoilt."""
    root = tmp_path / "phantom"
    shutil.copytree(phantom_root, root)
    return dict(root=root, image_size=32, cache_dir=tmp_path / "cache", workers=1, progress=False)


def ukacxr(folder, patients, **cells):
    """A table of one image for each patient id, graded all negative."""
    folder.mkdir(exist_ok=True)
    both = ("Pleural effusion", "Pneumonia", "Atelectasis")
    sides = [f"{name} {side}" for name in both for side in ("right", "left")]
    with open(folder / "ukacxr.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient_id", "view", "Cardiomegaly", *sides, "Congestion"])
        for i, patient in enumerate(patients):
            writer.writerow([f"{patient}_{cells.get('order', range(len(patients)))[i]}.png",
                             patient, "AP", "normal", *["negative"] * 7])
    return folder


# --- splits

def test_split_follows_the_hashes_of_the_patients():
    patients = np.array([f"p{i}" for i in range(50)])
    split = assign(patients, np.full(50, ""), val_fraction=0.1, seed=3)

    def rank(salt, ids):
        return sorted(ids, key=lambda i: hashlib.sha256(f"{salt}:{i}".encode()).hexdigest())

    test = rank("test:3", patients)[:10]  # 20 % of 50
    val = rank("3", [p for p in patients if p not in test])[:4]  # 10 % of 40
    assert set(patients[split == "test"]) == set(test)
    assert set(patients[split == "val"]) == set(val)


def test_split_does_not_depend_on_the_order_of_rows(tmp_path):
    patients = [f"{i % 40}" for i in range(100)]
    order = list(range(100))
    first = CORPORA["ukacxr"](ukacxr(tmp_path / "a", patients, order=order), tables_only=True)
    shuffled = list(zip(patients, order))
    random.Random(0).shuffle(shuffled)
    patients, order = zip(*shuffled)
    second = CORPORA["ukacxr"](ukacxr(tmp_path / "b", patients, order=order), tables_only=True)
    assert first.split_hash == second.split_hash
    assert set(first.table.image_id) == set(second.table.image_id)
    other = CORPORA["ukacxr"](tmp_path / "b", tables_only=True, split_seed=1)
    assert other.split_hash != first.split_hash


def test_no_patient_is_in_two_splits(tmp_path):
    root = ukacxr(tmp_path, [f"{i % 30}" for i in range(90)])
    parts = {s: set(CORPORA["ukacxr"](root, s, tables_only=True, val_fraction=0.2).table.patient_id)
             for s in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 30
    assert [len(parts[s]) for s in ("train", "val", "test")] == [19, 5, 6]
    with pytest.raises(ValueError, match="in more than one split: 1 of 2 patients, the first is a"):
        check_disjoint(np.array(["a", "b", "a"]), np.array(["train", "test", "test"]))


def test_a_handful_of_patients_leaves_no_set_empty(tmp_path):
    """Where all patients drawn for testing are outside the cohort, it draws its own."""
    patients = [f"p{i}" for i in range(10)]
    root = ukacxr(tmp_path, patients)
    table = root / "ukacxr.csv"
    for patient in draw_patients(patients, 0.2, "test:0"):
        table.write_text(table.read_text().replace(f",{patient},AP", f",{patient},LAT"))
    assert CORPORA["ukacxr"](root, tables_only=True).splits == {"train": 5, "val": 1, "test": 2}


def test_official_splits_are_kept():
    patients = np.array(list("abcdefghij"))
    official = np.array(["train"] * 8 + ["test"] * 2)
    split = assign(patients, official, val_fraction=0.25)
    assert (split == "test").tolist() == [False] * 8 + [True] * 2 and (split == "val").sum() == 2
    complete = np.array(["train"] * 7 + ["val"] + ["test"] * 2)
    assert assign(patients, complete, val_fraction=0.25).tolist() == complete.tolist()
    # nothing is drawn out of a training set that was given
    without_test = np.array(["train"] * 8 + ["val"] * 2)
    assert assign(patients, without_test, val_fraction=0.25).tolist() == without_test.tolist()


def test_fractions_at_their_ends():
    assert draw_patients("abc", 0, "s") == set()
    assert len(draw_patients("abc", 0.01, "s")) == 1
    assert len(draw_patients("abc", 0.99, "s")) == 2
    assert draw_patients("a", 0.5, "s") == set()
    with pytest.raises(ValueError, match="val_fraction"):
        assign(np.array(["a"]), np.array([""]), val_fraction=1)


def test_split_file_is_written_and_read_back(tmp_path):
    root = ukacxr(tmp_path / "uka", [f"{i % 30}" for i in range(90)])
    drawn = CORPORA["ukacxr"](root, tables_only=True, split_seed=5)
    drawn.write_split(tmp_path / "split.json")
    again = CORPORA["ukacxr"](root, "test", tables_only=True, split_file=tmp_path / "split.json")
    assert again.split_hash == drawn.split_hash and len(again) == drawn.splits["test"]
    lines = sorted(f"{i}\t{s}" for i, s in zip(drawn.cohort_table.image_id, drawn.cohort_split))
    assert drawn.split_hash == hashlib.sha256("\n".join(lines).encode()).hexdigest()

    by_patient = tmp_path / "patients.csv"
    by_patient.write_text("patient_id,split\n" + "".join(f"{i},{'test' if i < 3 else 'train'}\n"
                                                         for i in range(30)))
    assert CORPORA["ukacxr"](root, tables_only=True, split_file=by_patient).splits == {
        "train": 81, "val": 0, "test": 9}


@pytest.mark.parametrize("change, message", [
    (lambda c: c["splits"]["train"].pop(), "has the hash .* the file says"),
    (lambda c: c.update(corpus="vindr"), "a split of vindr, not of phantom"),
    (lambda c: c.pop("splits"), "not a split file of this project"),
    (lambda c: c["splits"]["train"].append(c["splits"]["test"][0]), "is in train and in test"),
    (lambda c: c["splits"].update(other=["x"]), "x has the split 'other'"),
    (lambda c: c["splits"]["train"].append([1]), r"\[1\] is no image_id; expected text"),
    (lambda c: c.update(key="name"), "expected the key image_id or patient_id, found 'name'"),
])
def test_spoilt_split_files_are_refused(tmp_path, phantom_root, change, message):
    dataset = Phantom(phantom_root, tables_only=True)
    dataset.write_split(tmp_path / "split.json")
    content = json.loads((tmp_path / "split.json").read_text())
    change(content)
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        Phantom(phantom_root, tables_only=True, split_file=tmp_path / "split.json")


def test_split_files_that_are_no_text(tmp_path, phantom_root):
    for name, encoding in (("split.json", "utf-16"), ("split.csv", "utf-16")):
        (tmp_path / name).write_text("patient_id,split\n", encoding=encoding)
        with pytest.raises(ValueError, match=f"{name}: not UTF-8 text"):
            Phantom(phantom_root, tables_only=True, split_file=tmp_path / name)
    (tmp_path / "long.csv").write_text(f"image_id,split\na,train\n{'b' * 200_000},test\n")
    with pytest.raises(ValueError, match=r"long.csv:3: field larger than field limit"):
        Phantom(phantom_root, tables_only=True, split_file=tmp_path / "long.csv")
    (tmp_path / "patients.csv").write_text("image_id,split\n" + "".join(
        f"{image},{('train', 'test')[i % 2]}\n" for i,
        image in enumerate(Phantom(phantom_root, tables_only=True).cohort_table.image_id)))
    with pytest.raises(ValueError, match="patients.csv: in more than one split: .* patients"):
        Phantom(phantom_root, tables_only=True, split_file=tmp_path / "patients.csv")


def test_a_split_file_must_list_every_row(tmp_path):
    (tmp_path / "s.csv").write_text("image_id,split\na,train\n")
    with pytest.raises(ValueError,
                       match="lists no split for 1 of 2 images, the first has the image_id b"):
        read_split(tmp_path / "s.csv", "x", np.array(["a", "b"]), np.array(["1", "2"]))
    (tmp_path / "s.csv").write_text("image_id\na\n")
    with pytest.raises(ValueError, match="expected the two columns"):
        read_split(tmp_path / "s.csv", "x", np.array(["a"]), np.array(["1"]))


def test_split_hash_is_that_of_the_sorted_lines():
    expected = hashlib.sha256(b"a\ttrain\nb\ttest").hexdigest()
    assert split_hash(np.array(["b", "a"]), np.array(["test", "train"])) == expected


# --- items

def test_items_are_the_preprocessed_files(options):
    dataset = Phantom(split="test", **options)
    image, labels = dataset[3]
    assert image.dtype == torch.uint8 and image.shape == (1, 32,
                                                          32) and labels.dtype == torch.float32
    np.testing.assert_array_equal(image[0].numpy(), load(dataset.path(3), 32))
    np.testing.assert_array_equal(labels.numpy(), dataset.table.y[3])
    assert (dataset.table.y[5] != dataset.table.y[0]).any()
    images, targets = dataset.batch([5, 3, 0])
    for row, index in enumerate([5, 3, 0]):
        np.testing.assert_array_equal(images[row, 0].numpy(), load(dataset.path(index), 32))
        np.testing.assert_array_equal(targets[row].numpy(), dataset.table.y[index])


def test_pos_weight_is_negatives_per_positive_of_this_split(options):
    dataset = Phantom(**options)
    y = dataset.table.y
    has = [i for i in range(y.shape[1]) if y[:, i].any()]
    expected = [(y[:, i] == 0).sum() / (y[:, i] == 1).sum() for i in has]
    assert len(has) >= 4
    np.testing.assert_allclose(dataset.pos_weight()[has], expected, rtol=1e-6)
    dataset.table.y[:, 0] = 0
    dataset.table.y[0, 1] = np.nan
    weight = dataset.pos_weight()
    assert weight[0] == 1 and weight.dtype == np.float32
    assert weight[1] == pytest.approx((y[1:, 1] == 0).sum() / (y[1:, 1] == 1).sum())


def test_limit_is_a_fixed_subset_in_the_tables_order(options):
    whole = Phantom(**options)
    part = Phantom(limit=7, **options)
    assert len(part) == 7
    where = [whole.table.image_id.tolist().index(i) for i in part.table.image_id]
    assert where == sorted(where) and where != list(range(7))
    assert Phantom(limit=7, **options).table.image_id.tolist() == part.table.image_id.tolist()
    assert Phantom(limit=7, split_seed=1,
                   **options).table.image_id.tolist() != part.table.image_id.tolist()
    assert set(Phantom(limit=5, **options).table.image_id) < set(part.table.image_id)
    assert torch.equal(part[0][0], whole[where[0]][0])


def test_missing_images(options):
    whole = Phantom(**options)
    gone = [whole.path(1), whole.path(4)]
    gone[0].unlink()
    gone[1].unlink()
    gone[1].symlink_to("nowhere.png")  # as where a large file has not been fetched
    with pytest.raises(FileNotFoundError,
                       match=f"not on disk: 2 of the {len(whole)} images .* images/{gone[0].name}"):
        Phantom(**options)
    part = Phantom(on_missing="skip", **options)
    assert len(part) == len(whole) - 2
    assert part.skipped["missing"] == [(f"images/{path.name}", "not on disk") for path in gone]
    assert torch.equal(part[1][0], whole[2][0])  # rows and images stay together


def test_bad_images(options):
    whole = Phantom(**options)
    expected = whole[1][0].clone()
    path = whole.path(0)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=path.name):
        Phantom(**options)
    part = Phantom(on_bad="skip", **options)
    assert len(part) == len(whole) - 1 and torch.equal(part[0][0], expected)
    assert part.table.image_id.tolist() == whole.table.image_id[1:].tolist()
    (name, reason), = part.skipped["bad"]
    assert name == f"images/{path.name}" and reason


def test_links_to_another_disk_are_followed_by_all(options, tmp_path, capsys):
    """A folder and a file, as a laboratory links them: counted, cached and trained on."""
    images, disk = options["root"] / "images", tmp_path / "disk"
    expected = Phantom(**options)[0][0]
    images.rename(disk)
    images.symlink_to(disk)
    first = next(path for path in disk.iterdir() if path.stem == Phantom(
        options["root"], tables_only=True).table.image_id[0])
    first.rename(tmp_path / "first.png")
    first.symlink_to(tmp_path / "first.png")
    options["cache_dir"] = tmp_path / "new"
    assert torch.equal(Phantom(**options)[0][0], expected)
    assert cohort_main(["phantom", "--root", str(options["root"])]) == 0
    assert "60 of the 60 images are on disk" in capsys.readouterr().out


def test_it_is_said_where_missing_images_lie(options):
    images = options["root"] / "images"
    folder = options["root"] / "images-224" / "images"
    folder.mkdir(parents=True)
    whole = Phantom(**options)
    for path in [whole.path(i) for i in range(5)]:
        path.rename(folder / f"{path.stem}.jpg")
    with pytest.raises(FileNotFoundError, match="; missing images found in images-224/"
                                                "images/ as .jpg: 5; --on-missing skip"):
        Phantom(**options)
    Image.new("L", (8, 8)).save(images / "stranger.png")
    _, release = Phantom.open_release(options["root"], "paper")
    _, _, notes = Phantom.find_files(options["root"], release, whole_tree=True)
    assert notes == ["missing images found in images-224/images/ as .jpg: 5",
                     "image files ignored: 1 (in no row of the tables)"]


def test_missing_images_whose_names_repeat_are_found_by_their_folders():
    missing = [f"train/patient{p}/study1/view1_frontal.jpg" for p in range(3)]
    images = {f"CheXpert-v1.0/{path}" for path in missing[:2]} | {"other/view1_frontal.jpg"}
    assert find_elsewhere(images, missing) == {("CheXpert-v1.0/train/", ".jpg"): 2}


def test_an_image_of_another_patient_is_no_missing_one(tmp_path):
    """One image is gone; all others have its name, and rows of their own."""
    root = tmp_path / "chexpert"
    draw_layout(root, "chexpert", patients=12, size=64)
    gone = sorted(root.rglob("train/**/view1_frontal.jpg"))[0]
    gone.rename(tmp_path / "taken.jpg")
    with pytest.raises(FileNotFoundError) as caught:
        for split in SPLITS:
            CORPORA["chexpert"](root, split, progress=False, cache_dir=tmp_path / "cache")
    assert ": 1 of the" in str(caught.value) and "found in" not in str(caught.value)
    (root / "moved" / gone.parent.relative_to(root)).mkdir(parents=True)
    (tmp_path / "taken.jpg").rename(root / "moved" / gone.relative_to(root))
    with pytest.raises(FileNotFoundError, match="missing images found in moved/.* as .jpg: 1;"):
        for split in SPLITS:
            CORPORA["chexpert"](root, split, progress=False, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("there", ["..", "files/mimic-cxr-jpg/2.1.0"])
def test_a_root_some_levels_off_is_named(tmp_path, there):
    root = tmp_path / "a" / "b"
    right = root / there
    root.mkdir(parents=True)
    right.mkdir(parents=True, exist_ok=True)
    (right / "mimic-cxr-2.0.0-chexpert.csv.gz").touch()
    with pytest.raises(FileNotFoundError) as error:
        CORPORA["mimic"](root, tables_only=True)
    assert str(error.value).endswith(f"; {right.resolve()} has it: pass that as --root")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_loader_with_workers(options, method):
    dataset = Phantom(split="test", **options)
    loader = torch.utils.data.DataLoader(dataset, 4, num_workers=2, multiprocessing_context=method)
    images, labels = (torch.cat(parts) for parts in zip(*loader))
    assert torch.equal(images, dataset.batch(range(len(dataset)))[0])
    assert torch.equal(labels, torch.from_numpy(dataset.table.y))


def test_a_pickle_holds_no_images(options):
    dataset = Phantom(**options | {"image_size": 256})
    content = pickle.dumps(dataset)
    assert len(content) < 60 * 256 * 256 / 50
    again = pickle.loads(content)
    assert isinstance(again._images, np.memmap) and torch.equal(again[3][0], dataset[3][0])
    assert len(pickle.loads(pickle.dumps(Phantom(options["root"], tables_only=True)))) == 42


def test_training_from_the_cache_alone(options):
    whole = Phantom(**options)
    Phantom(split="val", limit=2, **options)
    shutil.rmtree(options["root"] / "images")
    with pytest.raises(FileNotFoundError, match="not on disk"):
        Phantom(**options)
    config = {"data": "phantom", **options, "cache_only": True}
    dataset = open_config(config, "train")
    assert dataset.notes[-1] == "cache only: the images were not compared with their files"
    assert torch.equal(dataset.batch(range(42))[0], whole.batch(range(42))[0])
    assert dataset.table.image_id.tolist() == whole.table.image_id.tolist()
    assert dataset.split_hash == whole.split_hash
    assert torch.equal(open_config(config, "train", limit=5)[0][0],
                       whole[whole.table.image_id.tolist().index(open_config(
                           config, "train", limit=5).table.image_id[0])][0])
    with pytest.raises(FileNotFoundError, match="not in the cache: 12 of the 12 images of "
                                                "phantom's test split, .*--on-missing skip"):
        open_config(config, "test")
    part = open_config(config, "val", on_missing="skip")
    assert len(part) == 2 and len(part.skipped["missing"]) == 4
    assert {reason for _, reason in part.skipped["missing"]} == {"not in the cache"}
    tables = Phantom(split="val", on_missing="skip", cache_only=True, tables_only=True, **options)
    assert tables.table.image_id.tolist() == part.table.image_id.tolist()
    with pytest.raises(ValueError, match="has no images in the cache"):
        open_config(config, "test", on_missing="skip")


def test_the_commands_work_from_the_cache_alone(options, tmp_path, capsys):
    """Train and evaluate where the cache and the tables are, and no image."""
    for split in ("train", "val", "test"):
        Phantom(split=split, **options)
    shutil.rmtree(options["root"] / "images")
    given = ["--cache-dir", str(options["cache_dir"]), "--device", "cpu"]
    command = ["--data", "phantom", *given, "--root", str(options["root"]), "--out",
               str(tmp_path / "run"), "--arch", "vit_tiny", "--image-size", "32", "--epochs",
               "1", "--limit", "6"]
    assert train.main(command) == 2
    assert "not on disk" in capsys.readouterr().err
    assert train.main([*command, "--cache-only"]) == 0
    assert "the images were not compared with their files" in capsys.readouterr().out
    scored = [str(tmp_path / "run"), *given, "--bootstrap", "10", "--out", str(tmp_path / "report")]
    assert evaluate.main(scored) == 2
    assert evaluate.main([*scored, "--cache-only"]) == 0
    assert len(load_predictions(tmp_path / "run" / "predictions.npz").y_true) == 12


def test_images_of_no_row_are_counted(options):
    Image.new("L", (8, 8)).save(options["root"] / "images" / "stranger.png")
    assert "image files ignored: 1 (in no row of the tables)" in Phantom(**options).notes


def test_copies_and_strangers_are_told_apart(tmp_path):
    """A DICOM beside its PNG is no stranger; an image in a folder of no row is one, where the whole
    tree is walked."""
    root = tmp_path / "vindr"
    phantom_main(["--layout", "vindr", "--out", str(root), "--patients", "10", "--size", "64"])
    vindr = CORPORA["vindr"]
    _, release = vindr.open_release(root, "paper")
    folder = root / "train"
    first = next(path for path in folder.iterdir())
    Image.new("L", (64, 64)).save(folder / f"{first.stem}.PNG")
    Image.new("L", (64, 64)).save(root / "loose.png")
    _, present, notes = vindr.find_files(root, release)
    copies = "image files ignored: 1 (further copies, in another format or place)"
    assert present.all() and notes == [copies]
    _, _, notes = vindr.find_files(root, release, whole_tree=True)
    assert notes == [copies, "image files ignored: 1 (in no row of the tables)"]


def test_arguments_are_checked(options):
    for wrong, message in [({"split": "dev"}, "split: expected"),
                           ({"cohort": "mine"}, "--cohort mine: for phantom expected paper"),
                           ({"limit": 0}, "--limit 0: expected a whole number of at least 1"),
                           ({"on_missing": "no"}, "on_missing: expected one of error, skip"),
                           ({"labels": ["Rickets"]}, "phantom has no 'Rickets'")]:
        with pytest.raises(ValueError, match=message):
            Phantom(**options, **wrong)


def test_roots(tmp_path, monkeypatch):
    monkeypatch.delenv("CXR_ROOT", raising=False)
    assert str(default_root("vindr")) == "datasets/vindr"
    monkeypatch.setenv("CXR_ROOT", str(tmp_path))
    for name in CORPORA:
        if name not in ("phantom", "ukacxr", "custom"):  # which have tests of their own
            with pytest.raises(FileNotFoundError,
                               match=f"{tmp_path / name}: no such folder for {name}; pass --root"):
                CORPORA[name](tables_only=True)
            (tmp_path / name).mkdir()
            with pytest.raises(FileNotFoundError, match="which is part of the release"):
                CORPORA[name](tables_only=True)
    with pytest.raises(KeyError):
        CORPORA["nosuch"]


def test_a_config_opens_its_images(options):
    config = {"data": "phantom", "root": str(options["root"]), "image_size": 32, "limit": 4,
              "arch": "vit_tiny", "cache_dir": str(options["cache_dir"]), "labels": "mimic-overlap"}
    dataset = open_config(config, "test", workers=1)
    assert len(dataset) == 4 and dataset.split == "test" and len(dataset.labels) == 5
    assert len(open_config(config, "train", limit=None, workers=1)) > 4
    with pytest.raises(ValueError, match="data: expected one of"):
        open_config({"data": "nosuch"}, "test")


# --- tables

def rows(path, *columns, **options):
    return list(read_csv(path, columns, **options))


def test_tables_with_a_byte_order_mark_windows_lines_and_quotes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeffa,b,c\r\n1,"x, y",3\r\n\r\n4,"two\nlines", 6 \r\n'.encode())
    assert rows(path, "c", "a", "b", extra="error") == [
        (f"{path}, row 2", ["3", "1", "x, y"]), (f"{path}, row 5", ["6", "4", "two\nlines"])]


def test_optional_columns(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    assert rows(path, "a", optional=("b", "c")) == [(f"{path}, row 2", ["1", "2", ""])]


@pytest.mark.parametrize("text, message", [
    ("", "no column 'a', 'b'"),
    ("a,x\n1,2\n", "t.csv: no column 'b'; it has 'x' instead"),
    ("a,b,x\n1,2,3\n", "t.csv: unknown column 'x'"),
    ("a,b,b\n1,2,3\n", "t.csv: more than one column 'b'"),
    ("a,b\n1,2\n3\n", "t.csv, row 3: 1 cells, the header has 2"),
    ("a,b\n1,2,3\n", "t.csv, row 2: 3 cells, the header has 2"),
])
def test_tables_of_another_shape_are_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        rows(tmp_path / "t.csv", "a", "b", extra="error")


def test_extra_columns_may_be_ignored(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,,x\n1,2,3\n")
    assert rows(path, "a", extra="ignore") == [(f"{path}, row 2", ["1"])]


@pytest.mark.parametrize("keep", [3, 40, -5])
def test_a_gzip_file_cut_short_is_named(tmp_path, keep):
    content = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(500)))
    (tmp_path / "t.csv.gz").write_bytes(content)
    assert len(rows(tmp_path / "t.csv.gz", "a", "b")) == 500
    (tmp_path / "t.csv.gz").write_bytes(content[:keep])
    with pytest.raises(ValueError, match="t.csv.gz: cut short or damaged"):
        rows(tmp_path / "t.csv.gz", "a", "b")
    (tmp_path / "t.csv.gz").write_bytes(b"a,b\n1,2\n")
    with pytest.raises(ValueError, match="t.csv.gz: cut short or damaged"):
        rows(tmp_path / "t.csv.gz", "a", "b")


def test_text_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"a\n\xff\xfe\n")
    with pytest.raises(ValueError, match="t.csv: not UTF-8"):
        rows(tmp_path / "t.csv", "a")


@pytest.mark.parametrize("image, patient, message", [
    ("", "1", "row 3: the image id is blank"),
    ("b.png", "", "row 3: the patient id of b.png is blank"),
    ("a.png", "1", "row 3: image a.png is there a second time"),
    ("../b.png", "1", "row 3: '../b.png' leads out of the root"),
    ("/etc/passwd", "1", "row 3: '/etc/passwd' leads out of the root"),
    ("a/../../b.png", "1", "leads out of the root"),
    ("C:\\b.png", "1", "leads out of the root"),
])
def test_bad_rows_are_named(tmp_path, image, patient, message):
    grades = ",AP,normal" + ",negative" * 7
    root = ukacxr(tmp_path, [])
    header = (root / "ukacxr.csv").read_text()
    (root / "ukacxr.csv").write_text(f"{header}a.png,1{grades}\n{image},{patient}{grades}\n")
    with pytest.raises(ValueError, match="ukacxr.csv, row 3") as error:
        CORPORA["ukacxr"](root, tables_only=True)
    assert message in str(error.value)


def test_an_empty_table_is_named(tmp_path):
    with pytest.raises(ValueError, match="ukacxr.csv: no rows"):
        CORPORA["ukacxr"](ukacxr(tmp_path, []), tables_only=True)
