"""Read radiographs with an exported model: onnxruntime, NumPy and Pillow, no PyTorch.

    python -m export.predict model.onnx a.png b.dcm FOLDER            # a table
    python -m export.predict model.onnx FOLDER --csv out.csv          # or --jsonl out.jsonl
    find /archive -name '*.dcm' | python -m export.predict model.onnx - --csv out.csv
    python -m export.predict model.onnx --card                        # what the model is
    python -m export.predict model.onnx --verify                      # does it compute what it did at home?

Exit code 0; 1 if an image failed (its row says why) or --verify found a difference; 2 for misuse; 130 after Ctrl-C
and 143 after SIGTERM, with no file left half written.
Research software; not a medical device.
"""

import argparse
import csv
import json
import os
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path

from data.decode import read_image
from export.card import card
from export.explain import write_overlays
from export.output import check_target, replacing, run_script
from export.runtime import WINDOW_BYTES, Predictor, cuda_problem
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
    form.add_argument("--card", action="store_true", help="print the model card and stop")
    form.add_argument("--verify", action="store_true", help="rerun the export's parity check and stop; the "
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
    """The image files that arguments name: files, folders (searched through), and - for a list on stdin.

    A folder that cannot be read is among them, for its error to have a row.
    """
    paths = []
    for argument in arguments:
        if argument == "-":
            if hasattr(sys.stdin, "reconfigure"):
                sys.stdin.reconfigure(errors="surrogateescape")  # file names need not be UTF-8
            paths += [Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip()]
        elif Path(argument).is_dir():
            found = search(argument)
            if not found:
                raise ValueError(f"{argument}: holds no image (DICOM, or {', '.join(sorted(SUFFIXES))})")
            paths += found
        else:
            paths.append(Path(argument))
    if not paths:
        raise ValueError("no image given")
    return paths


def search(top):
    """The images below a folder and the folders there that cannot be read, sorted; links are followed."""
    found, seen = [], set()
    for folder, folders, files in os.walk(top, followlinks=True, onerror=lambda e: found.append(Path(e.filename))):
        folders.sort()
        if (real := os.path.realpath(folder)) in seen:  # a link may lead back up
            folders.clear()
            continue
        seen.add(real)
        found += [path for path in (Path(folder, name) for name in files) if is_image(path)]
    return sorted(found)


def is_image(path):
    """Whether a file has an image's suffix, or none that is known and DICOM's mark inside, as archives have them."""
    if path.name.startswith("._") or path.name == "DICOMDIR":  # macOS's notes beside a file, a table of contents
        return False
    known = path.suffix.lower() in SUFFIXES
    try:
        if path.exists() and not path.is_file():  # reading from a pipe would wait for ever
            return False
        if known:
            return True
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return known


def decoded(paths, check, workers, ahead):
    """Each path with its image, or with the reason why there is none; decoded on other threads, in order.

    `ahead` images wait at most, in `WINDOW_BYTES` and one image a thread more.
    """
    gate, held, turn = threading.Condition(), 0, 0

    def read(n, path):
        nonlocal held
        with gate:
            gate.wait_for(lambda: held < WINDOW_BYTES or n <= turn)  # whoever is waited for need not wait
        try:
            image, error = check(read_image(path), path), None
        except (ValueError, OSError) as reason:
            image, error = None, str(reason).replace("\n", " ")
        with gate:
            held += size(image)
        return path, image, error

    def take():
        nonlocal held, turn
        item = pending.popleft().result()
        with gate:
            held, turn = held - size(item[1]), turn + 1
            gate.notify_all()
        return item

    pool, pending = ThreadPoolExecutor(workers), deque()
    try:
        for n, path in enumerate(paths):
            pending.append(pool.submit(read, n, path))
            if len(pending) > ahead:
                yield take()
        while pending:
            yield take()
    finally:
        with gate:
            turn = len(paths)
            gate.notify_all()
        pool.shutdown(cancel_futures=True)


def size(image):
    return 0 if image is None else image.nbytes


def predictions(model, paths, batch_size=8, workers=None):
    """Predict many files: yields (path, image, probability (L,), error); the third or the fourth is None.

    The radiographs of an archive differ in size and only equal ones can share a batch, so that some batches'
    worth is taken together, while the next are decoded.
    """
    window, held, together = [], 0, 3 * batch_size
    with closing(decoded(paths, model.check, workers or os.cpu_count(), ahead=together)) as files:
        for n, item in enumerate(files, start=1):
            window.append(item)
            held += size(item[1])
            if len(window) == together or held >= WINDOW_BYTES or n == len(paths):
                scores = iter(score(model, [image for _, image, _ in window if image is not None], batch_size))
                for path, image, error in window:
                    probability, reason = (None, None) if image is None else next(scores)
                    yield path, image, probability, error or reason and f"{path}: {reason}"
                window, held = [], 0


def score(model, images, batch_size):
    """Each image's (probability, error), one of them None; one bad image takes no other with it."""
    try:
        return [(probability, None) for probability in model.predict(images, batch_size)]
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
    failed, taken = 0, set()
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
            write_overlays(model, path, image, probability, args.explain, taken)
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
    parser = build_parser()
    args = parser.parse_intermixed_args(argv)  # options may stand before the images
    if args.explain and (args.card or args.verify):
        parser.error("argument --explain: not allowed with --card and --verify")
    return run_script("predict", lambda: predict(args))


def predict(args):
    """The script's work; gives its exit code."""
    target = args.csv or args.jsonl or "-"
    if target != "-":
        check_target(target)
    model = Predictor(args.model, args.provider, args.threads)
    if args.card:
        print(card(model.metadata), end="")
        return 0
    if args.verify:
        return 0 if verify(model, expand(args.images) if args.images else []) else 1
    paths = expand(args.images)
    to_stdout = target in ("-", "/dev/stdout")  # the latter may be a file that others write to as well
    if to_stdout and sys.stdout is None:
        raise ValueError("standard output is closed; --csv FILE or --jsonl FILE writes to a file")
    if args.explain:
        try:
            args.explain.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"--explain {args.explain}: there is a file in its place; expected a folder") from None
    why = ""
    if args.provider == "auto" and model.provider == "cpu":
        why = f" (no CUDA: {(cuda_problem() or 'onnxruntime found no usable GPU').partition(';')[0]})"
    print(f"{len(paths)} images on {model.provider}{why}", file=sys.stderr)
    with (nullcontext(sys.stdout) if to_stdout else replacing(target) as file,
          closing(predictions(model, paths, args.batch_size, args.workers)) as results):
        failed = write(model, progress(results, len(paths)), args, file)
    if failed:
        print(f"predict: {failed} of {len(paths)} images failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
