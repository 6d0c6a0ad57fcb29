"""Write a static page that runs a model in the browser: nothing leaves the machine.

    python -m export.page runs/cxr14-dinov2/model-int8.onnx --out page
    python -m http.server --directory page                     # http://localhost:8000

onnxruntime-web and dicom-parser come from a pinned CDN, or with --libraries from a node_modules
folder (npm install onnxruntime-web@1.30.0 dicom-parser@1.8.21), so that the page needs no network;
either way the browser checks their hashes.
"""

import argparse
import base64
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.console import command, require_packages, run_command

if __name__ == "__main__":
    require_packages("numpy", "PIL", "onnxruntime")

from data.files import atomic_write
from data.limits import MAX_BYTES, MAX_PIXELS
from data.views import (
    CHEST_WORDS,
    FRONTAL_WORDS,
    OTHER_PARTS,
    OTHER_WORDS,
    WORD_SEPARATORS,
)
from export.card import CALIBRATIONS, describe_model, weak_labels
from export.dicom import RADIOGRAPHY
from export.runtime import MIN_SIDE, Predictor

HERE = Path(__file__).parent
CDN = "https://cdn.jsdelivr.net/npm/"
OWN_FILES = ("index.html", "page.css", "page.js", "decode.js", "raster.js", "dicom.js",
             "elements.js", "frontal.js", "preprocess.js")


@dataclass(frozen=True)
class Library:
    """A pinned file of a package of npm."""

    package: str
    version: str
    file: str
    integrity: str

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"npm install {self.package}@{self.version}"


LIBRARIES = {
    "ort": Library(
        "onnxruntime-web", "1.30.0", "dist/ort.wasm.bundle.min.mjs",
        "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"),
    "wasm": Library(
        "onnxruntime-web", "1.30.0", "dist/ort-wasm-simd-threaded.wasm",
        "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"),
    "dicom": Library(
        "dicom-parser", "1.8.21", "dist/dicomParser.min.js",
        "sha384-Z8ua3fbU1i9fPqw0gGLF0aw6yqnTK3GO6R9CFvnlvXB0x0AIFi6JqYvQ6v+s9kuw"),
}


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = command("export.page", __doc__)
    parser.add_argument("model", type=Path, help="The file that export.to_onnx wrote; int8 is the "
                        "smallest and fastest.")
    parser.add_argument("--out", type=Path, required=True, help="The folder to write.")
    parser.add_argument("--libraries", type=Path, metavar="NODE_MODULES",
                        help="Takes the two libraries from here. Default: from a CDN.")
    return parser


def integrity_of(content: bytes, algorithm: str = "sha384") -> str:
    """A hash as browsers check it: Subresource Integrity."""
    digest = hashlib.new(algorithm, content).digest()
    return f"{algorithm}-{base64.b64encode(digest).decode()}"


def read_library(library: Library, node_modules: Path) -> bytes:
    """A library's file; an error where it is absent or not what was pinned."""
    path = node_modules / library.package / library.file
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {library.install}")
    content = path.read_bytes()
    if integrity_of(content) != library.integrity:
        raise ValueError(f"{path}: is not that of {library.package} {library.version}; "
                         f"{library.install}")
    return content


def refusal_rules() -> dict[str, object]:
    """What `export.predict` goes by when it refuses an image, for decode.js and what it imports."""
    lists = dict(frontalWords=FRONTAL_WORDS, otherWords=OTHER_WORDS,
                 chestWords=CHEST_WORDS, otherParts=OTHER_PARTS,
                 separators=WORD_SEPARATORS)
    return dict(views=lists, modalities=RADIOGRAPHY, minSide=MIN_SIDE, maxPixels=MAX_PIXELS,
                maxBytes=MAX_BYTES)


def about_model(metadata: dict[str, Any], checksum: str) -> dict[str, object]:
    """What the page says of a model beside its numbers."""
    cautions = [
        metadata["intended_use"],
        f"The model was trained on {metadata['corpus']}. Other devices, patients and labels can "
        "change everything, and nothing on this page shows it.",
        "An image is left out if its DICOM tags name another view or part of the body. PNG and "
        "JPEG have no tags: nothing checks that they are frontal chest radiographs."]
    return dict(title=f"{metadata['corpus']}-{metadata['init']}", cautions=cautions,
                numbers=about_numbers(metadata), weak=weak_labels(metadata),
                model={**describe_model(metadata), "file, sha256": checksum})


def about_numbers(metadata: dict[str, Any]) -> list[str]:
    """Where thresholds and probabilities come from, in sentences that name the labels."""
    sentences = [f"Thresholds: {metadata['thresholds_from']}."]
    without = []
    for label, threshold in zip(metadata["labels"], metadata["thresholds"]):
        if threshold is None:
            without.append(label)
    if without and len(without) < len(metadata["labels"]):
        sentences.append(f"Without a threshold, and so never called: {', '.join(without)}.")

    by_method: dict[str, list[str]] = {}
    for label, calibration in zip(metadata["labels"], metadata["calibration"]):
        by_method.setdefault(calibration["method"], []).append(label)
    as_trained = by_method.pop("none", [])
    for method, labels in by_method.items():
        sentences.append("Calibrated to the frequencies of the training corpus, not of your "
                         f"hospital ({CALIBRATIONS[method]}): {', '.join(labels)}.")
    if as_trained:
        which = ", ".join(as_trained) if by_method else "all findings"
        sentences.append(f"Not calibrated: {which}. Such a probability is usually too high to be "
                         "read as a frequency; compare it with its threshold alone.")
    weak = weak_labels(metadata)
    if weak:
        sentences.append("Worse than chance on validation, so that neither probability nor result "
                         f"means anything: {', '.join(weak)}.")
    return sentences


def page_files(model: Path, node_modules: Path | None) -> dict[str, bytes]:
    """The content of each file of the page.

    page.json has the hash of the model and of its description, so that the browser refuses one
    that was exchanged without the other.
    """
    predictor = Predictor(model, "cpu")
    metadata = predictor.metadata | dict(file_sha256=predictor.checksum)
    files = {"model.onnx": model.read_bytes(), "model.json": json.dumps(metadata).encode()}
    pair = {"model": "model.onnx", "metadata": "model.json"}
    about = about_model(predictor.metadata, predictor.checksum)
    page: dict[str, object] = dict(rules=refusal_rules(), about=about)
    for key, name in pair.items():
        page[key] = dict(url=name, integrity=integrity_of(files[name], "sha256"))

    libraries = {}
    for key, library in LIBRARIES.items():
        url = f"{CDN}{library.package}@{library.version}/{library.file}"
        if node_modules:
            url = Path(library.file).name
            files[url] = read_library(library, node_modules)
        libraries[key] = dict(url=url, integrity=library.integrity)
    page["libraries"] = libraries
    files["page.json"] = json.dumps(page).encode()

    allowed_host = "" if node_modules else CDN
    for name in OWN_FILES:
        content = (HERE / name).read_text(encoding="utf-8")
        files[name] = content.replace("LIBRARIES", allowed_host).encode()
    return files


def write_page(args: argparse.Namespace) -> int:
    """Write the folder; gives the exit code."""
    files = page_files(args.model, args.libraries)
    args.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_write(args.out / name) as file:
            file.write(content)
    megabytes = sum(len(content) for content in files.values()) / 1e6
    print(f"{args.out}: {megabytes:.0f} MB; serve it: python -m http.server --directory {args.out}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run_command(build_parser(), write_page, argv)


if __name__ == "__main__":
    sys.exit(main())
