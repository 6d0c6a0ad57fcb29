"""What an epoch over the same files costs with torchxrayvision's Dataset and with ours. By hand:

    pip install torchxrayvision opencv-python-headless
    python benchmarks/epoch.py --root DIR       # a ChestX-ray14 release with some original images

Both read the same copies of ChestX-ray14's original 1024 x 1024 PNGs in batches of 32, in one run.
torchxrayvision's NIH_Dataset decodes, crops and resizes each image anew in every epoch, in a
PyTorch DataLoader with a process per core. Ours does the paper's preprocessing once (which
equalizes as well), with a process per core, and from then on reads a memory-mapped array.
"""

import argparse
import csv
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from PIL import Image
from torch.utils.data import DataLoader

from data.batches import epoch_batches, prefetch
from data.cache.fill import available_cores
from data.cxr14 import ChestXray14

TABLE, LISTS = "Data_Entry_2017_v2020.csv", ("train_val_list.txt", "test_list.txt")
EPOCH = 86_524  # training images of ChestX-ray14
BATCH = 32


def make_release(root, folder, copies):
    """A release of `copies` training images under their official names, each a copy of an original.

    Its test list has one image more.
    """
    (folder / "images").mkdir(parents=True)
    originals = []
    for path in sorted((root / "images").glob("*.png")):
        with Image.open(path) as picture:
            originals += [path] * (picture.size == (1024, 1024))
    if not originals:
        raise SystemExit(f"{root}: expected original images of 1024 x 1024")
    names = {name: (root / name).read_text().split()[:n] for name, n in zip(LISTS, (copies, 1))}
    for name, listed in names.items():
        (folder / name).write_text("\n".join(listed) + "\n")
    every = [name for listed in names.values() for name in listed]
    for i, name in enumerate(every):
        shutil.copyfile(originals[i % len(originals)], folder / "images" / name)
    with open(root / TABLE, newline="") as source, open(folder / TABLE, "w", newline="") as target:
        rows = csv.reader(source)
        kept = csv.writer(target)
        kept.writerow(next(rows))
        kept.writerows(row for row in rows if row[0] in set(every))
    return len(originals)


def cpu_seconds():
    """CPU time of this process and of those it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def cost_of(function, times=2):
    """Wall and CPU seconds of a call, the least of a few."""
    found = []
    for _ in range(times):
        began, used = time.perf_counter(), cpu_seconds()
        function()
        found.append((time.perf_counter() - began, cpu_seconds() - used))
    return [min(seconds) for seconds in zip(*found)]


def torchxrayvision_epochs(folder, copies, workers):
    """(name, (wall, CPU seconds)) of an epoch through torchxrayvision, for each of its resizers."""
    try:
        import torchxrayvision
        from torchvision.transforms import Compose
    except ImportError:
        return [("torchxrayvision is not installed", None)]
    version, found = torchxrayvision.__version__, []
    for engine in ("skimage", "cv2"):
        steps = Compose([torchxrayvision.datasets.XRayCenterCrop(),
                         torchxrayvision.datasets.XRayResizer(224, engine=engine)])
        dataset = torchxrayvision.datasets.NIH_Dataset(
            folder / "images", csvpath=folder / TABLE, views=["PA", "AP"], unique_patients=False,
            transform=steps)
        loader = DataLoader(dataset, BATCH, shuffle=True, num_workers=workers)

        def epoch(loader=loader):
            assert sum(len(batch["img"]) for batch in loader) == copies + 1

        try:
            found.append((f"torchxrayvision {version}, resized by {engine}", cost_of(epoch)))
        except ImportError:
            found.append((f"torchxrayvision {version}: {engine} is not installed", None))
    return found


def our_epochs(folder, copies, workers):
    """The same of our first epoch, which fills the cache, and of a later one."""
    def build(number):
        return ChestXray14(folder, "train", val_fraction=0.0, workers=workers, progress=False,
                           cache_dir=folder / f"cache{number}")

    numbers = iter(range(2))
    first = cost_of(lambda: build(next(numbers)))
    dataset, device = build(0), torch.device("cpu")
    assert len(dataset) == copies

    def epochs(n=20):
        for epoch in range(n):
            batches = epoch_batches(copies, BATCH, seed=0, epoch=epoch)
            assert sum(len(batch[0]) for batch in prefetch(dataset, batches, device, seed=0,
                                                           epoch=epoch)) == copies
    return [("ours, the first epoch: fill the cache", first),
            ("ours, every later epoch", [seconds / 20 for seconds in cost_of(epochs)])]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path,
                        default=Path(__file__).resolve().parents[2] / "shared" / "cxr14")
    parser.add_argument("--copies", type=int, default=480, help="images in an epoch (default: 480)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cores = available_cores()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "release"
        originals = make_release(args.root, folder, args.copies)
        print(f"{args.copies} copies of {originals} originals; {platform.machine()}, {cores} cores "
              f"(load {os.getloadavg()[0]:.1f}), PyTorch {torch.__version__}\n")
        rows = torchxrayvision_epochs(folder, args.copies, cores)
        rows += our_epochs(folder, args.copies, cores)
    print(f"| an epoch with {cores} processes | CPU ms an image | images/s | {EPOCH:,} images |\n"
          "|---|---|---|---|")
    for name, cost in rows:
        if cost is None:
            print(f"| {name} | | | |")
            continue
        seconds, cpu = cost
        whole = EPOCH * seconds / args.copies
        shown = f"{whole / 60:,.0f} min" if whole >= 60 else f"{whole:.1f} s"
        each = 1e3 * cpu / args.copies
        print(f"| {name} | {each:.3g} | {args.copies / seconds:,.0f} | {shown} |")



if __name__ == "__main__":
    main()
