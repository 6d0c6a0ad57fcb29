"""The cohort command: the paper's numbers as constants, the comparison, and its exit codes."""

import re

import numpy as np
import pytest
import test_mimic
from phantom_layouts import main as phantom_main

from data import CORPORA
from data.cohort import count, counted, main, to_rows
from data.paper_cohorts import PaperCohort
from data.phantom.layouts import make_phantom
from data.tables import Table

PAPER = {key: cls.paper for key, cls in CORPORA.items() if cls.paper is not None}


def test_the_papers_tables_hang_together():
    assert list(PAPER) == ["vindr", "cxr14", "chexpert", "mimic", "ukacxr", "padchest"]
    for corpus, paper in PAPER.items():
        row = paper.sizes
        assert set(paper.may_differ) <= set(paper.numbers)
        assert set(paper.positives) <= set(CORPORA[corpus].all_labels())
        unlisted = set(CORPORA[corpus].table3) - set(paper.positives)
        # the scan has no number there
        assert unlisted == ({"Pneumothorax"} if corpus == "padchest" else set())
        rest = row["images"] - row["train"] - row["test"]
        assert rest == (202 if corpus == "chexpert" else 0)  # CheXpert's valid.csv is in neither
    # percentages that Table 2 prints beside its counts
    for corpus, label, percent in [("vindr", "Cardiomegaly", 11.8), ("cxr14", "Infiltration", 17.7),
                                   ("chexpert", "Support devices", 57.6),
                                   ("mimic", "Pneumonia", 6.5), ("ukacxr", "Congestion", 8.5),
                                   ("padchest", "COPD", 12.9), ("padchest", "Hernia", 1.5),
                                   ("chexpert", "Edema", 27.4)]:
        paper = PAPER[corpus]
        share = paper.positives[label] / paper.sizes["images"]
        assert 100 * share == pytest.approx(percent, abs=0.06)


def test_counts_by_hand():
    table = Table(np.array(list("abcd")), np.array(["1", "1", "2", "3"]),
                  np.array(["AP", "PA", "AP_horizontal", "PA"]), np.array(list("abcd")),
                  np.array([[1, 0], [np.nan, 1], [1, 1], [0, 0]], np.float32),
                  np.array(list("FMFM")), np.array([20, 30, 40, np.nan], np.float32))
    sizes, positives = count(table, np.array(["train", "val", "train", "test"]), ["x", "y"])
    assert sizes == {"images": 4, "patients": 3, "ap": 50.0, "train": 3, "val": 1, "test": 1,
                     "age_median": 30, "age_mean": 30, "age_sd": pytest.approx(8.165, abs=0.001),
                     "age_min": 20, "age_max": 40, "women": 50, "women_test": 0,
                     "women_train": pytest.approx(66.67, abs=0.01)}
    assert positives == {"x": 2, "y": 2}


def as_in_the_paper(corpus):
    paper = PAPER[corpus]
    sizes = {name: number for name, number in paper.numbers.items() if name.islower()}
    return {**sizes, "val": 0}, dict(paper.positives)


@pytest.mark.parametrize("corpus", list(PAPER))
def test_the_papers_own_numbers_agree(corpus):
    assert {remark for *_, remark in to_rows(PAPER[corpus], *as_in_the_paper(corpus))} == {""}


def test_chexperts_support_devices_are_those_of_the_release():
    """Certain positives of the genuine train.csv and valid.csv; the scan seems to print 90,907."""
    sizes, positives = as_in_the_paper("chexpert")
    positives["Support devices"] = 90_868 + 99
    assert {remark for *_, remark in to_rows(PAPER["chexpert"], sizes, positives)} == {""}


def test_ages_and_shares_are_compared_as_printed():
    """CheXpert's: 60.05 +- 17.80 years, 18 to 90; 40.96 % of all images of women."""
    sizes, _ = as_in_the_paper("chexpert")
    ours = dict(age_mean=60.05, age_sd=17.80, age_max=90, women=40.96, women_train=45.0)
    remarks = {name: remark for name, *_, remark in to_rows(PAPER["chexpert"], sizes | ours, {})}
    assert {remarks[name] for name in ("age_median", "age_mean", "age_sd", "age_min", "women")} == {
        ""}
    assert remarks["age_max"] == "the release has ages up to 90"
    assert remarks["women_train"] == "the paper's draw of 80/20 is not known"
    ours = dict(age_mean=60.6, age_sd=18.5, women=41.2, age_min=19)
    remarks = {name: remark for name, *_, remark in to_rows(PAPER["chexpert"], sizes | ours, {})}
    assert {remarks[name] for name in ours} == {"differs"}


