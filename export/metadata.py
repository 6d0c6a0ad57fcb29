"""What travels in a model's file: its metadata and the checksum of its bytes.

It finds damage, not intent: who edits a file can write a new checksum into it.
"""

import hashlib
import json
import math
import os
import reprlib
from pathlib import Path
from typing import Any

from data.labels import check_label_names
from export.external_data import external_tensor

FORMAT = "radiograph-to-probability/2"
CHECKSUM = "file_sha256"
# text as it is, all else as JSON
TEXT_FIELDS = ("format", "intended_use", "corpus", "init", "architecture", "cohort", "label_set",
               "thresholds_from", "precision", "checkpoint_sha256")
JSON_FIELDS = ("labels", "thresholds", "calibration", "image_size", "synthetic", "versions",
               "val_auroc", "test_auroc", "precision_check", "reference")
INPUT_TYPE = "tensor(float)"  # onnxruntime's word for float32
UNCALIBRATED = dict(method="none", slope=1.0, offset=0.0)
CALIBRATION_METHODS = ("platt", "prior", "none")
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 16, 4096  # pixels a side of what a model may take


def encode_metadata(metadata):
    """Metadata as an ONNX file holds it, with zeros in the place of the checksum."""
    return {key: value if key in TEXT_FIELDS else json.dumps(value)
            for key, value in metadata.items()} | {CHECKSUM: "0" * 64}


def serialize(proto, metadata):
    """The bytes of an `onnx.ModelProto` with these metadata and its checksum."""
    del proto.metadata_props[:]
    for key, value in encode_metadata(metadata).items():
        proto.metadata_props.add(key=key, value=value)
    return add_checksum(proto.SerializeToString())


def add_checksum(content):
    """A serialized model with its own sha256 in its metadata, computed with zeros in that place."""
    place = checksum_place(content)
    return content[:place.start] + _digest(content, place) + content[place.stop:]


def read_verified(model: str | os.PathLike | bytes, name: str | os.PathLike) -> bytes:
    """The bytes of a model, a file or bytes, if they fit its checksum; before any parser.

    ValueError for bytes that do not, and for a model with weights in other files, which the
    checksum does not cover.
    """
    if not isinstance(model, bytes) and os.path.isdir(model):
        raise ValueError(f"{name}: is a folder; give its model.onnx")
    if not isinstance(model, bytes) and not os.path.isfile(model):
        raise FileNotFoundError(f"{name}: no such file")
    content = model if isinstance(model, bytes) else Path(model).read_bytes()
    place = checksum_place(content)
    if place is None:
        raise ValueError(f"{name}: not a model of this project, or cut short (no {CHECKSUM})")
    if content[place] != _digest(content, place):
        raise ValueError(f"{name}: was damaged or changed since its export (its bytes do not fit "
                         f"its {CHECKSUM}); copy or export it again")
    try:
        external = external_tensor(content)
    except ValueError as error:
        raise ValueError(f"{name}: is not an ONNX file ({error})") from None
    if external is not None:
        raise ValueError(f"{name}: its weight {external!r} lies in another file, which its "
                         f"{CHECKSUM} does not cover; export it again, as one file")
    return content


def checksum_place(content):
    """Where the checksum lies: behind the field's name, protobuf has a tag and a length."""
    start = content.rfind(CHECKSUM.encode())
    return None if start < 0 else slice(start + len(CHECKSUM) + 2, start + len(CHECKSUM) + 66)


def _digest(content, place):
    """The sha256, in hex, of a serialized model with zeros in the place of the checksum."""
    found, view = hashlib.sha256(), memoryview(content)
    for part in (view[:place.start], b"0" * 64, view[place.stop:]):
        found.update(part)
    return found.hexdigest().encode()


def decode_metadata(name: str | os.PathLike, session: Any) -> dict[str, Any]:
    """The metadata of a model's session; ValueError names the field that is missing or wrong."""
    try:
        stored = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: its metadata are not text ({error})") from None
    if stored.get("format") != FORMAT:
        raise ValueError(f"{name}: not a model of this project, or one of its earlier days (format "
                         f"{stored.get('format')!r}, expected {FORMAT}; export it again)")
    absent = [field for field in (*TEXT_FIELDS, *JSON_FIELDS, CHECKSUM) if field not in stored]
    if absent:
        raise ValueError(f"{name}: its metadata lack {', '.join(absent)}; export it again")
    metadata = {field: stored[field] for field in (*TEXT_FIELDS, CHECKSUM)}
    for field in JSON_FIELDS:
        try:
            metadata[field] = json.loads(stored[field])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name}: its metadata are not JSON ({field}: {error})") from None
    try:
        check_metadata(metadata)
        _check_graph(session, metadata)
    except ValueError as error:
        raise ValueError(f"{name}: its metadata do not fit the graph ({error})") from None
    return metadata


