"""The report's page and console; what is asked for in addition to ROC-AUC."""

import base64
import csv
import html.parser
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, run_page
from test_stats_report import PATIENT, SETTINGS, models, studies, with_mean, with_subgroups

from stats import results
from stats.report.answers import answers, cautions, console
from stats.report.formats import to_json
from stats.report.probability import calibration_tables
from stats.report.tables import all_tables, remarks
from stats.report.write import write_report
from stats.results import Estimate
from stats.study import adjust, study


class Page(html.parser.HTMLParser):
    """Every tag with its attributes, and the text of cells and paragraphs."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data.strip())


def table(found, start, settings=SETTINGS):
    (chosen,) = [t for t in all_tables(found, settings) if t.title.startswith(start)]
    return chosen


def test_the_page_holds_everything_and_loads_nothing(tmp_path):
    pytest.importorskip("matplotlib")
    labels = ["Edema", "Hernia", "<script>alert(1)</script> & more", "No finding"]
    found = [replace(m, labels=labels) for m in models()]
    (s,) = adjust([study("cxr14", found, n_resamples=100)], "comparison")
    files = write_report(tmp_path, [s], SETTINGS, [found])
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    for tag, attributes in page.tags:
        for key in ("src", "href"):
            assert attributes.get(key, "data:").startswith(("data:", "#")), (tag, attributes)
        assert tag not in ("link", "iframe", "object") or attributes.get("rel") == "icon"
    assert "http" not in re.sub(r"data:[^\"]*", "", text) and "@import" not in text
    assert "prefers-color-scheme: dark" in text and text.count("<script>") == 1
    assert answers([s])[0] + "." in page.texts
    assert labels[2] in page.texts  # as text, and not as a tag
    shown = [base64.b64decode(a["src"].partition(",")[2]) for tag, a in page.tags if tag == "img"]
    drawn = [name for name in files if name.endswith("svg")]
    assert drawn[0] == "forest.svg" and len(drawn) >= 3
    assert shown[0] == (tmp_path / "forest.svg").read_bytes()  # beside the answer
    assert sorted(shown) == sorted((tmp_path / name).read_bytes() for name in drawn)
    for t in all_tables([s], SETTINGS):  # the same rows as in Markdown and LaTeX
        assert t.title in page.texts and all(cell in page.texts for cell in sum(t.rows, []) if cell)


def test_the_page_sorts_in_a_browser(tmp_path):
    if not CHROMIUM:
        pytest.skip("no Chromium")
    found = studies()[:1]
    write_report(tmp_path, found, SETTINGS)
    script = """
    const frame = document.createElement("iframe");
    frame.src = "/report.html";
    frame.onload = () => {
      const page = frame.contentDocument;
      const heading = [...page.querySelectorAll("h3")].find((h) => h.textContent.includes("minus"));
      const table = heading.parentNode.querySelector("table");
      const column = () => [...table.tBodies[0].rows].map((row) => row.cells[3].textContent);
      const button = table.tHead.rows[0].cells[3].querySelector("button");
      button.click();
      const up = column();
      button.click();
      report({ up, down: column(), sort: table.tHead.rows[0].cells[3].getAttribute("aria-sort"),
        overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth });
    };
    frame.style.width = "390px";
    document.body.append(frame);
    """
    page = (tmp_path / "report.html").read_bytes()
    result = run_page(script, {"/report.html": page}, timeout=60)
    order = [float(x.replace("−", "-")) for x in result["up"] if x != "–"]
    assert order == sorted(order) and result["up"][-1] == "–" and len(order) == 4
    down = [float(x.replace("−", "-")) for x in result["down"] if x != "–"]
    assert down == order[::-1] and result["sort"] == "descending"
    assert result["overflow"] <= 0  # on a phone, wide tables scroll and the page does not
    assert set(result["requests"]) <= {"/page.html", "/script.mjs", "/report.html", "/result"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Reports of two corpora with three inits on one, and of a long label: their folders."""
    pytest.importorskip("matplotlib")
    from stats.report.figures import FORMATS

    inits = "imagenet", "mimic", "dinov2"
    labels = ["Edema", "Hernia", f"A finding {'of a long name ' * 5}", "No finding"]
    long = [replace(m, labels=labels) for m in models()]
    (s,) = adjust([study("cxr14", long, n_resamples=100)], "comparison")
    made = {"corpora": (studies(), [models(), models(inits, seed=1)]), "long": ([s], [long])}
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(FORMATS, "png")  # which the page has not
        for name, (found, aligned) in made.items():
            folders[name] = tmp_path_factory.mktemp(name)
            write_report(folders[name], found, SETTINGS | {"margin": 1}, aligned)
    return folders


