"""Run the commands of README and docs on small stand-ins: python tests/run_docs.py [PAGE ...]

Every fenced `sh` and `python` block, and every `python ...` in a line, is run in the order of its
page, in a folder with this checkout and the stand-ins of `prepare`. `SMALLER` says what is put in
place of what; `CANNOT` says what is not run, and why. Takes some minutes; exits with 1 if a command
failed.
"""

import contextlib
import csv
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
READER_PATHS = ("predict", "own-data", "study", "predictions", "code")  # of the README's table
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")),
         REPOSITORY / "CONTRIBUTING.md"]
CORPORA = ("cxr14", "vindr", "chexpert", "mimic", "padchest", "ukacxr", "phantom")

SMALLER = [  # (what a command says, what is run); the words at the end of a command win
    (r"\.venv/bin/", ""),
    (r"/data/(\w+)", r"trees/\1"),  # synthetic trees in the layout of each release
    (r"--root /data(?=\s|$)", "--root trees"),
    (r"\bCORPUS\b", "cxr14"),
    (r"((?:--data|data\.cohort|data\.cache) (\w+)\b.*?--root) DIR", r"\1 trees/\2"),
    (r"--check DIR|(?<=model\.onnx )DIR", lambda m: m[0].replace("DIR", "trees/custom")),
    (r"/tmp/mimic", "trees/before-access"),
    (r"for seed in 0 1 2;", "for seed in 0 1;"),
    (r"--nproc_per_node=4", "--nproc_per_node=2"),
    (r"\b(FOLDER|IMAGES)\b", "trees/cxr14"),
    (r"/archive", "trees/vindr"),
    (r"\*\.dcm", "*.dicom"),
    (r"model-int8", "model"),
    (r"PART2/\S+", ""),  # what another machine would have made
    (r"--libraries node_modules", "--libraries tests/node_modules"),
    (r"\bIMAGE\b", "a.png"),
    (r"\bRUN\b", "runs/cxr14-dinov2"),
    (r"(?<![\w/])(model[-\w]*\.onnx)", r"runs/cxr14-dinov2/\1"),
    (r"(out|libraries|-m) (runs/cxr14-dinov2/)?", r"\1 "),
    (r"adopt FILE", "adopt stand-ins/FILE.pth --image-size 112"),
    (r"vit_base", "vit_tiny"),
    (r"weights/dinov2_vitb14_pretrain.pth", "stand-ins/dinov2.pth"),
    (r"images/\*", "trees/phantom/images/*"),
    (r"--limit 200", ""),
    (r"--patients \d+", "--patients 40"),
    (r"(evaluate\.py(?! --help)[^&|\n]*)", r"\1 --bootstrap 100 "),
]
WEIGHTS = {"dinov2": "dinov2.pth", "imagenet": "imagenet.npz"}  # random, in official layouts
TRAINING = "--epochs 1 --limit 60 --batch-size 8 --device cpu --val-fraction 0.5"
CANNOT = [  # (what a command says, why it is not run)
    (r"\b(pip|uv|conda|venv \.venv)\b", "installs packages"),
    (r"\bnpm install\b|export\.page(?!.*--libraries)", "needs the network"),
    (r"\bdocker\b", "needs Docker and a network"),
    (r"http\.server", "serves until it is stopped"),
    (r"--precision int8", "needs a trained model, since int8 is checked before it is written"),
    (r"\bsrun\b", "needs Slurm and several machines"),
    (r"pytest|test\.sh|demo\.sh|\.ci/run|mutants|ruff|mypy", "is the test suite itself"),
    (r"(benchmarks/|tests/test_)", "measures for minutes"),
    (r"--provider cuda|--device cuda", "needs a GPU"),
    (r"tritonclient", "needs a running Triton server"),
    (r"torch\.utils\.tensorboard", "needs tensorboard"),
] + ([] if (REPOSITORY / "tests/node_modules").is_dir() else
     [(r"--libraries node_modules", "needs the npm packages of tests/package.json")])
GIVEN = """
import numpy as np, torch
images, rng = torch.rand(2, 3, 224, 224), np.random.default_rng(0)
y_true = rng.integers(0, 2, (60, 2)) * 1.0
score_a, score_b = rng.random((2, 60, 2))
patient_id = np.repeat(np.arange(20), 3).astype(str)
dicom_bytes, array = open("b.dcm", "rb").read(), rng.random((64, 64), np.float32)
try:
    import pydicom
    pydicom_dataset = pydicom.dcmread("b.dcm")
except ImportError:
    pydicom_dataset = dicom_bytes
"""  # the names that the Python blocks take as given


