"""Read radiographs with an exported model: onnxruntime, NumPy and Pillow, no PyTorch.

    python -m export.predict model.onnx a.png b.dcm FOLDER            # a table
    python -m export.predict model.onnx FOLDER --csv out.csv          # or --jsonl out.jsonl
    find /archive -name '*.dcm' | python -m export.predict model.onnx - --csv out.csv
    python -m export.predict model.onnx --card                        # what the model is
    python -m export.predict model.onnx --verify                      # does it compute what it did at home?

Exit code 0; 1 if an image failed (its row says why) or --verify found a difference; 2 for misuse.
Research software; not a medical device.
"""

import argparse
import csv
import json
import os
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from data.images import read_image
from export.card import card
from export.explain import write_overlays
from export.runtime import Predictor
from export.verify import differences

SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm", ".dicom", ".dic", ".ima"}
COLUMNS = ("image", "label", "probability", "threshold", "call", "error")


def build_parser():
    parser = argparse.ArgumentParser(prog="predict", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="file written by export.to_onnx")
    parser.add_argument("images", nargs="*", help="PNG, JPEG, DICOM, folders, or - for a list on stdin")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", metavar="FILE", help="write CSV, a row per image and label (- for stdout)")
    form.add_argument("--jsonl", metavar="FILE", help="write JSON lines, one per image (- for stdout)")
    parser.add_argument("--provider", default="auto", choices=["auto", "cuda", "cpu"],
                        help="cuda fails where onnxruntime would run on the CPU (default: auto)")
    parser.add_argument("--batch-size", type=positive, default=8, help="images per inference (default: 8)")
    parser.add_argument("--threads", type=positive, help="CPU threads of one inference (default: all cores)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count(),
                        help="threads that decode images ahead of the model (default: one per core)")
    parser.add_argument("--card", action="store_true", help="print the model card and stop")
    parser.add_argument("--verify", action="store_true", help="rerun the export's parity check and stop; the "
                        "reference radiographs among IMAGES are recognised by their hash")
    parser.add_argument("--explain", metavar="DIR", type=Path,
                        help="also write a picture per image and label of where the model looked")
    return parser


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def expand(arguments):
    """The image files that arguments name: files, folders (searched through), and - for a list on stdin."""
    paths = []
    for argument in arguments:
        if argument == "-":
            paths += [Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip()]
        elif Path(argument).is_dir():
            found = sorted(p for p in Path(argument).rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise ValueError(f"{argument}: holds no image ({', '.join(sorted(SUFFIXES))})")
            paths += found
        else:
            paths.append(Path(argument))
    if not paths:
        raise ValueError("no image given")
    return paths


def decoded(paths, check, workers, ahead):
    """Each path with its image, or with the reason why there is none; decoded on other threads, in order."""
    def read(path):
        try:
            return path, check(read_image(path)), None
        except (ValueError, OSError) as error:
            return path, None, str(error).replace("\n", " ")

    with ThreadPoolExecutor(workers) as pool:
        pending = deque()
        for path in paths:
            pending.append(pool.submit(read, path))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def predictions(model, paths, batch_size=8, workers=None):
    """Predict many files: yields (path, image, probability (L,), error); the third or the fourth is None.

    The radiographs of an archive differ in size and only equal ones can share a batch, so that some batches'
    worth is taken together, while the next are decoded.
    """
    window, together = [], 3 * batch_size
    files = decoded(paths, model.check, workers or os.cpu_count(), ahead=together)
    for n, item in enumerate(files, start=1):
        window.append(item)
        if len(window) == together or n == len(paths):
            scores = iter(score(model, [image for _, image, _ in window if image is not None], batch_size))
            for path, image, error in window:
                probability, error = (None, error) if image is None else next(scores)
                yield path, image, probability, error
            window = []


def score(model, images, batch_size):
    """Each image's (probability, error), one of them None; one bad image takes no other with it."""
    try:
        return [(probability, None) for probability in model(images, batch_size)]
    except ValueError as error:
        if len(images) == 1:
            return [(None, str(error))]
        return [result for image in images for result in score(model, [image], 1)]


def rows(model, path, probability, error):
    """The output rows of one image: a label each, or one with the error."""
    if error:
        return [dict(image=str(path), error=error)]
    findings = zip(model.labels, probability, model.thresholds, model.calls(probability))
    return [dict(image=str(path), label=label, probability=float(p), threshold=threshold, call=call)
            for label, p, threshold, call in findings]


@contextmanager
def replacing(path):
    """A text file that takes its name when it is complete; stdout for - and for None."""
    if path in (None, "-"):
        yield sys.stdout
        return
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "w", newline="", encoding="utf-8") as file:
            yield file
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)


def progress(items, total):
    """A bar on stderr where that is a terminal and tqdm is installed."""
    if not sys.stderr.isatty():
        return items
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        print("pip install tqdm for a progress bar", file=sys.stderr)
        return items
    return tqdm(items, total=total, unit="image")


def write(model, results, args, file):
    """Write all results in the form asked for; gives the number of failed images."""
    failed, drawn = 0, {}
    table = csv.DictWriter(file, COLUMNS, lineterminator="\n") if args.csv else None
    if table:
        table.writeheader()
    for path, image, probability, error in results:
        failed += error is not None
        lines = rows(model, path, probability, error)
        if table:
            table.writerows(lines)
        elif args.jsonl:
            entry = dict(image=str(path), error=error) if error else dict(
                image=str(path), findings=[{k: v for k, v in line.items() if k != "image"} for line in lines])
            print(json.dumps(entry), file=file)
        else:
            print(path, error and f"  error: {error}" or "", sep="", file=file)
            for line in lines if not error else []:
                call = {True: "yes", False: "no", None: "-"}[line["call"]]
                threshold = "   -  " if line["threshold"] is None else f"{line['threshold']:6.4f}"
                print(f"  {line['label']:<24} {line['probability']:6.4f}  threshold {threshold}  {call}",
                      file=file)
        if args.explain and not error:
            number = drawn[path.stem] = drawn.get(path.stem, 0) + 1  # two folders may hold the same name
            name = path.stem if number == 1 else f"{path.stem}-{number}"
            write_overlays(model, name, image, probability, args.explain)
    return failed


def verify(model, paths):
    """Print the largest differences from the export's reference; gives whether all are small enough."""
    within = True
    for name, difference, tolerance in differences(model, paths):
        ok = difference <= tolerance
        within &= ok
        verdict = "ok" if ok else "DIFFERS"
        print(f"{name}: largest difference {difference:.2g}, allowed {tolerance:g}: {verdict}")
    return within


def main(argv=None):
    args = build_parser().parse_intermixed_args(argv)  # options may stand before the images
    try:
        model = Predictor(args.model, args.provider, args.threads)
        if args.card:
            print(card(model.metadata), end="")
            return 0
        if args.verify:
            return 0 if verify(model, expand(args.images) if args.images else []) else 1
        paths = expand(args.images)
        if args.explain:
            args.explain.mkdir(parents=True, exist_ok=True)
        print(f"{len(paths)} images on {model.provider}", file=sys.stderr)
        with replacing(args.csv or args.jsonl) as file:
            results = predictions(model, paths, args.batch_size, args.workers)
            failed = write(model, progress(results, len(paths)), args, file)
    except (ValueError, OSError) as error:
        print(f"predict: error: {error}", file=sys.stderr)
        return 2
    if failed:
        print(f"predict: {failed} of {len(paths)} images failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
