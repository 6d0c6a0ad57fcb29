"""Read radiographs with an exported model: onnxruntime, NumPy and Pillow, no PyTorch.

    python -m export.predict model.onnx a.png b.dcm FOLDER            # a table
    python -m export.predict model.onnx FOLDER --csv out.csv          # or --jsonl out.jsonl
    find /archive -name '*.dcm' | python -m export.predict model.onnx - --csv out.csv --resume
    python -m export.predict model.onnx FOLDER --wide wide.csv        # for evaluate.py
    python -m export.predict model.onnx --card                        # what the model is
    python -m export.predict model.onnx --verify                      # does it compute as exported?

Exit code 0; 1 if an image failed (its row says why) or --verify found a difference; 2 for misuse;
130 after Ctrl-C and 143 after SIGTERM, with no file left half written.
Research software; not a medical device.
"""

import csv
import json
import os
import sys
from collections import Counter
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

if not __package__:
    print("error: start it as python -m export.predict, in the repository's folder",
          file=sys.stderr)
    sys.exit(2)

from data.console import Progress, check_whole, command, require_packages, run_command

if __name__ == "__main__":
    require_packages("numpy", "PIL", "onnxruntime")

from data.files import TEXT, atomic_write, check_target
from export.batch import expand, predictions
from export.card import card, weak_labels
from export.dicom import UIDS
from export.explain import INFERENCES, write_sheet
from export.runtime import Predictor
from export.verify import differences

COLUMNS = ("image", "label", "probability", "threshold", "positive", "calibration", "model",
           *UIDS, "error")


def build_parser():
    """The command line."""
    parser = command("export.predict", __doc__)
    add, form = parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    add("model", help="file written by export.to_onnx")
    add("images", nargs="*", help="PNG, JPEG, DICOM, folders, or - for a list on stdin")
    form("--csv", metavar="FILE", help="write CSV, a row per image and label (- for stdout)")
    form("--wide", metavar="FILE", help="write CSV, a row per image, known by its file's name, and "
         "a column per label, as evaluate.py --predictions reads; leaves failed images out")
    form("--jsonl", metavar="FILE", help="write JSON lines, one per image (- for stdout)")
    form("--card", action="store_true", help="print the model card and stop")
    form("--verify", action="store_true", help="compare the probabilities of the reference images "
         "with those of the export and stop; reference radiographs among IMAGES are recognized by "
         "their hash")
    add("--resume", action="store_true", help="with --csv: write rows as they come, and on a rerun "
        "skip the images that FILE has; those that failed are tried again")
    add("-0", dest="separator", action="store_const", const="\0", default="\n",
        help="the list on stdin is separated by NUL, as of find -print0")
    add("--no-uids", action="store_true", help="leave out DICOM's instance, study and series UIDs")
    add("--any-modality", action="store_true",
        help="take DICOM files that say that they are not frontal radiographs")
    add("--explain", metavar="DIR", type=Path, help="also write a picture per image of where the "
        f"model looked, for the labels above their threshold; {INFERENCES} inferences an image")
    add("--explain-all", action="store_true", help="with --explain: for all labels")
    add("--provider", default="auto", choices=["auto", "cuda", "cpu"],
        help="cuda fails where onnxruntime would run on the CPU (default: auto)")
    add("--batch-size", type=int, default=8, help="images per inference (default: 8)")
    add("--threads", type=int, help="CPU threads of one inference (default: all cores)")
    add("--workers", type=int, default=os.cpu_count(),
        help="threads that decode images ahead of the model (default: a core each)")
    return parser


def rows(model, result):
    """The output rows of one image: one per label, or one with the error."""
    common = dict(image=result.path, model=model.checksum) | result.uids
    if result.error:
        return [common | dict(error=result.error)]
    above = model.predict_labels(result.probability)
    findings = zip(model.labels, result.probability, model.thresholds, above, model.calibration)
    return [common | dict(label=label, probability=float(p), threshold=t, positive=yes,
                          calibration=how) for label, p, t, yes, how in findings]


def writer(model, args, columns, file):
    """A function that writes one image's result in the form asked for."""
    if args.csv:
        table = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        if not args.resume or not file.tell():
            table.writeheader()
        return lambda result: table.writerows(rows(model, result))
    if args.wide:
        wide = csv.writer(file, lineterminator="\n")
        wide.writerow(["image_id", *model.labels])
        return lambda result: result.error or wide.writerow(
            [os.path.basename(result.path), *map(float, result.probability)])

    def write_json(result):
        lines, shared = rows(model, result), {"image", "model", *UIDS}
        entry = {key: lines[0][key] for key in columns if key in shared}
        found = [{key: line[key] for key in line if key not in shared} for line in lines]
        entry |= found[0] if result.error else dict(findings=found)
        print(json.dumps(entry), file=file)

    def write_table(result):
        print(result.path + (f"  error: {result.error}" if result.error else ""), file=file)
        for line in rows(model, result) if not result.error else []:
            answer = {True: "yes", False: "no", None: "-"}[line["positive"]]
            threshold = "   -  " if line["threshold"] is None else f"{line['threshold']:6.4f}"
            print(f"  {line['label']:<24} {line['probability']:6.4f}  threshold {threshold}"
                  f"  {answer}", file=file)

    return write_json if args.jsonl else write_table


