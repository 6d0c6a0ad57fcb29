"""From a run to one ONNX file, and from radiographs to probabilities without PyTorch.

Commands that know nothing of each other:

    to_onnx     run folder -> model.onnx, its card and its metadata   (PyTorch)
    predict     model.onnx, radiographs -> a table, CSV or JSON       (onnxruntime, NumPy, Pillow)
    page        model.onnx -> a static page that runs it in the browser
    triton      model.onnx -> a model repository for Triton Inference Server

What they stand on:

    metadata    what travels in the file, and its checksum
    runtime     `Predictor`: a model file for programs
    dicom       what a DICOM header says beside the pixels
    batch       find the files, decode them ahead of the model, predict them in batches
    verify      reference images and the probabilities that they must give
    card        the metadata as a Markdown page
    output      files that are written whole or not at all; exit codes

What one of them needs:

    graph       preprocessing and transformer as an ONNX graph
    quantize    int8 weights and activations
    precision   the check that a reduced precision has to pass
    calibrate   Platt scaling on the validation set
    explain     occlusion maps
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