@pytest.mark.long
@pytest.mark.parametrize("name", ["corpora", "long"])
def test_nothing_of_the_page_is_cut_at_any_width(pages, name):
    """What is wider than the window lies in a box that scrolls."""
    if not CHROMIUM:
        pytest.skip("no Chromium")
    script = """
    const cut = {};
    const look = (width) => new Promise((resolve) => {
      const frame = document.createElement("iframe");
      frame.style.width = `${width}px`;
      frame.style.border = 0;
      frame.src = "/report.html";
      frame.onload = () => {
        const page = frame.contentDocument;
        const seen = page.documentElement.clientWidth;
        cut[width] = [...page.body.querySelectorAll("*")].filter((one) =>
          one.getBoundingClientRect().right > seen + 1
          && !(one.parentElement.closest(".scroll"))).map((one) => one.outerHTML.slice(0, 80));
        cut[width].push(...[...page.querySelectorAll(".scroll")].filter((box) =>
          getComputedStyle(box).overflowX !== "auto").map((box) => box.outerHTML.slice(0, 80)));
        if (page.documentElement.scrollWidth > seen) cut[width].push("the page itself scrolls");
        resolve();
      };
      document.body.append(frame);
    });
    for (const width of [390, 1100, 1600]) await look(width);
    report({ cut });
    """
    page = (pages[name] / "report.html").read_bytes()
    result = run_page(script, {"/report.html": page}, timeout=60)
    assert result["cut"] == {"390": [], "1100": [], "1600": []}


@pytest.mark.parametrize("name", ["corpora", "long"])
def test_the_page_can_be_read_by_those_who_do_not_see_it(pages, name):
    tags = Page((pages[name] / "report.html").read_text()).tags
    levels = [int(tag[1]) for tag, _ in tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:]))
    count = [tag for tag, _ in tags].count
    assert count("caption") == count("table") > 10
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in tags if tag == "th")
    texts = [attributes["alt"] for tag, attributes in tags if tag == "img"]
    assert len(texts) == len(set(texts)) and not any("svg" in text for text in texts)
    assert "points (95 % CI" in texts[0]  # the forest plot says what it shows
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    links = [attributes["href"][1:] for tag, attributes in tags if tag == "a"]
    assert len(ids) == len(set(ids)) and set(links) <= set(ids) and len(links) > 10


def test_a_spreadsheet_of_numbers_needs_no_cleaning(pages):
    """Names of columns in snake_case, a blank where there is no number; R's types, too."""
    for path in sorted(pages["corpora"].glob("*.csv")):
        with open(path, newline="") as file:
            header, *rows = csv.reader(file)
        assert all(re.fullmatch("[a-z][a-z0-9_]*", column) for column in header), path
        assert len(header) == len(set(header)) and {len(row) for row in rows} == {len(header)}
        numbers = set(header) - {"study", "corpus", "model", "init", "label", "metric", "a", "b",
                                 "reason"}
        for row in rows:
            for column, cell in zip(header, row):
                if column in numbers and cell:
                    assert float(cell) == float(cell), (path, column)
        if shutil.which("Rscript"):
            script = ("d <- read.csv(commandArgs(TRUE)[1]); "
                      "cat(names(d)[!sapply(d, function(x) is.numeric(x) || all(is.na(x)))])")
            done = subprocess.run(["Rscript", "-e", script, str(path)], capture_output=True,
                                  text=True, check=True)
            assert not set(done.stdout.split()) & numbers, path
    with open(pages["corpora"] / "metrics.csv", newline="") as file:
        keys = [(r["study"], r["model"], r["label"], r["metric"]) for r in csv.DictReader(file)]
    assert len(keys) == len(set(keys))  # one observation a row


