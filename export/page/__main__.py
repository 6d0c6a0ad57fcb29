"""Write a static page that runs a model in the browser: nothing leaves the machine.

    python -m export.page runs/cxr14-dinov2/model-int8.onnx --out page
    python -m http.server --directory page                     # http://localhost:8000

onnxruntime-web and dicom-parser come from a pinned CDN, or with --libraries from a node_modules
folder (npm install onnxruntime-web@1.30.0 dicom-parser@1.8.21), so that the page needs no network;
either way the browser checks their hashes.
"""

import base64
import hashlib
import json
import sys
from pathlib import Path

from data.console import command, require_packages, run_command

if __name__ == "__main__":
    require_packages("numpy", "PIL", "onnxruntime")

from data.files import atomic_write
from export.runtime import Predictor

HERE = Path(__file__).parent
CDN = "https://cdn.jsdelivr.net/npm/"
LIBRARIES = {  # package, version, file, hash
    "ort": ("onnxruntime-web", "1.30.0", "dist/ort.wasm.bundle.min.mjs",
            "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"),
    "wasm": ("onnxruntime-web", "1.30.0", "dist/ort-wasm-simd-threaded.wasm",
             "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"),
    "dicom": ("dicom-parser", "1.8.21", "dist/dicomParser.min.js",
              "sha384-Z8ua3fbU1i9fPqw0gGLF0aw6yqnTK3GO6R9CFvnlvXB0x0AIFi6JqYvQ6v+s9kuw"),
}


def build_parser():
    """The command line."""
    parser = command("export.page", __doc__)
    parser.add_argument("model", type=Path, help="file written by export.to_onnx; int8 is the "
                        "smallest and fastest")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--libraries", type=Path, metavar="NODE_MODULES",
                        help="take the two libraries from here (default: from a CDN)")
    return parser


def write_page(args):
    """Write the folder; gives the exit code."""
    model = Predictor(args.model, "cpu")
    libraries = {}
    files = {"model.onnx": args.model.read_bytes(),
             "model.json": json.dumps(model.metadata | dict(file_sha256=model.checksum)).encode()}
    for name, (package, version, file, integrity) in LIBRARIES.items():
        url = f"{CDN}{package}@{version}/{file}"
        if args.libraries:
            path, url = args.libraries / package / file, Path(file).name
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file; npm install {package}@{version}")
            files[url] = path.read_bytes()
            digest = base64.b64encode(hashlib.sha384(files[url]).digest()).decode()
            if integrity != f"sha384-{digest}":
                raise ValueError(f"{path}: is not that of {package} {version}; npm install "
                                 f"{package}@{version}")
        libraries[name] = dict(url=url, integrity=integrity)
    files["page.json"] = json.dumps(dict(libraries=libraries, model="model.onnx")).encode()
    for name in ("page.css", "page.js", "index.html"):
        content = (HERE / name).read_text(encoding="utf-8")
        files[name] = content.replace("LIBRARIES", "" if args.libraries else CDN).encode()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        with atomic_write(args.out / name) as file:
            file.write(content)
    size = sum(map(len, files.values())) / 1e6
    print(f"{args.out}: {size:.0f} MB; serve it: python -m http.server --directory {args.out}")
    return 0


def main(argv=None):
    """The command line; returns the exit code."""
    return run_command(build_parser(), write_page, argv)


if __name__ == "__main__":
    sys.exit(main())