def blocks(page):
    """(language, text) of a page's fenced blocks and of the commands in its lines."""
    pattern = r"^```(\w*)\n(.*?)^```|`((?:OMP_NUM_THREADS=2 )?python (?:-m )?[\w./]+ [^`]*)`"
    for match in re.finditer(pattern, page.read_text(), flags=re.S | re.M):
        if match[3]:
            yield "sh", match[3].replace("\n", " ")
        elif match[1] not in ("", "bibtex", "text"):
            yield match[1], match[2]


def commands(page):
    """(language, text) of each thing to run: a Python block, or as many lines as shell needs."""
    for language, text in blocks(page):
        if language == "sh":
            text = text.replace("\\\n", " ")
        if language != "sh" or text.startswith("#!"):
            yield language, text
            continue
        lines = []
        for line in text.splitlines():
            lines += [re.sub(r" {2,}", " ", line.split(" # ")[0].split("  #")[0]).strip()]
            whole = "\n".join(lines)
            if subprocess.run(["bash", "-n", "-c", whole], capture_output=True).returncode == 0:
                lines = []
                if whole.strip():
                    yield "sh", whole


def reason(language, text):
    """Why a command is not run here, or None."""
    if language not in ("sh", "python"):
        return f"is {language}"
    if "..." in text and language == "sh":
        return "is cut short by dots"
    return next((why for pattern, why in CANNOT if re.search(pattern, text)), None)


def smaller(text):
    """A command with its stand-ins."""
    for pattern, new in SMALLER:
        text = re.sub(pattern, new, text)
    return re.sub(r"((?:train|pretrain_mimic)\.py(?! --help))([^&|\n]*)",
                  lambda m: m[1] + smaller_training(*m.groups()), text)


def smaller_training(script, words):
    """The words of a training command, with random weights and few images.

    The run folder keeps its name, whatever the stand-in is called.
    """
    init = re.search(r"--init (\w[\w-]*)", words)
    if "--init $init" in words:  # of a loop over inits
        words += " --weights stand-ins/$init"
    folder = run_folder(words) if script == "train.py" and "--out" not in words else None
    if "--weights" not in words and (init[1] if init else "") in WEIGHTS:
        words += f" --weights stand-ins/{WEIGHTS[init[1]]}"
    if script == "pretrain_mimic.py" and not init:  # its default would be downloaded
        words += f" --weights stand-ins/{WEIGHTS['imagenet']}"
    if "vit_micro" not in words:
        words += " --arch vit_tiny --image-size 112"
    return f"{words} {TRAINING}" + (f" --out {folder} " if folder else " ")


def run_folder(words):
    """Where a train.py command writes, or None for one with shell variables."""
    from models.settings import Config, build_parser
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return Config(**vars(build_parser(Config, "").parse_args(shlex.split(words)))).folder
    except SystemExit:
        return None


