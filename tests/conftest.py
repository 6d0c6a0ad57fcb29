"""What several test files share."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_cxr14():
    """Real ChestX-ray14 tables with a few of its images: `$CXR14_SAMPLE`, or `shared/cxr14` beside the repository."""
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
