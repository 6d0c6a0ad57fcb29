"""Where results go, and how the scripts end: links, devices, folders, signals."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from export_models import radiograph, write_model
from PIL import Image

from data.console import Parser, run_command
from export.predict import main


@pytest.fixture
def words(tmp_path):
    """A command line's model and image; the folder holds nothing else but `out`."""
    (tmp_path / "in").mkdir()
    Image.fromarray(radiograph(90, 70).astype(np.uint8)).save(tmp_path / "in" / "a.png")
    (tmp_path / "out").mkdir()
    model = write_model(tmp_path / "in" / "model.onnx")
    return [str(model), str(tmp_path / "in" / "a.png"), "--provider", "cpu"]


def start(words, **options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        text=True,
        env=environment,
        stderr=subprocess.PIPE,
        **options,
    )


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_what_a_link_points_to_is_replaced(words, tmp_path):
    (tmp_path / "out" / "old.csv").write_text("old")
    (tmp_path / "out" / "link.csv").symlink_to("old.csv")
    assert main([*words, "--csv", str(tmp_path / "out" / "link.csv")]) == 0
    assert (tmp_path / "out" / "link.csv").is_symlink() and len(
        rows(tmp_path / "out" / "old.csv")
    ) == 5
    assert sorted(os.listdir(tmp_path / "out")) == ["link.csv", "old.csv"]


def test_a_pipe_is_written_as_it_is(words, tmp_path):
    os.mkfifo(fifo := tmp_path / "out" / "fifo")
    read = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()), daemon=True)
    reader.start()
    assert main([*words, "--csv", str(fifo)]) == 0
    reader.join(10)
    assert read and read[0].count("a.png") == 5 and fifo.is_fifo()


def test_standard_output_by_its_device_keeps_what_others_wrote(words, tmp_path):
    with open(tmp_path / "out" / "all.txt", "w") as file:
        file.write("before\n")
        file.flush()
        assert start(["export.predict", *words, "--csv", "/dev/stdout"], stdout=file).wait(60) == 0
    text = (tmp_path / "out" / "all.txt").read_text()
    assert text.startswith("before\nimage,label") and text.count("a.png") == 5