def test_csv_files_have_their_columns_without_a_row(tmp_path):
    write_report(tmp_path, [study("cxr14", models()[:1], n_resamples=100)], SETTINGS)
    text = (tmp_path / "comparisons.csv").read_text()
    assert text.startswith("study,corpus,a,b,") and text.count("\n") == 1


def test_three_inits_are_ranked_among_the_answers():
    two, three = studies()
    assert not any("is first in" in sentence for sentence in answers([two]))
    shares = {"imagenet": 0.1, "mimic": 0.25, "dinov2": 0.65}
    ranks = [replace(rank, share_first=shares[rank.name]) for rank in three.ranks]
    assert answers([replace(three, ranks=tuple(ranks))])[0].startswith(
        "On Phantom, DINOv2 is first in 65 %, MIMIC-CXR in 25 %, ImageNet-21k in 10 % of the "
        "resamples of its test set (by mean ROC-AUC over 3 labels;")


def test_every_model_has_its_counts_of_calibration(pages):
    page = Page((pages["corpora"] / "report.html").read_text())
    assert "Phantom: calibration, positives / radiographs in each bin of probability" in page.texts
    aligned = models()
    (table,) = calibration_tables(studies()[0], aligned)
    assert [row[:2] for row in table.rows] == [
        [label, model] for label in ("Edema", "Mass & more_100%", "No finding")
        for model in ("DINOv2", "ImageNet-21k")]
    y, p = aligned[1].y_true[:, 0], aligned[1].y_score[:, 0]
    in_bin = (p > 0.4) & (p <= 0.5) & ~np.isnan(y)
    assert table.rows[1][2 + 4] == f"{int(y[in_bin].sum())} / {in_bin.sum()}"
    runs = [aligned[0], replace(aligned[0], y_score=aligned[1].y_score)]
    (of_runs,) = calibration_tables(studies()[0], runs)
    assert len(of_runs.rows) == 3 and "." in of_runs.rows[0][3]  # means over runs


@pytest.mark.parametrize("inits", [("dinov2",), ("dinov2", "imagenet"), tuple("abcdef")])
def test_six_corpora_print_forty_lines_at_most(inits):
    s = study("cxr14", models(inits), n_resamples=100)
    found = [replace(s, corpus=name, corpus_title=name, name=name) for name in "uvwxyz"]
    found = adjust(found, "comparison")
    text = console(found, SETTINGS, Path("reports"), ["report.html", "report.md", "forest.png"])
    lines = text.splitlines()
    assert len(lines) <= 40 and lines[0] == answers(found)[0]
    assert lines[-1].startswith(f"report: {Path('reports/report.html')}, beside it report.md")
    assert f"forest plot: {Path('reports/forest.png')}" in lines
    hidden = len(answers(found)) - 24
    assert (f"... and {hidden} more comparisons" in lines) == (hidden > 0)


def test_equivalence_is_a_finding(tmp_path):
    (s,) = studies()[:1]
    s = with_mean(s, p_noninferior=0.03, p_noninferior_b=0.2, p_equivalent=0.02, p_adjusted=0.3,
                  p_value=0.3, interval_90=(-0.003, 0.002), p_floor_one_sided=1 / 151)
    first, *others = s.comparisons
    labels = {label: replace(test, p_noninferior=0.03, p_noninferior_b=0.2, p_equivalent=0.2,
                             interval_90=(-0.01, 0.01)) for label, test in first.labels.items()}
    s = replace(s, comparisons=(replace(first, labels=labels), *others))
    found = [s]
    (said,) = answers(found, margin=0.5)
    assert said.endswith("; no significant difference; equivalent within 0.5 points (90 % CI −0.30 "
                         "to 0.20, p = 0.020)")
    write_report(tmp_path, found, SETTINGS | {"margin": 0.5})
    assert said in (tmp_path / "report.md").read_text().splitlines()[0]
    sentences = []
    for p in (0.02, 1 / 151, 0.03):  # the second is as little as 150 resamples allow
        s = with_mean(s, p_equivalent=0.2, p_noninferior=p)
        sentences += answers([s], margin=0.5)
    margin = "at a margin of 0.5 points"
    assert f"DINOv2 is non-inferior {margin} (one-sided p = 0.020, below" in sentences[0]
    assert f"non-inferior {margin} (one-sided p ≤ 0.0067, below 0.025)" in sentences[1]
    assert f"neither equivalence nor non-inferiority is shown {margin}" in sentences[2]
    assert answers([s], margin=1)[0].endswith("at a margin of 1 point")
    start = "ChestX-ray14: DINOv2 minus ImageNet-21k, ROC-AUC"
    columns = table(found, start, SETTINGS | {"margin": 0.5}).header
    assert columns[5:] == ["p, adjusted", "p", "p, DINOv2 non-inferior",
                           "p, ImageNet-21k non-inferior", "p, equivalent", "90 % CI",
                           "DeLong's p"]


