"""README and docs against the program: links, commands, the demo in small, the example."""

import ast
import re
import shlex
import subprocess
import sys

import example_report
import options_table
import pytest
import run_docs
from conftest import REPOSITORY

import evaluate
from adopt import build_parser as adopt_parser
from data.cache.__main__ import build_parser as cache_parser
from data.cohort import build_parser as cohort_parser
from data.phantom.__main__ import build_parser as phantom_parser
from export.page.__main__ import build_parser as page_parser
from export.predict import build_parser as predict_parser
from export.to_onnx import build_parser as to_onnx_parser
from models.settings import Config, ProbeConfig
from models.settings import build_parser as train_parser

PAGES = run_docs.PAGES
READER_PATHS = run_docs.READER_PATHS
PARSERS = {
    "train.py": lambda: train_parser(Config, ""),
    "probe.py": lambda: train_parser(ProbeConfig, ""), "evaluate.py": evaluate.build_parser,
    "-m data.cache": cache_parser, "-m data.cohort": cohort_parser,
    "-m data.phantom": phantom_parser, "-m export.predict": predict_parser,
    "-m export.to_onnx": to_onnx_parser,
    "-m export.page": page_parser, "adopt.py": adopt_parser,
}


def ours(page):
    """(key of PARSERS, arguments) of the page's commands that are this program's."""
    for language, text in run_docs.commands(page):
        for line in re.split(r"\n|&&|\|\|", text if language == "sh" else ""):
            match = re.search(r"(train\.py|adopt\.py|evaluate\.py|-m (?:data|export)\.\w+)"
                              r"(?:\s|$)(.*)", line)
            if match and match[1] in PARSERS and "..." not in line:
                yield match[1], re.split(r"\s[|>]\s?", match[2])[0]


def test_there_are_commands_to_check():
    assert sum(len(list(ours(page))) for page in PAGES) > 50


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_on_a_page_exists(page):
    for script, words in ours(page):
        words = words.replace("$init", "random").replace("$seed", "0").replace("CORPUS", "cxr14")
        words = words.replace("$images", "1000")
        try:
            PARSERS[script]().parse_args(shlex.split(words))
        except SystemExit as end:
            assert end.code == 0, f"{page.name}: {script} {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_on_a_page_exists(page):
    for script in re.findall(r"\b(?:tests|docs|benchmarks)/[\w/]+\.py", page.read_text()):
        assert (REPOSITORY / script).is_file(), f"{page.name}: {script}"


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """A folder with this checkout and small stand-ins of what the pages' commands speak of."""
    folder = tmp_path_factory.mktemp("docs")
    run_docs.prepare(folder)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in READER_PATHS if name != "predict"])
def test_a_readers_path_can_be_walked(name, stand_ins):
    """Every command of the page, in its order, on drawn releases; only installing is left out.

    tests/test_export_docs.py walks docs/predict.md, without PyTorch.
    """
    outcomes = list(run_docs.run_page(REPOSITORY / "docs" / f"{name}.md", stand_ins))
    for outcome in outcomes:
        assert outcome.why_not in (None, "installs packages"), outcome.command
        assert outcome.code == 0, f"{outcome.run_as}\n{outcome.printed[-2000:]}"
    assert sum(outcome.why_not is None for outcome in outcomes) >= 2


@pytest.mark.by_hand
def test_every_command_on_a_page_runs():
    assert run_docs.main([]) == 0


def anchors(page):
    """The anchors that GitHub gives a page's headings."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    for heading in re.findall(r"(?m)^#+ (.+)$", text):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_internal_link_leads_somewhere(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.S)  # without code
    for target in re.findall(r"\]\(([^)\s]+)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: {target}"


def test_every_page_that_the_program_speaks_of_exists():
    sources = [path for folder in ("", "data", "export", "models", "stats") for path in
               (REPOSITORY / folder).glob("**/*.py" if folder else "*.py")]
    named = {name for path in sources
             for name in re.findall(r"docs/[\w-]+\.md", path.read_text())}
    assert len(named) >= 3
    for name in named:
        assert (REPOSITORY / name).is_file(), name


def text_of(page):
    """A page without its fenced blocks and comments."""
    return re.sub(r"(?ms)^```.*?^```|<!--.*?-->", "", page.read_text())


def count_words(page):
    """How many of a page's words have a letter or a digit."""
    return sum(any(c.isalnum() for c in word) for word in text_of(page).split())


@pytest.mark.parametrize("name", READER_PATHS)
def test_a_readers_path_is_short(name):
    assert count_words(REPOSITORY / "docs" / f"{name}.md") <= 600


