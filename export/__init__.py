"""From a run to one ONNX file, and from radiographs to probabilities without PyTorch.

Three commands that know nothing of each other: `to_onnx` (a run folder to model.onnx, with
PyTorch), `predict` (radiographs to a table, CSV or JSON) and `page` (the model in a browser). All
stand on `metadata` (what travels in the file) with `external_data`, `runtime` (`Predictor`),
`dicom`, `batch` (many files), `verify` (reference images) and `card`. `to_onnx` alone needs
`graph`, `quantize` (int8), `precision` (what int8 and fp16 lost) and `calibrate`; `predict` alone
`explain`.
"""

import os

# Before onnxruntime is imported anywhere: it would queue usage events in the user's cache folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
