"""From a run to one ONNX file, and from radiographs to probabilities without PyTorch.

Four commands that know nothing of each other: `to_onnx` (a run folder to model.onnx, with PyTorch),
`predict` (radiographs to a table, CSV or JSON), `page` (the model in a browser) and `triton` (on a
server). All stand on `metadata` (what travels in the file), `runtime` (`Predictor`), `dicom`,
`batch` (many files), `verify` (reference images) and `card`. `to_onnx` alone needs `graph`,
`quantize` (int8), `precision` (what int8 and fp16 lost) and `calibrate`; `predict` alone `explain`.
"""
