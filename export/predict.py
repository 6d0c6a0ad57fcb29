"""Read radiographs with an exported model: onnxruntime, NumPy and Pillow, no PyTorch.

    python -m export.predict model.onnx a.png b.dcm FOLDER            # a table
    python -m export.predict model.onnx FOLDER --csv out.csv          # or --jsonl out.jsonl
    find /archive -name '*.dcm' | python -m export.predict model.onnx - --csv out.csv --resume
    python -m export.predict model.onnx FOLDER --wide wide.csv        # for evaluate.py
    python -m export.predict model.onnx --card                        # what the model is
    python -m export.predict model.onnx --verify                      # does it compute as exported?

Exit code 0; 1 if an image could not be read or predicted (its row says why), or if --verify found a
difference; 4 if images were left out as no frontal radiographs and nothing else failed; 2 for
misuse; 130 after Ctrl-C and 143 after SIGTERM, with no file left half written.
Research software; not a medical device.
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

if not __package__:
    print("error: start it as python -m export.predict, in the repository's folder",
          file=sys.stderr)
    sys.exit(2)

from data.console import (
    Progress,
    check_whole,
    command,
    plural,
    require_packages,
    run_command,
)

if __name__ == "__main__":
    require_packages("numpy", "PIL", "onnxruntime")

from data.files import TEXT, atomic_write, check_target
from export.batch import SUFFIXES, expand, predictions
from export.card import card, weak_labels
from export.dicom import UIDS
from export.explain import INFERENCES, write_sheet
from export.output import (
    COLUMNS,
    Writer,
    csv_writer,
    held,
    json_writer,
    kept_rows,
    safe_cell,
    table_writer,
    wide_writer,
)
from export.runtime import Predictor
from export.verify import differences

FAILED, NOT_FRONTAL = 1, 4  # exit codes


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command("export.predict", __doc__)
    add, form = parser.add_argument, parser.add_mutually_exclusive_group().add_argument
    add("model", help="The file that export.to_onnx wrote.")
    add("images", nargs="*", help="PNG, JPEG, DICOM, folders, or - for a list on stdin.")
    form("--csv", metavar="FILE", help="Writes CSV, a row per image and label (- for stdout).")
    form("--wide", metavar="FILE", help="Writes CSV, a row per image, known by its file's name, "
         "and a column per label, as evaluate.py --predictions reads; leaves out failed images.")
    form("--jsonl", metavar="FILE", help="Writes JSON lines, one per image (- for stdout).")
    form("--card", action="store_true", help="Prints the model card and stops.")
    form("--verify", action="store_true", help="Compares the probabilities of the reference images "
         "with those of the export and stops; reference radiographs among IMAGES are recognized "
         "by their hash.")
    add("--resume", action="store_true", help="With --csv: writes rows as they come, and on a "
        "rerun skips the images that FILE has; those that failed are tried again.")
    add("-0", dest="separator", action="store_const", const="\0", default="\n",
        help="The list on stdin is separated by NUL, as of find -print0.")
    add("--no-uids", action="store_true",
        help="Leaves out DICOM's instance, study and series UIDs.")
    add("--any-modality", action="store_true",
        help="Takes DICOM files that say that they are no frontal chest radiographs.")
    add("--explain", metavar="DIR", type=Path, help="Also writes a picture per image of where the "
        "model looked, for the labels above their threshold; it takes "
        f"{INFERENCES} inferences per image.")
    add("--explain-all", action="store_true", help="With --explain: draws all labels.")
    add("--provider", default="auto", choices=["auto", "cuda", "cpu"],
        help="cuda fails where onnxruntime would run on the CPU. Default: auto.")
    add("--batch-size", type=int, default=8, help="Images per inference. Default: 8.")
    add("--threads", type=int, help="CPU threads of one inference. Default: all cores.")
    add("--workers", type=int, default=os.cpu_count(),
        help="Threads that decode images ahead of the model. Default: one per core.")
    return parser


def predict(args: argparse.Namespace) -> int:
    """Read the images; gives the exit code."""
    target = args.csv or args.wide or args.jsonl or "-"
    check_options(args, target)
    model = Predictor(args.model, args.provider, args.threads)
    if args.card:
        print(card(model.metadata), end="")
        return 0
    if args.verify:
        return verify(model, expand(args.images, args.separator) if args.images else [])
    paths = expand(args.images, args.separator)
    check_not_overwritten(target, [args.model, *paths])
    if args.wide:
        check_names_are_distinct(paths)
    if args.explain:
        args.explain.mkdir(parents=True, exist_ok=True)
    columns = [name for name in COLUMNS if not (args.no_uids and name in UIDS)]

    with ExitStack() as stack:
        if args.resume:
            stack.enter_context(held(target))
            done = kept_rows(target, columns, model)
            paths_left = [path for path in paths if encoded(safe_cell(path)) not in done]
            note(f"{target} has {plural(len(paths) - len(paths_left), 'image')} already")
            paths = paths_left
        note(opening_line(model, args, len(paths)))
        file = stack.enter_context(open_output(target, append=args.resume))
        counts = write_predictions(model, paths, args, choose_writer(model, args, columns, file))
    say_at_the_end(model, args, target, counts)
    return counts.exit_code


@dataclass
class Counts:
    """What became of the images."""

    images: int = 0
    without_picture: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # by kind

    @property
    def exit_code(self) -> int:
        """The exit code; a failed image counts for more than one left out on purpose."""
        if not self.errors:
            return 0
        return NOT_FRONTAL if set(self.errors) == {"not frontal"} else FAILED


def note(text: str) -> None:
    """Print a line on stderr, where it mixes with no output."""
    print(text, file=sys.stderr)


def encoded(text: str) -> str:
    """A text as a file of `data.files.TEXT` gives it back: names need not be UTF-8."""
    return text.encode(errors="backslashreplace").decode()


def check_options(args: argparse.Namespace, target: str) -> None:
    """Raise ValueError for options that do not fit each other, before the model is read."""
    if args.explain and (args.card or args.verify):
        raise ValueError("--explain: not allowed with --card or --verify")
    if args.resume and args.csv in (None, "-"):
        raise ValueError("--resume: needs --csv FILE")
    check_whole(batch_size=args.batch_size, threads=args.threads, workers=args.workers)
    if target != "-":
        check_target(target)
    elif sys.stdout is None and not (args.card or args.verify):
        raise ValueError("standard output is closed; --csv FILE or --jsonl FILE writes to a file")


def check_not_overwritten(target: str, inputs: Sequence[str]) -> None:
    """Raise ValueError where the output would take the place of an image or a model."""
    if target == "-" or not os.path.isfile(target):
        return
    suffix = Path(target).suffix.lower()
    is_input = any(os.path.exists(path) and os.path.samefile(path, target) for path in inputs)
    if is_input or suffix in (*SUFFIXES, ".onnx", ".pt"):
        raise ValueError(f"{target}: is an image or a model, and would be overwritten; name "
                         "another file")


def check_names_are_distinct(paths: Sequence[str]) -> None:
    """Raise ValueError where two images would have one row in --wide."""
    name, count = Counter(map(os.path.basename, paths)).most_common(1)[0]
    if count > 1:
        raise ValueError(f"--wide: two images are called {name}, and a row is known by its name "
                         "alone; predict the folders one by one")


def opening_line(model: Predictor, args: argparse.Namespace, n_images: int) -> str:
    """The line that is printed before the first image."""
    line = f"{plural(n_images, 'image')} on {model.provider}"
    if args.provider == "auto" and model.provider == "cpu":
        problem = model.cuda_problem or ""
        line += f" (no CUDA: {problem.partition(';')[0]})"
    if args.explain:
        line += f"; --explain takes {INFERENCES} inferences per image"
    return line


def open_output(target: str, *, append: bool) -> AbstractContextManager[IO[str]]:
    """Where the predictions go: a new file, one that is added to, or standard output."""
    if target in ("-", "/dev/stdout"):  # the latter may be a file that others write to
        return nullcontext(sys.stdout)
    if append:
        return open(target, "a", 1, **TEXT)
    return atomic_write(target, "w")


def choose_writer(model: Predictor, args: argparse.Namespace, columns: Sequence[str],
                  file: IO[str]) -> Writer:
    """What writes one image's result in the form that was asked for."""
    if args.csv:
        is_new = not args.resume or not file.tell()
        return csv_writer(model, columns, file, with_header=is_new)
    if args.wide:
        return wide_writer(model, file)
    if args.jsonl:
        return json_writer(model, columns, file)
    return table_writer(model, file)


