"""The direction of the imports, from release and table to predictions, statistics and export."""

import ast
import graphlib

import pytest
from conftest import REPOSITORY

OURS = {"data", "models", "stats", "export", "train", "adopt", "evaluate",
        "pretrain_mimic", "probe"}

# Which of our packages each part may import; the first match counts.
ALLOWED = [
    ("data/__init__.py", {"data.settings", "data.corpus"}),  # the latter for its types
    ("data/settings.py", set()),
    ("data/limits.py", set()),
    ("data/raster.py", {"data.limits"}),
    ("data/dicom.py", {"data.limits"}),
    ("data/decode.py", {"data.limits", "data.raster", "data.dicom"}),
    ("data/preprocess.py", set()),
    ("data/labels.py", set()),
    ("data/views.py", set()),
    ("data/console.py", set()),
    ("data/ahead.py", set()),
    ("data/batches.py", {"data.ahead"}),
    ("data/files.py", set()),
    ("data/splits.py", {"data.files"}),
    ("data/tables.py", {"data.files", "data.splits"}),
    ("data/phantom/render.py", set()),
    ("data/phantom/studies.py", {"data.phantom.render"}),
    ("data/cache/__main__.py", {"data"}),
    ("data/cache/", {"data.cache", "data.decode", "data.dicom", "data.limits", "data.preprocess",
                     "data.files", "data.console"}),
    ("data/", {"data"}),
    ("models/vit.py", set()),
    ("models/", {"models", "data.files", "data.console"}),
    ("stats/", {"stats"}),
    ("export/runtime.py", {"data.decode", "data.preprocess", "export.dicom", "export.metadata"}),
    ("export/verify.py", {"data.decode"}),
    ("export/card.py", {"data.console"}),
    ("export/graph.py", set()),
    ("export/quantize.py", {"export.graph"}),
    ("export/dicom.py", {"data.dicom", "data.views"}),
    ("export/output.py", {"data.console", "data.files", "export.batch", "export.dicom",
                          "export.runtime"}),
    ("export/external_data.py", set()),
    ("export/metadata.py", {"data.labels", "export.external_data"}),
    ("export/batch.py", {"data.ahead", "data.dicom", "data.files", "export.dicom",
                         "export.runtime"}),
    ("export/explain.py", {"data.console", "data.files", "data.preprocess", "export.batch",
                           "export.runtime", "export.verify"}),
    ("export/precision.py", {"models", "stats", "data.console", "export.graph",
                             "export.quantize"}),
    ("export/calibrate.py", {"models", "stats", "data.console", "data.files", "export.metadata",
                             "export.verify"}),
    ("export/predict.py", {"data.console", "data.files", "export.batch", "export.card",
                           "export.dicom", "export.explain", "export.output", "export.runtime",
                           "export.verify"}),
    ("export/page/", {"data.console", "data.files", "data.limits", "data.views", "export.card",
                      "export.dicom", "export.runtime"}),
    # all but export.predict: a command imports no other command
    ("export/to_onnx.py", {"models", "data", "stats", "export.batch", "export.calibrate",
                           "export.card", "export.graph", "export.metadata",
                           "export.precision", "export.quantize", "export.runtime",
                           "export.verify"}),
    ("export/", set()),
    ("train.py", {"models", "data", "stats"}),
    ("probe.py", {"models", "data", "stats"}),
    ("adopt.py", {"models", "data", "stats"}),
    ("evaluate.py", {"models", "data", "stats"}),
    ("pretrain_mimic.py", {"train", "models", "data"}),
]
NEVER_TORCH = (
    "stats/", "models/init_catalog.py",
    "data/__init__.py", "data/settings.py", "data/limits.py", "data/raster.py", "data/dicom.py",
    "data/decode.py", "data/preprocess.py", "data/labels.py", "data/cache/",
    "data/phantom/render.py", "data/files.py", "data/tables.py", "data/splits.py",
    "data/console.py", "data/ahead.py",
    "export/runtime.py", "export/predict.py", "export/explain.py", "export/batch.py",
    "export/dicom.py", "export/metadata.py", "export/external_data.py", "export/quantize.py",
    "export/page/", "export/card.py",
    "export/verify.py", "export/graph.py", "evaluate.py")
FILES = sorted(
    str(path.relative_to(REPOSITORY))
    for path in [*REPOSITORY.glob("*.py"), *(
        path for folder in ("data", "models", "stats", "export")
        for path in (REPOSITORY / folder).rglob("*.py"))])


def imports(file):
    for node in ast.walk(ast.parse((REPOSITORY / file).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield node.module


@pytest.mark.parametrize("file", FILES)
def test_imports_run_one_way(file):
    allowed = next(allowed for prefix, allowed in ALLOWED if file.startswith(prefix))
    for module in imports(file):
        if module.split(".")[0] in OURS:
            assert any(module == name or module.startswith(name + ".") for name in allowed), (
                f"{file} imports {module}")
        if file.startswith(NEVER_TORCH):
            assert module.split(".")[0] not in ("torch", "torchvision"), f"{file} imports {module}"


def test_the_program_needs_only_its_requirements():
    """Third-party imports outside the tests are those of the two requirements files."""
    listed = {"torch", "numpy", "PIL", "onnx", "onnxruntime", "matplotlib", "pydicom",
              "safetensors", "tqdm"}
    standard = __import__("sys").stdlib_module_names
    for file in FILES:
        for module in imports(file):
            top = module.split(".")[0]
            assert top in listed | OURS or top in standard, f"{file} imports {module}"


def test_no_import_circles():
    """Among files, and through the packages that one runs on its way into another."""
    modules = {file.removesuffix(".py").removesuffix("/__init__").replace("/", "."): file
               for file in FILES}
    graph = {}
    for module, file in modules.items():
        used = set(imports(file)) & set(modules)
        packages = {".".join(name.split(".")[:n]) for name in used for n in (1, 2)}
        own = {module, *(".".join(module.split(".")[:n]) for n in (1, 2))}
        graph[module] = (used | packages & set(modules) - own) - {module}
    graphlib.TopologicalSorter(graph).prepare()  # raises a CycleError that names the circle
