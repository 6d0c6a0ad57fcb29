"""What a DICOM header says beside the pixels: whether it is a frontal radiograph, and its UIDs."""

import io

from data.dicom import read_dataset

UIDS = dict(sop_instance_uid="SOPInstanceUID", study_instance_uid="StudyInstanceUID",
            series_instance_uid="SeriesInstanceUID")
RADIOGRAPHY = ("CR", "DX", "RG")  # computed, digital and conventional
LATERAL = ("LATERAL", "LL", "RL", "LLD", "RLD")
KEYWORDS = ("Modality", "ViewPosition", *UIDS.values())


def read_header(data, name):
    """The elements `KEYWORDS` of a DICOM file's bytes as a dict of text, "" for one that is absent.

    Empty if they are not DICOM or pydicom is not installed; ValueError for damage to an element.
    """
    if data[128:132] != b"DICM" and data[:2] not in (b"\x02\x00", b"\x08\x00"):
        return {}
    try:
        header = read_dataset(data)
    except Exception:  # whoever decodes the pixels says what is wrong
        return {}
    try:
        return {keyword: str(header.get(keyword) or "").strip() for keyword in KEYWORDS}
    except Exception as error:  # damage makes pydicom raise nearly anything
        raise ValueError(f"{name}: damaged DICOM header: {error}") from None


def check_frontal(header, name):
    """ValueError where a header says that it is not of a frontal radiograph."""
    modality, view = (header.get(key, "").upper() for key in ("Modality", "ViewPosition"))
    if modality and modality not in RADIOGRAPHY:
        raise ValueError(f"{name}: DICOM of modality {modality}; expected a radiograph "
                         f"({', '.join(RADIOGRAPHY)}; --any-modality takes it all the same)")
    if view in LATERAL:
        raise ValueError(f"{name}: a lateral view ({view}); the model reads frontal ones "
                         "(--any-modality takes it all the same)")


def read_uids(header):
    """The SOP instance's, the study's and the series' UID; None where there is none."""
    return {key: header.get(keyword) or None for key, keyword in UIDS.items()}


def to_bytes(dataset):
    """A pydicom.Dataset as the bytes of a file."""
    import pydicom
    buffer, whole = io.BytesIO(), hasattr(dataset.file_meta, "TransferSyntaxUID")
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=whole)
    return buffer.getvalue()
