# ruff: noqa: E402
"""What a core and a machine take to fill the cache: `python benchmarks/images.py`

Prints Markdown: decoding and preprocessing against the bare decoding of the same files by Pillow,
torchvision and, if it is installed, OpenCV, in CPU time of one thread; whole caches built with one
and more processes; and time and disk for 800,000 images, extrapolated from that.
"""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import io
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode
from torchvision.io import decode_image as torchvision_decode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from data.cache.build import build_cache
from data.cache.fill import available_cores
from data.decode import decode_image
from data.preprocess import preprocess

try:
    import cv2
except ImportError:
    cv2 = None

IMAGES, CORES = 800_000, (1, 16, 64)


def pillow(data):
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()


def torchvision(data):
    torchvision_decode(torch.frombuffer(bytearray(data), dtype=torch.uint8),
                       ImageReadMode.UNCHANGED)


def opencv(data):
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def read(data):
    decode_image(data, "")


def both(data):
    preprocess(decode_image(data, ""))


def times(files, decoders, rounds):
    """Least CPU time per file of each decoder, in ms; in turns, so that a busy moment hits all of
    them."""
    contents = [path.read_bytes() for path in files]
    best = dict.fromkeys(decoders, np.inf)
    for _ in range(rounds):
        for decode in decoders:
            begin = time.thread_time()
            for data in contents:
                decode(data)
            best[decode] = min(best[decode], time.thread_time() - begin)
    return {decode: 1e3 * seconds / len(files) for decode, seconds in best.items()}


def radiograph(rng, height, width, top):
    """A smooth shape with film grain, of values up to `top`: stands in for a radiograph of that
    size."""
    coarse = Image.fromarray(rng.random((12, 10)).astype(np.float32)).resize((width, height),
                                                                             Image.BICUBIC)
    image = 0.15 + 0.7 * np.asarray(coarse) + rng.normal(0, 0.008, (height, width))
    return (image.clip(0, 1) * top).round()


def make_files(folder, root):
    """File sets by name: real ones where there are some, and made ones in other releases' sizes."""
    rng, sets = np.random.default_rng(0), {}
    if root is not None:
        originals = {"L": [], "RGBA": []}
        for path in sorted((root / "images").glob("*.png")):
            with Image.open(path) as picture:
                if picture.size == (1024, 1024):
                    originals[picture.mode].append(path)
        sets["ChestX-ray14, all originals"] = originals["L"] + originals["RGBA"]
        sets["ChestX-ray14, gray"], sets["ChestX-ray14, RGBA"] = originals["L"], originals["RGBA"]
    shapes = {"made: gray PNG 1024x1024": (1024, 1024, 255, "png", {}),
              "made: 16-bit PNG 2048x2500 (PadChest)": (2048, 2500, 65535, "png", {}),
              "made: JPEG 3056x2544, quality 95 (MIMIC)": (3056, 2544, 255, "jpg", {"quality": 95}),
              "made: JPEG 320x390 (CheXpert-small)": (320, 390, 255, "jpg", {"quality": 90})}
    for name, (height, width, top, suffix, options) in shapes.items():
        sets[name] = []
        for i in range(4):
            image = radiograph(rng, height, width, top).astype(np.uint8 if top == 255
                                                               else np.uint16)
            sets[name].append(folder / f"{len(sets)}-{i}.{suffix}")
            Image.fromarray(image).save(sets[name][-1], **options)
    return {name: files for name, files in sets.items() if files}


def measure_core(sets, rounds):
    names = {pillow: "Pillow", torchvision: "torchvision", opencv: "OpenCV", read: "our read_image",
             both: "and preprocess"}
    bare = [pillow, torchvision] + [opencv] * (cv2 is not None)
    columns = [*bare, read, both]
    print("| CPU ms an image | MB | " + " | ".join(names[decode] for decode in columns)
          + " | ratio |")
    print("|---|---|" + "---|" * (len(columns) + 1))
    for name, files in sets.items():
        best = times(files, columns, rounds)
        size = sum(path.stat().st_size for path in files) / len(files) / 1e6
        print(f"| {name} | {size:.2f} | " + " | ".join(f"{best[decode]:.2f}" for decode in columns)
              + f" | {best[both] / min(best[decode] for decode in bare):.2f} |")


def measure_build(files, folder, copies):
    """Images per second of `build_cache` by number of processes; each build is of new copies of the
    files."""
    names = [f"{i}{files[0].suffix}" for i in range(copies)]
    for i, name in enumerate(names):
        shutil.copyfile(files[i % len(files)], folder / name)
    rates = {}
    for workers in sorted({1, 2, available_cores()} & set(range(1, available_cores() + 1))):
        seconds = []
        for turn in range(2):
            begin = time.perf_counter()
            build_cache(folder, names, names, corpus="bench",
                        cache_dir=folder / f"cache-{workers}-{turn}", workers=workers,
                        progress=False)
            seconds.append(time.perf_counter() - begin)
        rates[workers] = copies / min(seconds)
    built = next((folder / "cache-1-0").iterdir())
    used = sum(path.stat().st_blocks * 512 for path in built.iterdir()) / copies
    print("| processes | images/s | speed-up |\n|---|---|---|")
    for workers, rate in rates.items():
        print(f"| {workers} | {rate:.0f} | {rate / rates[1]:.2f} |")
    return rates, used


def build_parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path,
                        default=Path(__file__).resolve().parents[2] / "shared" / "cxr14",
                        help="a ChestX-ray14 release with some original images, if there is one")
    parser.add_argument("--rounds", type=int, default=7, help="the fastest counts (default: 7)")
    parser.add_argument("--copies", type=int, default=400,
                        help="images in the caches built (default: 400)")
    return parser


def main(argv=None):
    args = build_parser().parse_args(argv)
    torch.set_num_threads(1)
    models = [line.split(":")[1].strip() for line in open("/proc/cpuinfo")
              if line.startswith("model name")]
    versions = f"Pillow {Image.__version__}, torch {torch.__version__}, NumPy {np.__version__}"
    opencv_version = f"OpenCV {cv2.__version__}" if cv2 else "no OpenCV"
    cpu = models[0] if models else platform.processor()
    print(f"{cpu}, {available_cores()} cores (load {os.getloadavg()[0]:.1f}); {versions}, "
          f"{opencv_version}\n")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sets = make_files(folder, args.root if (args.root / "images").is_dir() else None)
        measure_core(sets, args.rounds)
        (folder / "build").mkdir()
        name, files = next(iter(sets.items()))
        print(f"\nCaches of {args.copies} images ({name}), start of the processes included:\n")
        rates, used = measure_build(files, folder / "build", args.copies)
        read = sum(path.stat().st_size for path in files) / len(files) * rates[1] / 1e6
    print(f"\nExtrapolated to {IMAGES:,} such images ({used * IMAGES / 1e9:.0f} GB of disk), in "
          "proportion to the cores and the rate of\none process here, if the storage keeps up:\n")
    print("| cores | hours | MB/s read |\n|---|---|---|")
    for cores in CORES:
        print(f"| {cores} | {IMAGES / rates[1] / cores / 3600:.2f} | {read * cores:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
