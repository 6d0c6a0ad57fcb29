"""What a DICOM header says beside the pixels: whether it is a frontal radiograph, and its UIDs."""

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data.dicom import read_dataset
from data.views import classify_description, classify_view, is_other_part, is_side_view

if TYPE_CHECKING:
    from pydicom import Dataset

UIDS = {"sop_instance_uid": "SOPInstanceUID", "study_instance_uid": "StudyInstanceUID",
        "series_instance_uid": "SeriesInstanceUID"}
RADIOGRAPHY = ("CR", "DX", "RG")  # computed, digital and conventional
PREDICT_ANYWAY = "--any-modality takes it all the same"


class NotFrontal(ValueError):
    """A header says that it is of no frontal chest radiograph."""


@dataclass(frozen=True)
class Header:
    """What a file's header says; each text is "" where an element is absent, or without a header.
    """

    modality: str = ""
    view: str = ""  # ViewPosition
    view_codes: tuple[str, ...] = ()  # the meanings in ViewCodeSequence
    orientation: tuple[str, ...] = ()  # PatientOrientation: where rows and columns run to
    body_part: str = ""  # BodyPartExamined
    description: str = ""  # SeriesDescription
    burned_in: str = ""  # BurnedInAnnotation: YES, NO or ""
    uids: tuple[str | None, ...] = (None,) * len(UIDS)  # in the order of `UIDS`


def read_header(data: bytes, name: str) -> Header:
    """The `Header` of a DICOM file's bytes; an empty one of a file that is no DICOM.

    ValueError for damage to an element. Without pydicom the header is empty too: the decoder says
    what to install.
    """
    if data[128:132] != b"DICM" and data[:2] not in (b"\x02\x00", b"\x08\x00"):
        return Header()
    try:
        dataset = read_dataset(data, stop_before_pixels=True)
    except Exception:  # whoever decodes the pixels says what is wrong
        return Header()
    try:
        return header_of(dataset)
    except Exception as error:  # damage makes pydicom raise nearly anything
        raise ValueError(f"{name}: damaged DICOM header: {error}") from None


def header_of(dataset: "Dataset") -> Header:
    """The `Header` of a pydicom.Dataset."""
    codes = []
    for item in dataset.get("ViewCodeSequence") or ():
        code = text_of(item, "CodeMeaning")
        if code:
            codes.append(code)
    orientation = dataset.get("PatientOrientation") or ()
    if isinstance(orientation, str):
        orientation = orientation.split("\\")
    return Header(
        modality=text_of(dataset, "Modality"), view=text_of(dataset, "ViewPosition"),
        view_codes=tuple(codes), orientation=tuple(map(str, orientation)),
        body_part=text_of(dataset, "BodyPartExamined"),
        description=text_of(dataset, "SeriesDescription"),
        burned_in=text_of(dataset, "BurnedInAnnotation"),
        uids=tuple(text_of(dataset, keyword, as_is=True) or None for keyword in UIDS.values()))


def text_of(dataset: "Dataset", keyword: str, *, as_is: bool = False) -> str:
    """An element as text, in capitals unless `as_is`; "" where it is absent."""
    text = str(dataset.get(keyword) or "").strip()
    return text if as_is else text.upper()


def view_of(header: Header) -> str:
    """What the tags say of the view: "frontal", or "unknown"; `check_frontal` refuses others."""
    if classify_view(header.view) == "frontal":
        return "frontal"
    if any(classify_view(code) == "frontal" for code in header.view_codes):
        return "frontal"
    return "unknown"


def check_frontal(header: Header, name: str) -> None:
    """Raise `NotFrontal` where a header says that it is of no frontal chest radiograph."""
    reason = why_not_frontal(header)
    if reason:
        raise NotFrontal(f"{name}: {reason} ({PREDICT_ANYWAY})")


def why_not_frontal(header: Header) -> str | None:
    """Which tag says that an image is no frontal chest radiograph, in words; None if none does."""
    if header.modality and header.modality not in RADIOGRAPHY:
        return (f"DICOM of modality {header.modality}; expected a radiograph "
                f"({', '.join(RADIOGRAPHY)})")
    if is_other_part(header.body_part):
        return f"BodyPartExamined is {header.body_part}; the model reads chest radiographs"
    if classify_view(header.view) == "other":
        return f"ViewPosition is {header.view}; the model reads frontal views"
    if not header.view:
        for code in header.view_codes:
            if classify_description(code) == "other":
                return f"ViewCodeSequence says {code}; the model reads frontal views"
        if is_side_view(header.orientation):
            return (f"PatientOrientation is {'/'.join(header.orientation)}, a side view; the model "
                    "reads frontal views")
        if classify_description(header.description) == "other":
            return (f"SeriesDescription is {header.description}; the model reads frontal chest "
                    "radiographs")
    return None


def read_uids(header: Header) -> dict[str, str | None]:
    """The SOP instance's, the study's and the series' UID; None where there is none."""
    return dict(zip(UIDS, header.uids))


def to_bytes(dataset: Any) -> bytes:
    """A pydicom.Dataset as the bytes of a file."""
    import pydicom
    buffer = io.BytesIO()
    is_whole = hasattr(dataset.file_meta, "TransferSyntaxUID")
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=is_whole)
    return buffer.getvalue()
