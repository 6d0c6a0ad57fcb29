"""What several test files share."""

import os
import signal
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# Its assertions are explained as those of tests are; said before the first test file imports it.
pytest.register_assert_rewrite("evaluations")

# A shell starts background jobs with Ctrl-C ignored, and that is inherited: tests that send it
# would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_cxr14():
    """Real ChestX-ray14 tables with a few of its images.

    `$CXR14_SAMPLE`, or `shared/cxr14` beside the repository.
    """
    root = Path(os.environ.get("CXR14_SAMPLE", REPOSITORY.parent / "shared" / "cxr14"))
    if not root.is_dir():
        pytest.skip(f"no real ChestX-ray14 sample at {root}")
    return root


@pytest.fixture(scope="session")
def real_dicom():
    """Real DICOM radiographs: `$CXR_DICOM_SAMPLE`, or `shared/dicom` beside the repository."""
    root = Path(os.environ.get("CXR_DICOM_SAMPLE", REPOSITORY.parent / "shared" / "dicom"))
    if not root.is_dir():
        pytest.skip(f"no real DICOM sample at {root}")
    return root


@pytest.fixture
def blank_figures(monkeypatch):
    """Figures of a report that are files with nothing in them.

    To draw them takes most of the time of an evaluation, for tests that look at something else.
    """
    try:
        from stats.report import figures
    except ImportError:  # no matplotlib: there are none
        return
    monkeypatch.setattr(figures, "_fix_positions", lambda figure: None)
    monkeypatch.setattr(figures.Figure, "savefig", lambda figure, file, **options: None)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """A phantom corpus of 60 images, 42 of them for training."""
    from data.phantom.layouts import make_phantom
    root = tmp_path_factory.mktemp("train") / "phantom"
    make_phantom(root, patients=20, size=64)
    return root


@pytest.fixture
def arguments(phantom, tmp_path):
    def build(out="run", **changes):
        options = (
            dict(data="phantom", root=phantom, out=tmp_path / out,
                 cache_dir=phantom.parent / "cache", arch="vit_tiny", image_size=32, epochs=3,
                 batch_size=8, lr=1e-3, amp="off", device="cpu", log_seconds=0, workers=1)
            | changes
        )
        words = []
        for name, value in options.items():
            if value is not None and value is not False:
                words += ["--" + name.replace("_", "-") + ("" if value is True else f"={value}")]
        return words
    return build


@pytest.fixture(scope="session")
def unstopped(phantom, tmp_path_factory):
    """The folder of a run that nothing disturbed, on one thread."""
    from runs import start  # it imports torch, which most tests do without
    out = tmp_path_factory.mktemp("unstopped") / "run"
    process = start(["--data", "phantom", "--root", str(phantom), "--out", str(out), "--cache-dir",
                    str(phantom.parent / "cache"), "--arch", "vit_tiny", "--image-size", "32",
                    "--epochs", "3", "--batch-size", "8", "--lr", "1e-3", "--amp", "off",
                    "--device", "cpu", "--workers", "1"])
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out
