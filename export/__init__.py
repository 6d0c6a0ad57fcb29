"""From a run to one ONNX file, and from radiographs to probabilities without PyTorch.

Four commands that know nothing of each other: `to_onnx` (a run folder to model.onnx, with PyTorch),
`predict` (radiographs to a table, CSV or JSON), `page` (the model in a browser) and `triton` (on a
server). All stand on `metadata` (what travels in the file, and its checksum), `runtime`
(`Predictor`, for programs), `dicom` (what a header says beside the pixels), `batch` (many files),
`verify` (reference images), `card` (the metadata as a page) and `output` (files whole or not at
all; exit codes). `to_onnx` alone needs `graph` (preprocessing and transformer, node by node),
`quantize` (int8), `precision` (the check of int8 and fp16) and `calibrate` (Platt scaling);
`predict` alone `explain` (occlusion maps).
"""

import sys
from importlib.util import find_spec

if sys.argv[:1] == ["-m"]:  # a command is about to start: what it lacks is said in one line
    _needed = ["numpy", "PIL", "onnxruntime"]
    if "export.to_onnx" in sys.orig_argv:
        _needed += ["onnx", "torch"]
    _absent = [name.replace("PIL", "pillow") for name in _needed if find_spec(name) is None]
    if _absent:
        print(f"error: not installed: {', '.join(_absent)}; pip install -r requirements.txt",
              file=sys.stderr)
        sys.exit(2)
