"""The model card: what a model's metadata say, as Markdown."""

INTENDED_USE = ("Research. Not a medical device: not for diagnosis, triage or treatment. Reads frontal chest "
                "radiographs of adults like those of its corpus; it has not been shown to work on others.")

REHEARSAL = " (phantoms in its layout)"  # behind the name of a corpus


def card(metadata):
    """A model's metadata as a Markdown page.

    Parameters
    ----------
    metadata : dict
        As `export.runtime.Predictor.metadata`.

    Returns
    -------
    str
    """
    auroc, size = metadata["test_auroc"], metadata["image_size"]
    lines = [
        f"# {metadata['corpus']}-{metadata['init']}: chest radiograph to probabilities", "",
        f"**Intended use.** {metadata['intended_use']}", "",
        *(["**Trained on synthetic phantoms: nothing it says is about patients.**", ""]
          if metadata["corpus"] == "phantom" or metadata["corpus"].endswith(REHEARSAL) else []),
        "| | |", "|---|---|",
        f"| architecture | {metadata['architecture']} |",
        f"| initialised from | {metadata['init']} |",
        f"| fine-tuned on | {metadata['corpus']} |",
        f"| cohort rule | {metadata['cohort']} |",
        f"| label set | {metadata['label_set']} |",
        f"| thresholds | {metadata['thresholds_from']} |",
        f"| calibration | {metadata['calibration']} |",
        f"| precision | {metadata['precision']} |",
        *([f"| precision accepted on | {accepted(metadata['gate'])} |"] if metadata["gate"] else []),
        f"| checkpoint, sha256 | {metadata['checkpoint_sha256']} |",
        f"| versions | {', '.join(f'{name} {number}' for name, number in metadata['versions'].items())} |",
        f"| preprocessing | inside the model: resize to {size} x {size}, min-max, equalisation |", "",
        f"**Input** `image`: (N, 1, H, W) {metadata['input_type']}, raw grey intensities, dense tissue bright; "
        f"{'8-bit range, 0 to 255' if metadata['input_type'] == 'uint8' else 'any range'}; any N, H and W.",
        "**Output** `probability`: (N, labels), in the order below.", "",
    ]
    changed = metadata["precision"] != "fp32" or metadata["calibration"] != "none"
    whose = " of the PyTorch fp32 checkpoint before calibration, not of this file," if changed else ""
    if auroc:
        lines += [f"AUC{whose} on the test set ({auroc['images']} images) with its 95 % CI ({auroc['method']}).", ""]
    else:
        lines += ["Not scored on a test set before the export.", ""]
    lines += [f"| label | threshold | test AUC{' (PyTorch, fp32)' if changed else ''} | 95 % CI |", "|---|---|---|---|"]
    for i, (label, threshold) in enumerate(zip(metadata["labels"], metadata["thresholds"])):
        value, low, high = auroc["labels"][i] if auroc else (None, None, None)
        ci = "–" if None in (low, high) else f"{low:.3f} to {high:.3f}"
        lines.append(f"| {label} | {rounded(threshold, 4)} | {rounded(value, 3)} | {ci} |")
    return "\n".join(lines) + "\n"


def accepted(gate):
    """What the test of a reduced precision measured, in words."""
    unjudged = f"; not judged, for want of a class: {', '.join(gate['unjudged'])}" if gate["unjudged"] else ""
    return (f"{gate['images']:,} radiographs of {gate['split']}: an AUC fell by {gate['label_fall']:.4f} at most, the "
            f"mean by {gate['mean_fall']:.4f}; a probability changed by {gate['change']:.2g} at most, "
            f"{gate['changed_calls']:,} of {gate['calls']:,} calls changed; judged on {gate['judged_on']}{unjudged}")


def rounded(value, digits):
    return "–" if value is None else f"{value:.{digits}f}"