def further(found):
    """The studies with a further metric, which is no share, and differences in it and another."""
    brier = Estimate(0.12345, (0.1, 0.15), 0.01, 0.124, 0.01)
    test = results.Test(-0.0123, (-0.02, -0.004), 0.004, -0.012, 0.004, 0.012, 0.002,
                        p_adjusted=0.024)
    result = []
    for s in found:
        for m in s.models:
            for of_label in m.labels.values():
                of_label.metrics["brier"] = brier
            m.mean["brier"] = replace(brier, sd_over_replicates_and_labels=0.02)
        comparisons = []
        for c in s.comparisons:
            other = replace(c, labels=dict.fromkeys(s.labels, test), mean=test, further={})
            comparisons.append(replace(c, further={"accuracy": other, "brier": other}))
        result.append(replace(s, comparisons=tuple(comparisons)))
    return result


def test_further_metrics_are_in_tables_and_files(tmp_path):
    found = further(studies()[:1])
    write_report(tmp_path, found, SETTINGS)
    shown = table(found, "ChestX-ray14: each label on")
    assert shown.header[-1] == "Brier score" and shown.rows[0][-1] == "0.123 (0.100 to 0.150)"
    other = table(found, "ChestX-ray14: DINOv2 minus ImageNet-21k, other metrics")
    assert other.header == ["Label", "Accuracy", "Brier score"]
    assert other.rows[-1][1:] == [
        "−1.23 (−2.00 to −0.40), p = 0.024",
        "−0.012 (−0.020 to −0.004), p = 0.024",
    ]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "comparisons-metrics.csv").read_text())))
    assert len(rows) == 2 * 5 and {row["metric"] for row in rows} == {"accuracy", "brier"}
    assert float(rows[0]["difference"]) == -0.0123 and float(rows[0]["p"]) == 0.012
    assert {"brier", "auroc"} <= {
        row["metric"] for row in csv.DictReader(open(tmp_path / "metrics.csv"))
    }
    whole = json.loads((tmp_path / "report.json").read_text())["studies"][0]["comparisons"][0]
    assert whole["further"]["brier"]["mean"]["p_value"] == 0.012


def test_json_is_strict():
    text = to_json({"a": [float("nan"), float("inf"), (-float("inf"), 0.1)], "ä": {"b": None}})
    assert json.loads(text, parse_constant=pytest.fail) == {
        "a": [None, "inf", ["-inf", 0.1]], "ä": {"b": None}}
    assert "ä" in text


def test_tables_of_many_columns_go_on_below():
    s = studies()[0]
    found = [replace(s, corpus=name, corpus_title=name, name=name) for name in "01234567"]
    first, second = [t for t in all_tables(found, SETTINGS) if "Table 4" in t.title]
    assert first.header == ["Metric", "Model", *"012345"] and second.header[2:] == ["6", "7"]
    assert second.title == first.title and first.rows[0][:2] == second.rows[0][:2]


def test_subgroups_have_their_tables():
    found = [with_subgroups(studies()[0])]
    groups = table(found, "ChestX-ray14: subgroups")
    assert groups.header == ["Group", "Radiographs", "Patients", "Model", "ROC-AUC", "Sensitivity",
                             "Specificity", "Sick called No finding"]
    assert len(groups.rows) == 8 * 2 and groups.rows[0][:4] == ["sex: F", "1,234", "–", "DINOv2"]
    assert re.fullmatch(r"80\.00 \(7[789]\.\d\d to 8[0123]\.\d\d\)", groups.rows[0][4])
    assert "view LATERAL: 12 radiographs" in groups.note
    gaps = table(found, "ChestX-ray14: gaps between subgroups")
    assert ["sex: M − F", "Sick called No finding", "DINOv2", "+3.10", "1.00 to 5.20", "0.016",
            "0.004"] in gaps.rows
    assert ["sex: F − all others", "ROC-AUC", "DINOv2 − ImageNet-21k", "+3.10", "1.00 to 5.20",
            "0.400", "0.004"] in gaps.rows


