"""What a DICOM header says beside the pixels: whether it is a frontal radiograph, and its UIDs."""

import io

UIDS = dict(sop_instance_uid="SOPInstanceUID", study_instance_uid="StudyInstanceUID",
            series_instance_uid="SeriesInstanceUID")
RADIOGRAPHY = ("CR", "DX", "RG")  # computed, digital and conventional
LATERAL = ("LATERAL", "LL", "RL", "LLD", "RLD")


def read_header(data, name):
    """The header of a DICOM file's bytes; None if they are not DICOM or pydicom is absent.

    ValueError for damage to one of the elements that are asked for here.
    """
    if data[128:132] != b"DICM" and data[:2] not in (b"\x02\x00", b"\x08\x00"):
        return None
    try:
        import pydicom
        header = pydicom.dcmread(io.BytesIO(data), force=True, stop_before_pixels=True)
    except Exception:  # whoever decodes the pixels says what is wrong
        return None
    try:
        for keyword in ("Modality", "ViewPosition", *UIDS.values()):
            header.get(keyword)  # converts it; damage makes pydicom raise nearly anything
    except Exception as error:
        raise ValueError(f"{name}: damaged DICOM header: {error}") from None
    return header


def check_frontal(header, name):
    """ValueError where a header says that it is not of a frontal radiograph."""
    modality, view = (str(header.get(key) or "").strip().upper()
                      for key in ("Modality", "ViewPosition"))
    if modality and modality not in RADIOGRAPHY:
        raise ValueError(f"{name}: DICOM of modality {modality}; expected a radiograph "
                         f"({', '.join(RADIOGRAPHY)}; --any-modality takes it all the same)")
    if view in LATERAL:
        raise ValueError(f"{name}: a lateral view ({view}); the model reads frontal ones "
                         "(--any-modality takes it all the same)")


def read_uids(header):
    """The SOP instance's, the study's and the series' UID; None where there is none."""
    found = {key: header and header.get(keyword) for key, keyword in UIDS.items()}
    return {key: str(value) if value else None for key, value in found.items()}


def to_bytes(dataset):
    """A pydicom.Dataset as the bytes of a file."""
    import pydicom
    buffer, whole = io.BytesIO(), hasattr(dataset.file_meta, "TransferSyntaxUID")
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=whole)
    return buffer.getvalue()
