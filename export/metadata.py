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
IMAGE_SIZES = (16, 4096)  # the least and the largest side of what a model may take, in pixels


def encode_metadata(metadata: dict[str, Any]) -> dict[str, str]:
    """Metadata as an ONNX file holds it, with zeros in the place of the checksum."""
    encoded = {}
    for field, value in metadata.items():
        encoded[field] = value if field in TEXT_FIELDS else json.dumps(value)
    encoded[CHECKSUM] = "0" * 64
    return encoded


def serialize(proto: Any, metadata: dict[str, Any]) -> bytes:
    """The bytes of an `onnx.ModelProto` with these metadata and its checksum."""
    del proto.metadata_props[:]
    for key, value in encode_metadata(metadata).items():
        proto.metadata_props.add(key=key, value=value)
    return add_checksum(proto.SerializeToString())


def add_checksum(content: bytes) -> bytes:
    """A serialized model with its own sha256 in its metadata, computed with zeros in that place."""
    span = checksum_span(content)
    if span is None:
        raise ValueError(f"a model without the field {CHECKSUM}")
    return content[:span.start] + _digest(content, span) + content[span.stop:]


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
    span = checksum_span(content)
    if span is None:
        raise ValueError(f"{name}: not a model of this project, or cut short (no {CHECKSUM})")
    if content[span] != _digest(content, span):
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


def checksum_span(content: bytes) -> slice | None:
    """Where the checksum lies: behind the field's name, protobuf has a tag and a length."""
    start = content.rfind(CHECKSUM.encode())
    if start < 0:
        return None
    return slice(start + len(CHECKSUM) + 2, start + len(CHECKSUM) + 66)


def stored_checksum(content: bytes) -> str:
    """The checksum that a serialized model has in its metadata."""
    span = checksum_span(content)
    if span is None:
        raise ValueError(f"a model without the field {CHECKSUM}")
    return content[span].decode()


def _digest(content: bytes, span: slice) -> bytes:
    """The sha256, in hex, of a serialized model with zeros in the place of the checksum."""
    digest = hashlib.sha256()
    view = memoryview(content)
    for part in (view[:span.start], b"0" * 64, view[span.stop:]):
        digest.update(part)
    return digest.hexdigest().encode()


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
    _expect(metadata, "image_size", _is_whole(metadata["image_size"], *IMAGE_SIZES),
            f"a whole number from {IMAGE_SIZES[0]} to {IMAGE_SIZES[1]}")
    _expect(metadata, "synthetic", isinstance(metadata["synthetic"], bool), "true or false")
    versions = metadata["versions"]
    _expect(metadata, "versions", isinstance(versions, dict), "names and versions")
    _expect(metadata, "versions", _are_texts([*versions, *versions.values()]), "printable text")

    labels = metadata["labels"]
    _expect(metadata, "labels", isinstance(labels, list) and len(labels) > 0, "a list of names")
    check_label_names(labels)
    _check_of_labels(metadata, len(labels))
    if metadata["test_auroc"] is not None:
        _check_test_auroc(metadata, len(labels))
    if metadata["precision_check"] is not None:
        _check_precision_check(metadata)
    _check_reference(metadata, len(labels))


def _check_of_labels(metadata: dict[str, Any], count: int) -> None:
    """Raise ValueError unless thresholds, validation AUC and calibration are there per label."""
    shares = f"for each of {count} labels a number from 0 to 1, or null"
    _expect(metadata, "thresholds", _are_shares(metadata["thresholds"], count), shares)
    if metadata["val_auroc"] is not None:
        _expect(metadata, "val_auroc", _are_shares(metadata["val_auroc"], count), shares)
    calibration = metadata["calibration"]
    expected = f"for each of {count} labels a method, a slope above 0 and an offset"
    is_list = isinstance(calibration, list) and len(calibration) == count
    _expect(metadata, "calibration", is_list, expected)
    for one in calibration:
        _expect(metadata, "calibration", isinstance(one, dict), expected)
        is_method = one.get("method") in CALIBRATION_METHODS
        _expect(metadata, "calibration", is_method, expected)
        is_map = _is_number(one.get("slope"), 1e-6) and _is_number(one.get("offset"), -1e6)
        _expect(metadata, "calibration", is_map, expected)