def write_predictions(model: Predictor, paths: Sequence[str], args: argparse.Namespace,
                      write: Writer) -> Counts:
    """Predict, write and draw image by image."""
    counts = Counts(images=len(paths))
    names_taken: set[str] = set()
    results = predictions(model, paths, args.batch_size, args.workers, args.any_modality)
    shown = Progress("predict", len(paths)).over(results)
    with closing(results), closing(shown):
        for result in shown:
            write(result)
            if result.error_kind:
                counts.errors[result.error_kind] += 1
            elif args.explain and not write_sheet(
                    model, result, args.explain, names_taken, args.explain_all):
                counts.without_picture += 1
    return counts


def say_at_the_end(model: Predictor, args: argparse.Namespace, target: str,
                   counts: Counts) -> None:
    """What a reader of the output has to know."""
    if counts.without_picture:
        note(f"without a picture: {plural(counts.without_picture, 'image')}, since no label "
             "reaches its threshold; --explain-all draws all labels")
    weak = weak_labels(model.metadata)
    if weak:
        note("worse than chance on validation (AUC below 0.5), so that neither the probability "
             f"nor the answer means anything: {', '.join(weak)}")
    if not (args.csv or args.wide or args.jsonl):
        note("threshold: from which probability on the answer is yes, chosen on validation; - "
             "where validation gave none. --card says more")
    if args.wide:
        note(f"next: python evaluate.py --predictions {target} --truth TRUTH.csv")
    left_out = counts.errors["not frontal"]
    failed = counts.errors.total() - left_out
    if left_out:
        note(f"{left_out} of {counts.images} images were left out: no frontal radiographs")
    if failed:
        note(f"{failed} of {counts.images} images failed")


def verify(model: Predictor, paths: Sequence[str]) -> int:
    """Print the largest differences from the reference; gives the exit code."""
    code = 0
    for name, difference, tolerance in differences(model, paths):
        verdict = "ok"
        if difference > tolerance:
            verdict, code = "DIFFERS", FAILED
        print(f"{name}: largest difference {difference:.2g}, allowed {tolerance:.2g}: {verdict}")
    return code


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(build_parser(), predict, argv)


if __name__ == "__main__":
    sys.exit(main())
