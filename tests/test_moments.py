"""What a user meets and no other test covers: the first minute, a typo, Ctrl-C, a full disk."""

import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time

import pytest
from conftest import REPOSITORY
from test_docs import PARSERS

from data.console import Progress
from data.files import atomic_write


def start(*words, cwd, **how):
    """A command of this program, run by this Python."""
    return subprocess.Popen([sys.executable, *words], cwd=cwd, text=True,
                            env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, **how)


def read_terminal(file):
    """What a process has written to its terminal; "" after its end."""
    try:
        return os.read(file, 4096).decode(errors="replace")
    except OSError:  # on Linux, when the other side is closed
        return ""


def test_a_terminal_shows_how_far_the_drawing_is(tmp_path):
    """The first command of the demo: a bar with the time left, and then what to do next."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = start("-m", "data.phantom", "--layout", "mimic", "--out", "mimic", "--patients", "60",
                    "--size", "128", cwd=tmp_path, stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    shown = "".join(iter(lambda: read_terminal(ours), ""))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and re.search(
        r"drawing: +\d+%\|.+\| \d+/\d+ \[\d\d:\d\d<\d\d:\d\d", shown), shown  # tqdm's bar
    assert out == ("mimic: 60 synthetic patients in the layout of mimic; next: python train.py "
                   "--data mimic --root mimic --plan\n")


def test_a_log_gets_a_line_a_minute_at_most(monkeypatch, capsys):
    clock = iter(range(1000))
    monkeypatch.setattr("data.console.time.monotonic", lambda: next(clock))
    progress = Progress("drawing", 300, unit="patients", seconds=60)
    assert list(progress.over(range(300))) == list(range(300))
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 6 and all("left" in line for line in lines)


@pytest.mark.parametrize("script", sorted(PARSERS))
def test_a_typo_is_one_line_that_names_the_nearest_option(script, capsys):
    parser = PARSERS[script]()
    option = max(parser._option_string_actions, key=len)
    needed = {"-m data.phantom": ["--layout", "mimic", "--out", "out"], "-m data.cache": ["mimic"],
              "-m export.predict": ["model.onnx", "a.png"], "-m export.to_onnx": ["run"],
              "-m export.page": ["model.onnx", "--out", "out"],
              "adopt.py": ["file", "--data", "cxr14", "--init", "dinov2"]}
    with pytest.raises(SystemExit) as end:
        parser.parse_args([*needed.get(script, []), option + "s"])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1, error
    assert f"(did you mean {option}?)" in error


def interrupt(process, seconds):
    """Press Ctrl-C; what the process then says, and its exit code."""
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    return error, process.returncode


def test_ctrl_c_while_drawing_leaves_nothing(tmp_path):
    process = start("-m", "data.phantom", "--layout", "phantom", "--out", "out", "--patients",
                    "5000", cwd=tmp_path, stderr=subprocess.PIPE)
    for _ in range(300):
        if any(tmp_path.glob(".out.*/images/*.png")):
            break
        time.sleep(0.1)
    error, code = interrupt(process, 0)
    assert code == 130 and error.count("\n") == 1 and "stopped by SIGINT" in error
    assert not list(tmp_path.iterdir())


def test_ctrl_c_in_the_statistics_is_one_line(tmp_path, monkeypatch, capsys):
    import evaluate

    def stop(*_, **__):
        raise KeyboardInterrupt
    monkeypatch.chdir(tmp_path)
    for name in ("a", "truth"):
        (tmp_path / f"{name}.csv").write_text("image_id,Edema\n1,0\n2,1\n")
    monkeypatch.setattr(evaluate, "study", stop)
    assert evaluate.main(["--predictions", "a.csv", "--truth", "truth.csv"]) == 130
    assert capsys.readouterr().err.endswith(
        "evaluate.py: stopped by SIGINT; what was complete is kept\n")
    assert not (tmp_path / "reports").exists()


def test_ctrl_c_before_the_first_step_is_one_line(arguments, monkeypatch, capsys):
    import train

    def stop(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(train, "build_run", stop)
    assert train.main(arguments()) == 130
    assert "interrupted before the first step" in capsys.readouterr().err


def test_a_full_disk_is_named_with_the_file(tmp_path):
    with pytest.raises(OSError, match="split.json: cannot be written: No space left on device"):
        with atomic_write(tmp_path / "split.json"):
            raise OSError("112120 requested and 98170 written")  # as NumPy says it
    assert not list(tmp_path.iterdir())