def _check_test_auroc(metadata: dict[str, Any], count: int) -> None:
    """Raise ValueError unless the AUCs on the test set are whole."""
    test = metadata["test_auroc"]
    expected = f"images, method, and for each of {count} labels an AUC and its interval, or null"
    _expect(metadata, "test_auroc", isinstance(test, dict), expected)
    is_described = _is_whole(test.get("images"), 0) and _is_text(test.get("method"))
    _expect(metadata, "test_auroc", is_described, expected)
    rows = test.get("labels")
    _expect(metadata, "test_auroc", isinstance(rows, list) and len(rows) == count, expected)
    for row in rows:
        _expect(metadata, "test_auroc", _are_shares(row, 3), expected)


def _check_precision_check(metadata: dict[str, Any]) -> None:
    """Raise ValueError unless the check of a reduced precision is whole."""
    check = metadata["precision_check"]
    expected = "what export.precision.check_precision gives"
    _expect(metadata, "precision_check", isinstance(check, dict), expected)
    for field in ("images", "decisions", "changed_decisions"):
        _expect(metadata, "precision_check", _is_whole(check.get(field), 0), expected)
    for field in ("largest_auroc_loss", "mean_auroc_loss", "largest_change"):
        _expect(metadata, "precision_check", _is_number(check.get(field), -1, 1), expected)
    for field in ("device", "split"):
        _expect(metadata, "precision_check", _is_text(check.get(field)), expected)
    not_excluded = check.get("not_excluded", [])  # files of earlier days lack it
    for names in (check.get("unchecked"), not_excluded):
        _expect(metadata, "precision_check", _are_texts(names), expected)


def _check_reference(metadata: dict[str, Any], count: int) -> None:
    """Raise ValueError unless the reference probabilities are whole."""
    reference = metadata["reference"]
    expected = f"tolerance, patterns and radiographs with {count} probabilities each"
    _expect(metadata, "reference", isinstance(reference, dict), expected)
    patterns, radiographs = reference.get("patterns"), reference.get("radiographs")
    is_whole = isinstance(patterns, list) and isinstance(radiographs, dict)
    _expect(metadata, "reference", is_whole, expected)
    tolerance = reference.get("tolerance")
    if isinstance(tolerance, list):
        _expect(metadata, "reference", len(tolerance) == count, expected)
    else:
        tolerance = [tolerance]  # one for all labels
    for allowed in tolerance:
        _expect(metadata, "reference", _is_number(allowed, 0), expected)
    for probabilities in (*patterns, *radiographs.values()):
        is_whole = _are_shares(probabilities, count) and None not in probabilities
        _expect(metadata, "reference", is_whole, expected)


def _expect(metadata: dict[str, Any], field: str, is_right: bool, expected: str) -> None:
    """Raise ValueError with a field and its value unless that is right."""
    if not is_right:
        raise ValueError(f"{field} {reprlib.repr(metadata[field])}: expected {expected}")


def _is_text(value: Any) -> bool:
    """Whether a value is text without control characters."""
    return isinstance(value, str) and value.isprintable()


def _are_texts(values: Any) -> bool:
    """Whether a value is a list of such texts."""
    return isinstance(values, list) and all(map(_is_text, values))


def _is_whole(value: Any, low: int, high: float = math.inf) -> bool:
    """Whether a value is a whole number in a range; JSON's true is none, though Python's is."""
    return type(value) is int and low <= value <= high


def _is_number(value: Any, low: float, high: float = 1e6) -> bool:
    """Whether a value is a number in a range; NaN and JSON's true are none."""
    return type(value) in (int, float) and low <= value <= high


def _are_shares(values: Any, count: int) -> bool:
    """Whether a value is a list of numbers from 0 to 1, or None where there is none."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(value is None or _is_number(value, 0, 1) for value in values)