@pytest.mark.parametrize(
    "target, reason", [("out", "is a folder"), ("gone/out.csv", "does not exist")]
)
def test_targets_are_refused_before_any_work(words, tmp_path, capsys, target, reason):
    absent = [str(tmp_path / "no-model.onnx"), *words[1:]]
    assert main([*absent, "--csv", str(tmp_path / target)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(tmp_path / target) in error and reason in error


@pytest.mark.parametrize(
    "options, said",
    [
        ([], "standard output is closed; --csv FILE or --jsonl FILE"),
        (["--csv", "-"], "standard output is closed"),
        (["--csv", "/dev/full"], "/dev/full: cannot be written: No space left on device"),
        (["--csv", "/proc/x.csv"], "/proc/x.csv: cannot be written"),
        (["--explain", __file__], f"File exists: '{__file__}'"),
        (
            ["--explain", __file__ + "/maps"],
            f"Not a directory: '{__file__}/maps'",
        ),
    ],
)
def test_what_cannot_be_written_is_named(words, tmp_path, options, said):
    closed = (
        dict(preexec_fn=lambda: os.close(1))
        if "closed" in said
        else dict(stdout=subprocess.DEVNULL)
    )
    process = start(["export.predict", *words, *options], **closed)
    error = process.communicate(timeout=60)[1]
    assert (
        process.returncode == 2
        and error.splitlines()[-1].startswith("python -m export.predict: error: ")
        and said in error
    )
    assert "Traceback" not in error


def test_a_closed_standard_output_is_no_error_where_nothing_goes_there(words, tmp_path):
    process = start(
        ["export.predict", *words, "--csv", str(tmp_path / "out" / "o.csv")],
        preexec_fn=lambda: os.close(1),
    )
    assert process.wait(60) == 0 and len(rows(tmp_path / "out" / "o.csv")) == 5


def test_a_name_that_is_not_utf8_costs_nothing(words, tmp_path, monkeypatch):
    strange = tmp_path / "in" / os.fsdecode(b"\xff.png")
    os.link(words[1], strange)
    options = [words[0], words[1], "-", "--provider", "cpu"]
    for form in ("csv", "jsonl"):
        with open(tmp_path / "list", "wb") as file:
            file.write(os.fsencode(strange) + b"\n")
        with open(tmp_path / "list") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            assert main([*options, f"--{form}", str(tmp_path / "out" / f"o.{form}")]) == 0
    names = [row["image"] for row in rows(tmp_path / "out" / "o.csv")]
    assert names == [words[1]] * 5 + [str(tmp_path / "in" / "\\udcff.png")] * 5
    entries = [json.loads(line) for line in (tmp_path / "out" / "o.jsonl").open()]
    assert entries[1]["image"] == str(strange)
    table = start(["export.predict", words[0], str(strange)], stdout=subprocess.PIPE)
    assert "\\udcff.png" in table.communicate(timeout=60)[0] and table.returncode == 0


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_in_one_line_and_leaves_no_part(words, tmp_path, number, code):
    maps = tmp_path / "out" / "maps"
    many = [
        words[0],
        *[words[1]] * 500,
        "--explain",
        str(maps),
        "--csv",
        str(tmp_path / "out" / "o.csv"),
    ]
    process = start(["export.predict", *many])
    deadline = time.monotonic() + 60
    while not (maps.is_dir() and any(maps.glob("*.png"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    error = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert "Traceback" not in error and error.splitlines()[-1] == (
        f"python -m export.predict: stopped by {number.name}; what was complete is kept")
    assert os.listdir(tmp_path / "out") == ["maps"]
    assert not list(maps.glob(".*")) and all(
        Image.open(path).size[0] >= 640 for path in maps.iterdir()
    )


def test_a_second_signal_does_not_interrupt_the_clean_up(capsys):
    cleaned, before = [], signal.getsignal(signal.SIGINT)

    def work(args):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            cleaned.append(True)

    assert run_command(Parser(prog="tool"), work, []) == 143 and cleaned
    assert capsys.readouterr().err == "tool: stopped by SIGTERM; what was complete is kept\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_reader_that_leaves_is_no_error(words):
    process = start(
        ["export.predict", words[0], *[words[1]] * 400, "--batch-size", "64"],
        stdout=subprocess.PIPE,
    )
    assert Path(process.stdout.readline().strip()).name == "a.png"
    process.stdout.close()
    error = process.stderr.read()
    assert process.wait(60) == 141 and error.splitlines() == [
        error.strip()
    ]  # the line that says how many


def test_a_run_folder_is_not_a_model(words, tmp_path, capsys):
    assert main([str(tmp_path / "in"), words[1]]) == 2
    assert (
        capsys.readouterr().err
        == f"python -m export.predict: error: {tmp_path / 'in'}: is a folder; give its model.onnx\n"
    )


@pytest.mark.parametrize(
    "options",
    [
        ["--card", "--verify"],
        ["--card", "--csv", "o.csv"],
        ["--verify", "--jsonl", "-"],
    ],
)
def test_one_task_at_a_time(words, capsys, options):
    with pytest.raises(SystemExit) as stop:
        main([*words, *options])
    error = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and "not allowed with" in error
    assert error.startswith("python -m export.predict: error: ")


@pytest.mark.parametrize(
    "options", [["--explain", "maps", "--card"], ["--explain", "maps", "--verify"], ["--resume"]]
)
def test_options_that_do_not_go_together_are_one_line(words, capsys, options):
    assert main([*words, *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"python -m export.predict: error: {options[0]}: ")


# -- before anything starts ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["predict", "to_onnx", "page"])
def test_what_is_not_installed_is_one_line(name):
    """Without site-packages, there is the standard library alone."""
    words = [sys.executable, "-S", "-m", f"export.{name}", "--help"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "not installed: numpy, pillow, onnxruntime" in done.stderr
    assert ("onnx, torch" in done.stderr) == (name == "to_onnx")
    assert "pip install -r requirements.txt" in done.stderr


def test_an_import_ends_no_program():
    """Another program's own -m and arguments are nothing to the package."""
    code = ("import sys; sys.argv[:1] = ['-m']; sys.orig_argv[:] = ['python', '-m', "
            "'export.to_onnx']; import export; print('alive')")
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=REPOSITORY, capture_output=True,
                          text=True)
    assert done.stdout == "alive\n" and done.returncode == 0


@pytest.mark.parametrize("name", ["predict", "to_onnx"])
def test_a_command_started_as_a_file_says_how_it_is_started(name):
    words = [sys.executable, f"export/{name}.py", "--help"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"python -m export.{name}" in done.stderr
