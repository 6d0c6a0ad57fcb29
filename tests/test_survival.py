"""A run goes on to the same bits, whatever stopped it, on one process or several."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY
from runs import STATE, assert_same_run, kill_at, same, start

import train
from models.checkpoint import load_checkpoint
from models.run_lock import lock

pytestmark = pytest.mark.long


def test_same_seed_same_bits(arguments, tmp_path, unstopped):
    process = start(arguments())
    process.communicate(timeout=300)
    for name in ("best.pt", "last.pt"):
        a, b = load_checkpoint(tmp_path / "run" / name), load_checkpoint(unstopped / name)
        assert all(same(a[key], b[key]) for key in STATE if key in a)
    assert (tmp_path / "run" / "log.csv").read_bytes() == (unstopped / "log.csv").read_bytes()


@pytest.mark.parametrize("how, step", [(signal.SIGTERM, 4), (signal.SIGINT, 6)])
def test_stop_signal_then_resume_gives_the_same_bits(arguments, tmp_path, unstopped, how, step):
    assert kill_at(start(arguments()), step, how) == train.INTERRUPTED
    stopped = load_checkpoint(tmp_path / "run" / "last.pt")
    assert 0 < stopped["step"] < 18
    process = start(arguments(resume=True))
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0 and "from step" in out, errors
    assert_same_run(tmp_path / "run", unstopped)


def random_kills(arguments, folder, unstopped, kills, seed):
    """Kill -9 a run again and again, then let it end; how many kills it took."""
    rng = random.Random(seed)
    done = 0
    while True:
        process = start(arguments(resume=True, checkpoint_minutes=0))
        first = load_checkpoint(folder / "last.pt")["step"] if (folder / "last.pt").exists() else 0
        if done == kills or first >= 17:
            out, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            assert_same_run(folder, unstopped)
            return done
        code = kill_at(process, first + rng.randint(0, 3), signal.SIGKILL, rng.random() * 0.1)
        done += code == -signal.SIGKILL


def test_kill_9_at_random_steps_then_resume_gives_the_same_bits(arguments, tmp_path, unstopped):
    assert random_kills(arguments, tmp_path / "run", unstopped, kills=3, seed=20240214) >= 2


def test_disk_full_is_one_line_and_resume_gives_the_same_bits(arguments, tmp_path, unstopped):
    """A file size limit between best.pt (22 MB) and last.pt (66 MB) acts as a full disk."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30 << 20, 30 << 20))

    process = subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *arguments(log_seconds=1000)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=240,
    )
    assert process.returncode == 2 and "Traceback" not in process.stderr, process.stderr
    assert "last.pt" in process.stderr and "too large" in process.stderr
    left = {path.name for path in (tmp_path / "run").iterdir()} - {"curves.png"}  # small enough
    assert left == {".lock", "config.json", "split.json", "log.csv", "best.pt"}
    process = start(arguments(resume=True))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same_run(tmp_path / "run", unstopped)


def test_two_ranks_give_one_processs_losses(arguments, tmp_path, unstopped):
    process = start(
        arguments(), launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    )
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    one, two = (
        load_checkpoint(folder / "last.pt")["progress"]["log"]
        for folder in (unstopped, tmp_path / "run")
    )
    for a, b in zip(one, two, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5)
        assert b["val_loss"] == pytest.approx(a["val_loss"], rel=1e-4)