def prepare(folder):
    """Lay the checkout and what the commands speak of into a folder."""
    for entry in ("data", "models", "stats", "export", "docs", "tests", "train.py", "evaluate.py",
                  "pretrain_mimic.py", "probe.py", "adopt.py"):
        (folder / entry).symlink_to(REPOSITORY / entry)
    for corpus in CORPORA:
        subprocess.run([sys.executable, "tests/phantom_layouts.py", "--layout", corpus, "--out",
                        f"trees/{corpus}", "--patients", "40", "--size", "64"], cwd=folder,
                       check=True, stdout=subprocess.DEVNULL)
    shutil.copytree(folder / "trees/phantom", folder / "trees/custom")
    with open(folder / "trees/phantom/phantom.csv") as file:
        rows = list(csv.DictReader(file))
    (folder / "trees/custom/phantom.csv").unlink()
    with open(folder / "trees/custom/labels.csv", "w") as file:
        file.write("image,patient_id,Effusion,Big heart\n")
        file.writelines(f"images/{r['image']},{r['patient_id']},{r['Pleural effusion']},"
                        f"{r['Cardiomegaly']}\n" for r in rows)
    shutil.copy(folder / "trees/phantom/images" / rows[0]["image"], folder / "a.png")
    shutil.copy(next((folder / "trees/vindr").rglob("*.dicom")), folder / "b.dcm")
    with open(folder / "trees/cxr14/Data_Entry_2017_v2020.csv") as file:
        rows = list(csv.DictReader(file))
    for n, name in enumerate("truth A B a0 a1 b0 b1 a b c d".split()):  # models of one label
        with open(folder / f"{name}.csv", "w") as file:
            file.write("image_id,patient_id,Nodule\n")
            for i, row in enumerate(rows):
                truth = int("Nodule" in row["Finding Labels"])
                value = truth if name == "truth" else (6 + n) * i % 11 / 11
                file.write(f"{row['Image Index']},{row['Patient ID']},{value}\n")
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]
    import numpy as np
    import torch
    from layouts import augreg_arrays, dinov2_state
    (folder / "stand-ins").mkdir()
    state = dinov2_state("vit_tiny")
    torch.save(state, folder / "stand-ins/dinov2.pth")
    head = {"head.weight": torch.randn(14, 192), "head.bias": torch.zeros(14)}
    torch.save(state | head, folder / "stand-ins/FILE.pth")  # trained elsewhere
    np.savez(folder / "stand-ins/imagenet.npz", **augreg_arrays("vit_tiny"))
    for init, file in WEIGHTS.items():
        (folder / "stand-ins" / init).symlink_to(file)
    for init in WEIGHTS:  # what the docs speak of as trained
        subprocess.run(smaller(f"python train.py --data cxr14 --root /data/cxr14 --init {init}"),
                       shell=True, cwd=folder, env=environment(), check=True,
                       capture_output=True)
    subprocess.run("python -m export.to_onnx runs/cxr14-dinov2", shell=True, cwd=folder,
                   env=environment(), check=True, capture_output=True)


def environment():
    """This Python's programs first, one thread a process."""
    return os.environ | dict(PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                             OMP_NUM_THREADS="1", CXR_CACHE="cache")


def run(language, text, folder):
    """Run one command in a folder; (exit code, what it printed)."""
    words = ["bash", "-euo", "pipefail", "-c", text]
    if language == "python":
        words = [sys.executable, "-c", GIVEN + text]
    trained = re.search(r"train\.py .*--out (\S+)", text)
    if trained and not re.search(r"--resume|--plan", text):  # an earlier page may have trained it
        shutil.rmtree(folder / trained[1], ignore_errors=True)
    try:
        done = subprocess.run(words, cwd=folder, env=environment(), text=True, timeout=600,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired:
        return 124, "took over 600 s"
    return done.returncode, done.stdout


@dataclass
class Outcome:
    """What became of one command of a page."""

    command: str
    why_not: str | None = None  # why it was not run
    run_as: str = ""
    code: int = 0
    printed: str = ""
    seconds: float = 0.0

    @property
    def first_line(self):
        return self.command.strip().splitlines()[0]


def run_page(page, folder):
    """Run a page's commands in a folder that `prepare` has made; yields an `Outcome` of each."""
    for language, text in commands(page):
        why_not = reason(language, text)
        if why_not:
            yield Outcome(text, why_not)
            continue
        began, run_as = time.monotonic(), smaller(text)
        code, printed = run(language, run_as, folder)
        yield Outcome(text, None, run_as, code, printed, time.monotonic() - began)


def main(names):
    """Run the commands of the pages; returns the exit code."""
    ran, failed, not_run = 0, 0, {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for page in [page for page in PAGES if not names or page.name in names]:
            for outcome in run_page(page, Path(folder)):
                line = f"{page.name}: {outcome.first_line}"
                if outcome.why_not:
                    not_run.setdefault(outcome.why_not, []).append(line)
                    continue
                ran += 1
                print(f"{'ok' if outcome.code == 0 else 'FAILED'} {outcome.seconds:4.0f} s  {line}",
                      flush=True)
                if outcome.code:
                    failed += 1
                    last_lines = "\n  ".join(outcome.printed.splitlines()[-6:])
                    print(f"  run as: {outcome.run_as}\n  {last_lines}")
    print(f"\n{ran} run, {failed} failed; {sum(map(len, not_run.values()))} not run:")
    for why_not, lines in not_run.items():
        print(f"  {why_not}:", *lines, sep="\n    ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
