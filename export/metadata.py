"""What travels in a model's file: its metadata and the checksum of its bytes.

It finds damage, not intent: who edits a file can write a new checksum into it.
"""

import hashlib
import json
import os
from pathlib import Path

FORMAT = "radiograph-to-probability/2"
FORMATS = ("radiograph-to-probability/1", FORMAT)
CHECKSUM = "file_sha256"
# text as it is, all else as JSON
TEXT_FIELDS = ("format", "intended_use", "corpus", "init", "architecture", "cohort", "label_set",
               "thresholds_from", "precision", "operators", "input_type", "checkpoint_sha256")
JSON_FIELDS = dict(labels=list, thresholds=list, calibration=list, image_size=int, synthetic=bool,
                   versions=dict, val_auroc=list | None, test_auroc=dict | None,
                   precision_check=dict | None, reference=dict)
INPUTS = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}
UNCALIBRATED = dict(method="none", slope=1.0, offset=0.0)


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


def read_verified(model, name):
    """The bytes of a model, a file or bytes, if they fit its checksum; before any parser."""
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


def decode_metadata(name, session):
    """The metadata of a model's session; ValueError names the field that is missing or wrong."""
    stored = session.get_modelmeta().custom_metadata_map
    if stored.get("format") not in FORMATS:
        raise ValueError(f"{name}: not a model of this project (format {stored.get('format')!r}; "
                         f"expected one of {FORMATS})")
    first = stored["format"] == FORMATS[0]
    as_text = (*TEXT_FIELDS, CHECKSUM, *(["calibration"] if first else []))
    try:
        metadata = {key: text if key in as_text else json.loads(text)
                    for key, text in stored.items()}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: its metadata are not JSON ({error})") from None
    if first:
        metadata = _from_format_1(metadata)
    absent = [key for key in (*TEXT_FIELDS, *JSON_FIELDS) if key not in metadata]
    if absent:
        raise ValueError(f"{name}: its metadata lack {', '.join(absent)}; export it again")
    graph = session.get_inputs()[0].type, session.get_outputs()[0].shape[-1]
    wrong = [key for key, kind in JSON_FIELDS.items() if not isinstance(metadata[key], kind)]
    counts = {len(metadata[key]) for key in ("labels", "thresholds", "calibration") if not wrong}
    if wrong or (INPUTS.get(metadata["input_type"]), *counts) != graph:
        raise ValueError(f"{name}: its metadata do not fit the graph ({', '.join(wrong) or graph})")
    return metadata


def _from_format_1(metadata):
    """Metadata of the first format in the words of the present one."""
    mark = " (phantoms in its layout)"  # stood behind the corpus's name
    corpus, check = metadata.get("corpus", ""), metadata.pop("gate", None)
    names = dict(label_fall="largest_auroc_loss", mean_fall="mean_auroc_loss", calls="decisions",
                 change="largest_change", changed_calls="changed_decisions", judged_on="device",
                 unjudged="unchecked")
    mapped = metadata.pop("calibration", "").partition(" labels: ")[2].split(", ")
    platt = dict(method="platt", slope=None, offset=None)
    return metadata | dict(
        calibration=[platt if label in mapped else UNCALIBRATED
                     for label in metadata.get("labels", ())],
        operators="onnxruntime", val_auroc=None, corpus=corpus.removesuffix(mark),
        synthetic=corpus == "phantom" or corpus.endswith(mark),
        precision_check=check and {names.get(key, key): value for key, value in check.items()})