def test_a_rank_that_dies_takes_the_job_down_with_its_error_and_resume_goes_on(
    arguments, tmp_path, unstopped
):
    broken = tmp_path / "broken.py"
    broken.write_text(f"""
import os, sys; sys.path.insert(0, {str(REPOSITORY)!r})
import train
to_input, calls = train.to_input, []
def dies(*args, **kwargs):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == 9:
        raise ValueError("this card fell off the bus")
    return to_input(*args, **kwargs)
train.to_input = dies
sys.exit(train.main(sys.argv[1:]))
""")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    how = dict(
        capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    process = subprocess.run([*launch, str(broken), *arguments(checkpoint_minutes=0)], **how)
    assert process.returncode != 0 and "this card fell off the bus" in process.stderr
    step = load_checkpoint(tmp_path / "run" / "last.pt")["step"]
    assert 1 <= step <= 8
    process = subprocess.run(
        [*launch, str(REPOSITORY / "train.py"), *arguments(resume=True)], **how
    )
    assert process.returncode == 0 and f"from step {step} " in process.stdout, process.stderr[
        -2000:
    ]
    one, two = (
        load_checkpoint(folder / "last.pt")["progress"]["log"]
        for folder in (unstopped, tmp_path / "run")
    )
    for a, b in zip(one, two, strict=True):
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-5)


def test_a_second_sigterm_does_not_tear_the_checkpoint(arguments, tmp_path):
    """A cluster signals processes and torchrun, and torchrun passes its own on."""
    process = start(arguments(arch="vit_base", epochs=50, batch_size=2))
    for line in process.stderr:
        if line.startswith("training"):
            break
    for _ in range(40):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)
    process.communicate(timeout=120)
    assert process.returncode == train.INTERRUPTED
    load_checkpoint(tmp_path / "run" / "last.pt")
    assert not list((tmp_path / "run").glob(".*.part"))


def test_stopping_torchrun_keeps_the_checkpoint(arguments, tmp_path):
    process = start(arguments(arch="vit_base", epochs=50, batch_size=2),
                    launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"))
    for line in process.stderr:
        if line.startswith("training"):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert load_checkpoint(tmp_path / "run" / "last.pt")["step"] >= 1


def test_a_process_that_does_not_see_the_checkpoint_stops_the_job(arguments, tmp_path):
    assert train.main(arguments(epochs=1)) == 0
    apart = tmp_path / "apart.py"
    apart.write_text(f"""
import os, sys; sys.path.insert(0, {str(REPOSITORY)!r})
import train
if os.environ["RANK"] == "1":
    sys.argv += ["--out", {str(tmp_path / "of-another-machine")!r}]
sys.exit(train.main(sys.argv[1:]))
""")
    process = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone",
                             "--nproc_per_node=2", str(apart), *arguments(epochs=1, resume=True)],
                             capture_output=True, text=True, timeout=120,
                             env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.returncode != 0 and "all machines must see the same run folder" in process.stderr


def test_one_folder_one_process(arguments, tmp_path, capsys):
    process = start(arguments(epochs=200))
    for line in process.stderr:
        if line.startswith("training"):
            break
    assert train.main(arguments(epochs=200, resume=True)) == 2
    assert "another process is training in this folder" in capsys.readouterr().err
    process.kill()
    process.communicate()
    with lock(tmp_path / "run"):  # a killed process leaves none behind
        pass


def test_a_run_is_not_overwritten_and_not_resumed_otherwise(arguments, tmp_path, unstopped, capsys):
    shutil.copytree(unstopped, tmp_path / "run")
    assert train.main(arguments()) == 2
    assert "holds a run already; --resume" in capsys.readouterr().err
    assert train.main(arguments(resume=True, lr=2e-3, batch_size=4)) == 2
    assert "batch_size was 8 and is 4; lr was 0.001 and is 0.002" in capsys.readouterr().err
    assert train.main(arguments(resume=True)) == 0  # complete already: nothing changes
    assert_same_run(tmp_path / "run", unstopped)


@pytest.mark.by_hand
def test_fifty_kills_and_none_lost(arguments, tmp_path, unstopped):
    """By hand: several minutes of starting and killing."""
    done = 0
    for attempt in range(17):
        done += random_kills(
            lambda name=f"run{attempt}", **how: arguments(name, **how),
            tmp_path / f"run{attempt}",
            unstopped,
            kills=3,
            seed=attempt,
        )
    assert done >= 40
