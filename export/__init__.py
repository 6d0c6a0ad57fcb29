"""From a run to one ONNX file, and from radiographs to probabilities without PyTorch.

Four commands that know nothing of each other: `to_onnx` (a run folder to model.onnx, with PyTorch),
`predict` (radiographs to a table, CSV or JSON), `page` (the model in a browser) and `triton` (on a
server). All stand on `metadata` (what travels in the file), `runtime` (`Predictor`), `dicom`,
`batch` (many files), `verify` (reference images) and `card`. `to_onnx` alone needs `graph`,
`quantize` (int8), `precision` (what int8 and fp16 lost) and `calibrate`; `predict` alone `explain`.
"""

import sys
from importlib.util import find_spec

if sys.argv[:1] == ["-m"]:  # a command is about to start: what it lacks is said in one line
    _needed = ["numpy", "PIL", "onnxruntime"]
    _needed += ["onnx", "torch"] * ("export.to_onnx" in sys.orig_argv)
    _absent = [name.replace("PIL", "pillow") for name in _needed if find_spec(name) is None]
    if _absent:
        print(f"error: not installed: {', '.join(_absent)}; pip install -r requirements.txt",
              file=sys.stderr)
        sys.exit(2)
