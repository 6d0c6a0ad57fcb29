"""The model card: what a model's metadata say, as Markdown."""

INTENDED_USE = ("Research. Not a medical device: not for diagnosis, triage or treatment. Reads frontal chest "
                "radiographs of adults like those of its corpus; it has not been shown to work on others.")


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
        *(["**Trained on synthetic phantoms: nothing it says is about patients.**", ""] if metadata["corpus"] == "phantom"
          else []),
        "| | |", "|---|---|",
        f"| architecture | {metadata['architecture']} |",
        f"| initialised from | {metadata['init']} |",
        f"| fine-tuned on | {metadata['corpus']} |",
        f"| cohort rule | {metadata['cohort']} |",
        f"| label set | {metadata['label_set']} |",
        f"| thresholds | {metadata['thresholds_from']} |",
        f"| calibration | {metadata['calibration']} |",
        f"| precision | {metadata['precision']} |",
        f"| checkpoint, sha256 | {metadata['checkpoint_sha256']} |",
        f"| versions | {', '.join(f'{name} {number}' for name, number in metadata['versions'].items())} |",
        f"| preprocessing | inside the model: resize to {size} x {size}, min-max, equalisation |", "",
        "**Input** `image`: (N, 1, H, W) raw grey intensities, dense tissue bright; any range, N, H and W.",
        "**Output** `probability`: (N, labels), in the order below.", "",
    ]
    if auroc:
        lines += [f"AUC on the test set ({auroc['images']} images) with its 95 % CI ({auroc['method']}).", ""]
    else:
        lines += ["Not scored on a test set before the export.", ""]
    lines += ["| label | threshold | test AUC | 95 % CI |", "|---|---|---|---|"]
    for i, (label, threshold) in enumerate(zip(metadata["labels"], metadata["thresholds"])):
        value, low, high = auroc["labels"][i] if auroc else (None, None, None)
        ci = "–" if low is None else f"{low:.3f} to {high:.3f}"
        lines.append(f"| {label} | {rounded(threshold, 4)} | {rounded(value, 3)} | {ci} |")
    return "\n".join(lines) + "\n"


def rounded(value, digits):
    return "–" if value is None else f"{value:.{digits}f}"