def _check_graph(session: Any, metadata: dict[str, Any]) -> None:
    """Raise ValueError unless a session's input and output are what its metadata say."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or not outputs[0].shape:
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs; expected one of each")
    if inputs[0].type != INPUT_TYPE:
        raise ValueError(f"it takes {inputs[0].type}, expected {INPUT_TYPE}")
    count = len(metadata["labels"])
    if outputs[0].shape[-1] != count:
        raise ValueError(f"{count} labels: the graph has {outputs[0].shape[-1]} outputs")


def check_metadata(metadata: dict[str, Any]) -> None:
    """Raise ValueError for a field that is not what its readers expect, with what they expect."""
    for field in TEXT_FIELDS:
        _expect(metadata, field, _is_text(metadata[field]), "printable text")
    size = metadata["image_size"]
    _expect(metadata, "image_size", _is_whole(size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE),
            f"a whole number from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}")
    _expect(metadata, "synthetic", isinstance(metadata["synthetic"], bool), "true or false")
    versions = metadata["versions"]
    is_map = isinstance(versions, dict) and all(map(_is_text, [*versions, *versions.values()]))
    _expect(metadata, "versions", is_map, "names and versions")

    labels = metadata["labels"]
    _expect(metadata, "labels", isinstance(labels, list) and len(labels) > 0, "a list of names")
    check_label_names(labels)
    count = len(labels)
    shares = f"for each of {count} labels a number from 0 to 1, or null"
    _expect(metadata, "thresholds", _are_shares(metadata["thresholds"], count), shares)
    if metadata["val_auroc"] is not None:
        _expect(metadata, "val_auroc", _are_shares(metadata["val_auroc"], count), shares)
    calibration = metadata["calibration"]
    is_list = isinstance(calibration, list) and len(calibration) == count
    _expect(metadata, "calibration", is_list and all(map(_is_calibration, calibration)),
            f"for each of {count} labels a method, a slope above 0 and an offset")
    _check_test_auroc(metadata, count)
    _check_precision_check(metadata)
    _check_reference(metadata, count)


def _check_test_auroc(metadata: dict[str, Any], count: int) -> None:
    """Raise ValueError unless the AUCs on the test set are absent, or whole."""
    test = metadata["test_auroc"]
    if test is None:
        return
    expected = f"images, method, and for each of {count} labels an AUC and its interval, or null"
    is_whole = (isinstance(test, dict) and _is_whole(test.get("images"), 0)
                and _is_text(test.get("method")) and isinstance(test.get("labels"), list)
                and len(test["labels"]) == count
                and all(_are_shares(row, 3) for row in test["labels"]))
    _expect(metadata, "test_auroc", is_whole, expected)


def _check_precision_check(metadata: dict[str, Any]) -> None:
    """Raise ValueError unless the check of a reduced precision is absent, or whole."""
    check = metadata["precision_check"]
    if check is None:
        return
    is_whole = (isinstance(check, dict)
                and all(_is_whole(check.get(key), 0)
                        for key in ("images", "decisions", "changed_decisions"))
                and all(_is_number(check.get(key), -1, 1)
                        for key in ("largest_auroc_loss", "mean_auroc_loss", "largest_change"))
                and all(_is_text(check.get(key)) for key in ("device", "split"))
                and all(isinstance(names, list) and all(map(_is_text, names))
                        for names in (check.get("unchecked"), check.get("not_excluded", []))))
    _expect(metadata, "precision_check", is_whole, "what export.precision.check_precision gives")


def _check_reference(metadata: dict[str, Any], count: int) -> None:
    """Raise ValueError unless the reference probabilities are whole."""
    reference = metadata["reference"]
    expected = f"tolerance, patterns and radiographs with {count} probabilities each"
    _expect(metadata, "reference", isinstance(reference, dict), expected)
    tolerance, patterns = reference.get("tolerance"), reference.get("patterns")
    radiographs = reference.get("radiographs")
    if isinstance(tolerance, list):
        is_tolerance = len(tolerance) == count and all(_is_number(x, 0) for x in tolerance)
    else:
        is_tolerance = _is_number(tolerance, 0)
    _expect(metadata, "reference", is_tolerance, expected)
    _expect(metadata, "reference", isinstance(patterns, list), expected)
    _expect(metadata, "reference", isinstance(radiographs, dict), expected)
    for probabilities in (*patterns, *radiographs.values()):
        is_whole = _are_shares(probabilities, count) and None not in probabilities
        _expect(metadata, "reference", is_whole, expected)


def _expect(metadata: dict[str, Any], field: str, is_right: bool, expected: str) -> None:
    """Raise ValueError with a field and its value unless that is right."""
    if not is_right:
        raise ValueError(f"{field} {reprlib.repr(metadata[field])}: expected {expected}")


def _is_text(value: object) -> bool:
    """Whether a value is text without control characters."""
    return isinstance(value, str) and value.isprintable()


def _is_whole(value: object, low: int, high: float = math.inf) -> bool:
    """Whether a value is a whole number in a range; JSON's true is none, though Python's is."""
    return type(value) is int and low <= value <= high


def _is_number(value: object, low: float, high: float = 1e6) -> bool:
    """Whether a value is a number in a range; NaN and JSON's true are none."""
    return type(value) in (int, float) and low <= value <= high


def _are_shares(values: object, count: int) -> bool:
    """Whether a value is a list of numbers from 0 to 1, or None where there is none."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(value is None or _is_number(value, 0, 1) for value in values)


def _is_calibration(value: object) -> bool:
    """Whether a value is one label's calibration."""
    if not isinstance(value, dict) or value.get("method") not in CALIBRATION_METHODS:
        return False
    return _is_number(value.get("slope"), 1e-6) and _is_number(value.get("offset"), -1e6)