def test_the_real_tables_give_table_1_whole(real_cxr14, capsys):
    assert main(["cxr14", "--root", str(real_cxr14), "--tables-only", "--strict"]) == 0
    assert "the paper: Maryland, USA" in capsys.readouterr().out
    dataset = CORPORA["cxr14"](real_cxr14, labels="all", tables_only=True)
    rows = {row.name: row for row in counted(dataset, dataset.cohort_table, dataset.cohort_split,
                                             tables_only=True)}
    assert rows["age_median"].here == rows["age_median"].paper == 49
    assert rows["age_mean"].here == pytest.approx(46.6, abs=0.05)
    assert rows["women_test"].here == pytest.approx(41.86, abs=0.005)
    assert "by no known rule" in rows["women_train"].remark
    assert "ages from 0 to 95" in rows["age_min"].remark and rows["age_max"].here == 95


def test_rules_for_mimics_cohort(tmp_path, capsys):
    """By hand: three studies, one with two frontal images, one uncertain."""
    root = test_mimic.write(tmp_path, [
        (test_mimic.A, 1, {"Pneumonia": "-1.0"}), (test_mimic.A, 2, {"Edema": "1.0"}),
        (test_mimic.B, 3, {"Atelectasis": "-1.0"})],
        [("a", test_mimic.A, 1, "PA", "train"), ("b", test_mimic.A, 2, "AP", "train"),
         ("c", test_mimic.A, 2, "PA", "train"), ("d", test_mimic.A, 2, "LATERAL", "train"),
         ("e", test_mimic.B, 3, "AP", "train")])
    _, release = CORPORA["mimic"].open_release(root, "all")
    ids = release.table.image_id
    assert {rule: "".join(sorted(ids[rows])) for rule, rows in
            CORPORA["mimic"].rules(release).items()} == {
        "AP and PA": "abce", "without uncertain in CheXpert's five": "bce",
        "without uncertain in any label": "bc", "the first frontal image of each study": "abe",
        "studies with a single frontal image": "ae",
        "first image, without uncertain in the five": "be",
        "single frontal image, without uncertain in the five": "e"}
    for name in ("--compare-rules", "--explain"):  # the latter was its name, and is still taken
        assert main(["mimic", "--root", str(root), name]) == 0
        out = capsys.readouterr().out
        assert re.search(r"^the paper +213,921 +42,760 \(20.0 %\)", out, re.M)
        assert main(["cxr14", name]) == 2
        assert "--compare-rules: only for mimic" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    help_text = capsys.readouterr().out
    assert "--compare-rules" in help_text and "--explain" not in help_text


@pytest.fixture
def small_chexpert(tmp_path, monkeypatch):
    """Phantoms in CheXpert's layout that pass for the paper's cohort."""
    root = tmp_path / "chexpert"
    assert phantom_main(["--layout", "chexpert", "--out", str(root), "--patients", "20", "--size",
                         "64"]) == 0
    dataset = CORPORA["chexpert"](root, tables_only=True, labels=CORPORA["chexpert"].all_labels())
    sizes, positives = count(dataset.cohort_table, dataset.cohort_split, dataset.labels)
    monkeypatch.setattr(CORPORA["chexpert"], "paper", PaperCohort(
        source="drawn here", sizes=sizes, positives=positives, may_differ={}))
    return root


