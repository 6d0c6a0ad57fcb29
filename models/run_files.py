"""The files of a run folder beside its checkpoints, and what config.json tells of a run."""

import csv
import hashlib
import io
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data.console import plural
from data.files import atomic_write
from models.distributed import Processes
from models.inits import Initialization
from models.training import LabeledImages


def check_disk(folder: Path, needed: int) -> None:
    """Raise an OSError where the disk has no room for this many bytes of checkpoints."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"{folder}: {free / 2**30:.2f} GiB are free, and the run's checkpoints take "
                      f"up to {needed / 2**30:.2f}; --out takes another folder")


def write_skipped(folder: Path, *datasets: LabeledImages | None) -> None:
    """Write skipped.csv, where images were left out, and say so."""
    rows = skipped_rows(*datasets)
    listing = folder / "skipped.csv"
    listing.unlink(missing_ok=True)  # of an earlier attempt
    if rows:
        write_table(listing, rows)
        print(f"left out: {plural(len(rows), 'image')}, listed in {listing}")


def write_config(folder: Path, run_config: Mapping[str, Any]) -> None:
    """Write config.json."""
    with atomic_write(folder / "config.json") as file:
        file.write(json.dumps(run_config, indent=2).encode())


def skipped_rows(*datasets: LabeledImages | None) -> list[dict[str, str]]:
    """The images that were left out and why, those that are missing first."""
    rows = []
    for why in ("missing", "bad"):
        for dataset in datasets:
            if dataset is None:
                continue
            for path, reason in dataset.skipped[why]:
                rows.append({"image": path, "reason": reason})
    return rows


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file of rows with the same keys, floats to six digits."""
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({key: _cell(value) for key, value in row.items()})
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def run_facts(train_set: LabeledImages, val_set: LabeledImages | None,
              initialization: Initialization, processes: Processes) -> dict[str, Any]:
    """What config.json tells beside the settings: of data, weights, machine and versions."""
    device = processes.device
    if device.type == "cuda":
        device_name = torch.cuda.get_device_name(device)
    else:
        device_name = platform.machine()
    images_val = 0
    if val_set is not None:
        images_val = len(val_set)
    weights = None
    if initialization.weights:
        weights = str(initialization.weights)
    return {
        "labels_trained": train_set.labels,
        "labels_hash": labels_hash(train_set, val_set),
        "images_train": len(train_set), "images_val": images_val,
        "split_hash": train_set.split_hash, "preprocessing": train_set.preprocessing,
        "skipped": {why: len(files) for why, files in train_set.skipped.items()},
        "synthetic": train_set.synthetic,
        "weights": weights, "weights_sha256": initialization.sha256,
        "processes": processes.world, "device_name": device_name,
        "python": platform.python_version(), "torch": str(torch.__version__),
        "numpy": np.__version__, "git": git_revision()}


def labels_hash(*datasets: LabeledImages | None) -> str:
    """The sha256 of what a run learns from: images, labels and their values, in their order."""
    digest = hashlib.sha256()
    for dataset in datasets:
        if dataset is None:
            continue
        digest.update(repr((list(dataset.labels), dataset.table.image_id.tolist())).encode())
        values = np.nan_to_num(dataset.table.y, nan=-1).astype(np.int8)  # NaN is unknown
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def git_revision() -> str | None:
    """The commit this code is at, with "+" where files were changed; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--abbrev=40",
               "--exclude=*", "--dirty=+"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except OSError:  # git is not installed
        return None