def test_the_index_of_the_tests_helpers_is_whole():
    index = (REPOSITORY / "CONTRIBUTING.md").read_text()
    for helper in (REPOSITORY / "tests").glob("*.py"):
        if not helper.name.startswith(("test_", "simulate_")):  # which it has by a pattern
            assert f"`{helper.name}`" in index, helper.name


def test_the_docs_are_short():
    """All pages that are read, which the generated list of options is not."""
    pages = [page for page in (REPOSITORY / "docs").glob("*.md") if page != options_table.PAGE]
    assert len(pages) >= 12
    assert sum(map(count_words, pages)) <= 9000


@pytest.mark.parametrize("name", READER_PATHS)
def test_the_readme_leads_to_each_path(name):
    assert f"(docs/{name}.md)" in (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_wrapped(page):
    for line in text_of(page).splitlines():
        cannot_be = line.startswith(("|", "![", "    "))  # a table, a picture, a formula
        assert cannot_be or len(line) <= 100, f"{page.name}: {line}"


def test_what_the_reading_list_names_is_there():
    """docs/code.md: `file.py`: `name`, `name` in a row of its table."""
    rows = re.findall(r"(?m)^\| \d+ \| `([\w/]+\.py)`: ([^|]+)\|",
                      (REPOSITORY / "docs" / "code.md").read_text())
    assert len(rows) >= 5
    for file, names in rows:
        tree = ast.parse((REPOSITORY / file).read_text())
        defined = {node.name for node in tree.body
                   if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert set(re.findall(r"`(\w+)`", names)) <= defined, file


def test_the_list_of_options_is_that_of_the_settings():
    """Where it fails: python tests/options_table.py."""
    assert options_table.PAGE.read_text() == options_table.page()


@pytest.mark.parametrize("script", sorted(REPOSITORY.glob("benchmarks/*.py")),
                         ids=lambda script: script.stem)
def test_a_benchmark_finds_what_it_imports_of_ours(script):
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (REPOSITORY / node.module.split(".")[0]).exists():
            for name in node.names:
                exec(f"from {node.module} import {name.name}", {})


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().split()) <= 900


@pytest.mark.long
def test_the_demo_runs_in_small_and_again(tmp_path):
    """demo.sh with fewer patients, epochs and runs, and this Python in place of its own."""
    for entry in ("data", "models", "stats", "export", "train.py", "evaluate.py",
                  "pretrain_mimic.py"):
        (tmp_path / entry).symlink_to(REPOSITORY / entry)
    script = (REPOSITORY / "demo.sh").read_text()
    small = re.sub(r"--patients \d+", "--patients 20", script)
    small = re.sub(r"--epochs \d+", "--epochs 1", small)
    small = small.replace("--warmup-epochs 2", "--warmup-epochs 0")
    small = small.replace("seed in 0 1 2", "seed in 0 1")
    small = re.sub(r"(?m)^\.venv/bin/python -m pip.*\n", "", small)
    small = small.replace("[ ! -x .venv/bin/python ]", "false")
    small = small.replace("../.venv/bin/python", sys.executable)
    (tmp_path / "demo.sh").write_text(small)
    for _ in range(2):  # the second time, what is there is kept
        done = subprocess.run(["sh", "demo.sh"], cwd=tmp_path, text=True, capture_output=True,
                              timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
        assert re.search(r"MIMIC-CXR − random on .*points \(95 % CI", done.stdout), done.stdout
        reports = tmp_path / "demo" / "reports"
        assert (reports / "report.html").exists() and (reports / "forest.png").exists()
        assert list((tmp_path / "demo" / "maps").glob("*.png"))
        assert done.stdout.splitlines()[-1].endswith("demo/reports/report.html")


@pytest.mark.long
def test_the_example_runs(tmp_path):
    done = subprocess.run([sys.executable, str(REPOSITORY / "docs" / "example.py")], cwd=tmp_path,
                          text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mean over labels: p = " in done.stdout and (tmp_path / "example.png").exists()


def without_drawings(page):
    """A report without its figures, which look otherwise with another matplotlib."""
    return re.sub(r"data:image/svg\+xml;base64,[^\"]*", "", page)


def test_the_example_report_is_what_would_be_made_now(tmp_path):
    """Where it fails: python tests/example_report.py, whose head says more."""
    assert example_report.INPUTS_HASH.read_text().strip() == example_report.demo_hash()
    example_report.write_report(tmp_path)
    for name in example_report.KEPT:
        made, kept = (tmp_path / name).read_text(), (example_report.EXAMPLE / name).read_text()
        assert without_drawings(made) == without_drawings(kept), name