def kept_rows(path, columns, checksum, labels):
    """Make a CSV of earlier predictions ready to be continued; gives the images that are done.

    Rows of images that failed, or that have not one for each label, are dropped: tried again.
    """
    if not os.path.isfile(path):
        return set()
    with open(path, **TEXT) as file:
        table = csv.DictReader(file)
        if (found := table.fieldnames or columns) != columns:
            raise ValueError(f"{path}: has the columns {', '.join(found)[:200]!r}; expected "
                             f"{', '.join(columns)}")
        rows = [row for row in table if None not in (*row, *row.values()) and not row["error"]]
    if others := {row["model"] for row in rows} - {checksum}:
        raise ValueError(f"{path}: holds predictions of another model ({min(others)[:12]}); "
                         f"expected {checksum[:12]}")
    count = Counter(row["image"] for row in rows)
    rows = [row for row in rows if count[row["image"]] % labels == 0]
    with atomic_write(path, "w") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return {row["image"] for row in rows}


def verify(model, paths):
    """Print the largest differences from the reference; gives the exit code."""
    code = 0
    for name, difference, tolerance in differences(model, paths):
        within = difference <= tolerance
        code = code if within else 1
        print(f"{name}: largest difference {difference:.2g}, allowed {tolerance:.2g}: "
              f"{'ok' if within else 'DIFFERS'}")
    return code


def predict(args):
    """Read the images; gives the exit code."""
    note = partial(print, file=sys.stderr)
    target = args.csv or args.wide or args.jsonl or "-"
    to_stdout = target in ("-", "/dev/stdout")  # the latter may be a file that others write to
    if args.explain and (args.card or args.verify):
        raise ValueError("--explain: not allowed with --card or --verify")
    if args.resume and args.csv in (None, "-"):
        raise ValueError("--resume: needs --csv FILE")
    check_whole(batch_size=args.batch_size, threads=args.threads, workers=args.workers)
    if target != "-":
        check_target(target)
    model = Predictor(args.model, args.provider, args.threads)
    if args.card:
        print(card(model.metadata), end="")
        return 0
    if args.verify:
        return verify(model, expand(args.images, args.separator) if args.images else [])
    paths = expand(args.images, args.separator)
    twice, count = Counter(map(os.path.basename, paths)).most_common(1)[0]
    if args.wide and count > 1:
        raise ValueError(f"--wide: two images are called {twice}, and a row is known by its name "
                         "alone; predict the folders one by one")
    if to_stdout and sys.stdout is None:
        raise ValueError("standard output is closed; --csv FILE or --jsonl FILE writes to a file")
    if args.explain:
        args.explain.mkdir(parents=True, exist_ok=True)
    columns = [name for name in COLUMNS if not (args.no_uids and name in UIDS)]
    if args.resume:
        done = kept_rows(target, columns, model.checksum, len(model.labels))
        left = [path for path in paths  # names need not be UTF-8
                if path.encode(errors="backslashreplace").decode() not in done]
        note(f"{len(paths) - len(left)} images are in {target} already")
        paths = left
    why = ""
    if args.provider == "auto" and model.provider == "cpu":
        why = f" (no CUDA: {model.cuda_problem.partition(';')[0]})"
    cost = f"; --explain takes {INFERENCES} inferences an image" if args.explain else ""
    note(f"{len(paths)} images on {model.provider}{why}{cost}")

    failed, taken, bare = 0, set(), 0
    opened = (nullcontext(sys.stdout) if to_stdout else open(target, "a", 1, **TEXT) if args.resume
              else atomic_write(target, "w"))
    results = predictions(model, paths, args.batch_size, args.workers, args.any_modality)
    shown = Progress("predict", len(paths)).over(results)
    with opened as file, closing(results), closing(shown):
        write = writer(model, args, columns, file)
        for result in shown:
            failed += result.error is not None
            write(result)
            if args.explain and not result.error:
                bare += not write_sheet(model, result, args.explain, taken, args.explain_all)
    if bare:
        note(f"{bare} images have no picture, since no label reaches its threshold; "
             "--explain-all draws all labels")
    if weak := weak_labels(model.metadata):
        note("worse than chance on validation (AUC below 0.5), so that neither the probability "
             f"nor the answer means anything: {', '.join(weak)}")
    if not (args.csv or args.wide or args.jsonl):
        note("threshold: from which probability on the answer is yes, chosen on validation; - "
             "where validation gave none. --card says more")
    if args.wide:
        note(f"next: python evaluate.py --predictions {target} --truth TRUTH.csv")
    if failed:
        note(f"{failed} of {len(paths)} images failed")
    return 1 if failed else 0


def main(argv=None):
    """The command line; returns the exit code."""
    return run_command(build_parser(), predict, argv)


if __name__ == "__main__":
    sys.exit(main())