def test_training_and_test_corpora_are_a_matrix():
    (s,) = studies()[:1]
    titles = {"cxr14": "ChestX-ray14", "padchest": "PadChest"}
    found = []
    for test, title in titles.items():
        for origin in titles:
            there = replace(s, corpus=test, corpus_title=title, name=f"{test}-{origin}")
            if origin != test:
                there = replace(there, trained_on=origin, trained_on_title=titles[origin])
            found.append(there)
    matrix = table(found, "Trained on one corpus")
    assert matrix.header == ["Model", "Trained on", "ChestX-ray14", "PadChest"]
    assert [row[:2] for row in matrix.rows] == [
        [init, corpus] for corpus in ("ChestX-ray14", "PadChest")
        for init in ("DINOv2", "ImageNet-21k")]
    auc = s.models[0].mean["auroc"]
    assert not any(cell == "–" for row in matrix.rows for cell in row)
    assert matrix.rows[0][2].startswith(f"{100 * auc.value:.2f} (")
    assert "Edema, Mass & more_100%, No finding" in matrix.note
    assert "on ChestX-ray14, trained on PadChest, mean ROC-AUC over 3 of 4" in answers(found)[1]


def test_what_was_seen_replaced_or_left_out_is_said():
    (s,) = studies()[:1]
    s = replace(s, seen={"mimic": "pretrained on MIMIC-CXR"}, missing_images=3,
                truth={"file": "truth.csv", "sha256": "ab", "images": 100, "of": 120},
                excluded={"file": "bad.txt", "images": 7})
    assert cautions([s], PATIENT)[0] == (
        "MIMIC-CXR has seen ChestX-ray14 before, so this is no fair test of it: pretrained on "
        "MIMIC-CXR")
    lines = remarks(s, SETTINGS)
    assert "3 test radiographs: not on disk" in lines
    assert "100 of 120 radiographs: true labels taken from truth.csv" in lines
    assert "7 radiographs: excluded by bad.txt" in lines
    assert "3 test radiographs: not in the cache" in remarks(s, SETTINGS | {"cache_only": True})
    text = str(all_tables([s], SETTINGS))
    assert "excluded by bad.txt" in text and "max-t" not in text


def test_the_method_of_adjustment_is_named(tmp_path):
    write_report(tmp_path, studies()[:1], SETTINGS | {"adjust": "max-t"})
    assert "max-t over the joint resamples" in (tmp_path / "report.md").read_text()


def test_names_from_anywhere_do_no_harm_in_a_file(tmp_path):
    """No formula for a spreadsheet, no tag for a Markdown page, no squeezed figure or terminal."""
    labels = ["=SUM(A1)", "<b>bold</b>|x", "L" * 300, "@home"]
    found = [replace(m, labels=labels) for m in models()]
    (s,) = adjust([study("cxr14", found, n_resamples=100)], "comparison")
    files = write_report(tmp_path, [s], SETTINGS, [found])
    with open(tmp_path / "metrics.csv", newline="") as file:
        written = {row["label"] for row in csv.DictReader(file)}
    assert {"'=SUM(A1)", "'@home", "L" * 300} <= written
    page = (tmp_path / "report.md").read_text()
    assert "<b>" not in page and "&lt;b>bold&lt;/b>\\|x" in page
    printed = console([s], SETTINGS, tmp_path, files)
    assert max(len(line) for line in printed.splitlines() if line.startswith("L")) < 120


def test_a_name_with_a_control_character_is_refused_before_it_reaches_anything():
    from stats.grouping import comparison_groups
    named = [replace(m, meta=m.meta | {"name": "red\x1b[31m"}) for m in models()[:1]]
    lettered = [replace(m, labels=["Edema\r", *m.labels[1:]]) for m in models()[:1]]
    for found in (named, lettered):
        with pytest.raises(ValueError, match="control character"):
            comparison_groups(found, {}, {}, by_labels=False)
