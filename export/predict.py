"""Read radiographs with an exported model: onnxruntime, NumPy and Pillow, no PyTorch.

    python -m export.predict model.onnx a.png b.dcm FOLDER            # a table
    python -m export.predict model.onnx FOLDER --csv out.csv          # or --jsonl out.jsonl
    find /archive -name '*.dcm' | python -m export.predict model.onnx - --csv out.csv
    python -m export.predict model.onnx --card                        # what the model is
    python -m export.predict model.onnx --verify                      # does it compute as exported?

Exit code 0; 1 if an image failed (its row says why) or --verify found a difference; 2 for misuse;
130 after Ctrl-C and 143 after SIGTERM, with no file left half written.
Research software; not a medical device.
"""

import argparse
import csv
import json
import os
import sys
from contextlib import closing, nullcontext
from pathlib import Path

from export.batch import expand, predictions
from export.card import card
from export.explain import write_overlays
from export.output import atomic_write, check_target, run_script
from export.runtime import Predictor, cuda_problem
from export.verify import differences

COLUMNS = ("image", "label", "probability", "threshold", "positive", "error")


def build_parser():
    parser = argparse.ArgumentParser(prog="predict", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="file written by export.to_onnx")
    parser.add_argument("images", nargs="*",
                        help="PNG, JPEG, DICOM, folders, or - for a list on stdin")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", metavar="FILE",
                      help="write CSV, a row per image and label (- for stdout)")
    form.add_argument("--jsonl", metavar="FILE",
                      help="write JSON lines, one per image (- for stdout)")
    parser.add_argument("--provider", default="auto", choices=["auto", "cuda", "cpu"],
                        help="cuda fails where onnxruntime would run on the CPU (default: auto)")
    parser.add_argument("--batch-size", type=positive, default=8,
                        help="images per inference (default: 8)")
    parser.add_argument("--threads", type=positive,
                        help="CPU threads of one inference (default: all cores)")
    parser.add_argument("--workers", type=positive, default=os.cpu_count(),
                        help="threads that decode images ahead of the model (default: a core each)")
    form.add_argument("--card", action="store_true", help="print the model card and stop")
    form.add_argument("--verify", action="store_true", help="compare the probabilities of the "
                      "reference images with those of the export and stop; reference radiographs "
                      "among IMAGES are recognized by their hash")
    parser.add_argument("--explain", metavar="DIR", type=Path,
                        help="also write a picture per image and label of where the model looked")
    return parser


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def rows(model, path, probability, error):
    """The output rows of one image: one per label, or one with the error."""
    if error:
        return [dict(image=str(path), error=error)]
    findings = zip(model.labels, probability, model.thresholds, model.predict_labels(probability))
    return [dict(image=str(path), label=label, probability=float(p), threshold=t, positive=above)
            for label, p, t, above in findings]


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
            findings = [{k: v for k, v in line.items() if k != "image"} for line in lines]
            entry = dict(error=error) if error else dict(findings=findings)
            print(json.dumps(dict(image=str(path)) | entry), file=file)
        else:
            print(path, error and f"  error: {error}" or "", sep="", file=file)
            for line in lines if not error else []:
                answer = {True: "yes", False: "no", None: "-"}[line["positive"]]
                threshold = "   -  " if line["threshold"] is None else f"{line['threshold']:6.4f}"
                print(f"  {line['label']:<24} {line['probability']:6.4f}  threshold {threshold}"
                      f"  {answer}", file=file)
        if args.explain and not error:
            write_overlays(model, path, image, probability, args.explain, taken)
    return failed


def verify(model, paths):
    """Print the largest differences from the reference; gives whether all are small enough."""
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
    to_stdout = target in ("-", "/dev/stdout")  # the latter may be a file that others write to
    if to_stdout and sys.stdout is None:
        raise ValueError("standard output is closed; --csv FILE or --jsonl FILE writes to a file")
    if args.explain:
        try:
            args.explain.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"--explain {args.explain}: there is a file in its place; expected a "
                             "folder") from None
    why = ""
    if args.provider == "auto" and model.provider == "cpu":
        problem = cuda_problem() or "onnxruntime found no usable GPU"
        why = f" (no CUDA: {problem.partition(';')[0]})"
    print(f"{len(paths)} images on {model.provider}{why}", file=sys.stderr)
    with (nullcontext(sys.stdout) if to_stdout else atomic_write(target) as file,
          closing(predictions(model, paths, args.batch_size, args.workers)) as results):
        failed = write(model, progress(results, len(paths)), args, file)
    if failed:
        print(f"predict: {failed} of {len(paths)} images failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