def test_strict_counts_images_that_are_not_on_disk(small_chexpert, capsys):
    command = ["chexpert", "--root", str(small_chexpert), "--strict"]
    (small_chexpert / "PHANTOM.txt").unlink()
    assert main(command) == 0
    next(small_chexpert.glob("train/*/*/view1_frontal.jpg")).unlink()
    assert main(command) == 1 and main([*command, "--tables-only"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "Exit code: 0; 1 with --strict" in " ".join(capsys.readouterr().out.split())


def test_synthetic_data_is_not_set_beside_the_paper(small_chexpert, capsys):
    assert main(["chexpert", "--root", str(small_chexpert), "--strict", "--tables-only"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^images +\d+ +-$", printed, re.M) and "differs" not in printed


def test_the_tables_are_read_once(small_chexpert, monkeypatch):
    calls, corpus = [], CORPORA["chexpert"]
    real = corpus.read
    monkeypatch.setattr(corpus, "read", lambda *args: calls.append(args) or real(*args))
    assert main(["chexpert", "--root", str(small_chexpert)]) == 0 and len(calls) == 1


def test_one_image_more_differs():
    sizes, positives = as_in_the_paper("chexpert")
    positives["Edema"] += 1
    sizes["train"] -= 100
    remarks = {name: remark for name, _, _, remark in to_rows(PAPER["chexpert"], sizes, positives)}
    assert remarks["Edema"] == "differs"
    assert remarks["train"] == "the paper's draw of 80/20 is not known"
    assert remarks["Cardiomegaly"] == ""


def test_padchest_may_exceed_by_what_the_paper_could_not_read():
    sizes, positives = as_in_the_paper("padchest")
    sizes["images"] += 29
    positives["Atelectasis"] += 2
    positives["Kyphosis"] -= 1
    remarks = {name: remark for name, _, _, remark in to_rows(PAPER["padchest"], sizes, positives)}
    assert remarks["images"] == remarks["Atelectasis"] == "the paper could not read 29 images"
    assert remarks["Kyphosis"] == "differs"
    positives["Atelectasis"] += 1  # of the tables alone 6,168 are known
    positives["Hernia"] += 30
    remarks = {name: remark for name, _, _, remark in to_rows(PAPER["padchest"], sizes, positives)}
    assert remarks["Atelectasis"] == remarks["Hernia"] == "differs"
    positives["Atelectasis"] -= 1
    remarks = {name: remark for name, _, _, remark in to_rows(PAPER["padchest"], sizes, positives,
                                                              tables_only=False)}
    assert remarks["images"] == remarks["Atelectasis"] == "differs"


def test_another_share_of_views_differs():
    sizes, positives = as_in_the_paper("padchest")
    for ap, expected in ((17.14, ""), (40.0, "differs")):
        rows = to_rows(PAPER["padchest"], {**sizes, "ap": ap}, positives)
        assert {remark for name, *_, remark in rows if name == "ap"} == {expected}


def test_command_on_the_real_tables(real_cxr14, capsys):
    assert main(["cxr14", "--root", str(real_cxr14), "--tables-only", "--strict"]) == 0
    out = capsys.readouterr().out
    assert "views: AP 44,810, PA 67,310" in out
    assert "images                112,120    112,120           0\n" in out
    assert "Hernia                    227        227           0\n" in out and "differs" not in out


def test_command_on_a_phantom(tmp_path, capsys):
    root = tmp_path / "phantom"
    make_phantom(root, patients=10, size=64)
    victim = next((root / "images").iterdir())
    victim.write_bytes(b"not an image")
    (root / "images" / "stranger.png").write_bytes(b"")
    assert main(["phantom", "--root", str(root), "--strict", "--write-split",
                 str(tmp_path / "split.json")]) == 0
    out = capsys.readouterr().out
    assert "image files ignored: 1 (in no row of the tables)" in out
    assert "30 of the 30 images are on disk" in out and re.search(r"^images +30 +-$", out, re.M)
    split_hash = CORPORA["phantom"](root, tables_only=True).split_hash
    assert f"split hash {split_hash}" in out and split_hash in (tmp_path / "split.json").read_text()
    assert f"split written to {tmp_path / 'split.json'}" in out
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "config.json").write_text('{"corpus": "phantom", "split_hash": "a run\'s"}')
    for target, reason in (("notes.txt", "no split file"), ("config.json", "no split file"),
                           ("absent/split.json", "does not exist")):
        assert main(["phantom", "--root", str(root), "--tables-only", "--write-split",
                     str(tmp_path / target)]) == 2
        assert reason in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert main(["phantom", "--root", str(root), "--tables-only", "--write-split",
                 str(tmp_path / "split.json")]) == 0
    capsys.readouterr()
    assert main(["phantom", "--root", str(root), "--read-images", "--cache-dir",
                 str(tmp_path / "cache")]) == 0
    out = capsys.readouterr().out
    assert f"cannot be read: images/{victim.name}" in out and re.search(r"^images +29 +-$", out,
                                                                        re.M)


def test_read_images_counts_what_is_there(tmp_path, capsys):
    """A release of which a split has not been downloaded yet."""
    import shutil

    root = tmp_path / "vindr"
    phantom_main(["--layout", "vindr", "--out", str(root), "--size", "64", "--patients", "10"])
    (root / "PHANTOM.txt").unlink()
    images = sum(1 for _ in (root / "train").iterdir())
    shutil.rmtree(root / "test")
    assert main(["vindr", "--root", str(root), "--read-images", "--cache-dir",
                 str(tmp_path / "cache")]) == 0
    assert re.search(rf"^images +{images} +18,000", capsys.readouterr().out, re.M)


def test_command_is_strict_about_a_cut_table(tmp_path, capsys):
    phantom_main(["--layout", "chexpert", "--out", str(tmp_path / "chexpert"), "--size", "64",
                  "--patients", "10"])
    (tmp_path / "chexpert" / "PHANTOM.txt").unlink()
    arguments = ["chexpert", "--root", str(tmp_path / "chexpert"), "--tables-only"]
    assert main(arguments) == 0 and main([*arguments, "--strict"]) == 1
    assert "differs" in capsys.readouterr().out


@pytest.mark.parametrize("arguments, message", [
    (["vindr", "--root", "nowhere"], "nowhere: no such folder for vindr"),
    (["cxr14", "--root", ".", "--cohort", "exact"], "--cohort exact: for cxr14 expected paper"),
    (["cxr14", "--tables-only", "--read-images"], "exclude each other"),
])
def test_command_errors_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m data.cohort: error:") and message in error
    assert error.count("\n") == 1
