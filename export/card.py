"""The model card: what a model's metadata say, as Markdown."""

from typing import Any

from data.console import printable

INTENDED_USE = ("Research. Not a medical device: not for diagnosis, triage or treatment. Reads "
                "frontal chest radiographs of adults like those of its corpus; it has not been "
                "shown to work on others.")
CALIBRATIONS = dict(platt="logistic map (Platt) fitted on validation",
                    prior="logarithm of the training's class weight subtracted", none="none")


# What would be a tag, a link, an image or the end of a cell; "&" first, as the others bring it.
MARKUP = {"&": "&amp;", "<": "&lt;", "[": "&#91;", "|": "&#124;"}


def card(metadata: dict[str, Any]) -> str:
    """A model's metadata, as `export.runtime.Predictor.metadata` has them, as a Markdown page.

    Names in them are shown as text: control characters and markup are escaped.
    """
    is_changed = metadata["precision"] != "fp32" or describe_calibration(metadata) != "none"
    title = as_text(f"{metadata['corpus']}-{metadata['init']}")
    lines = [f"# {title}: chest radiograph to probabilities", "",
             f"**Intended use.** {as_text(metadata['intended_use'])}", ""]
    if metadata["synthetic"]:
        lines += ["**Trained on synthetic phantoms: nothing it says is about patients.**", ""]
    lines += ["| | |", "|---|---|"]
    for name, text in describe_model(metadata).items():
        if text:
            lines.append(f"| {name} | {as_text(text)} |")
    lines += ["", "**Input** `image`: (N, 1, H, W) float32, raw gray intensities, dense tissue "
              "bright; any range; any N, H and W.",
              "**Output** `probability`: (N, labels), in the order below.", "",
              describe_test(metadata["test_auroc"], is_changed), ""]
    lines += label_table(metadata, is_changed)
    lines += ["", "A label is positive where its probability reaches the threshold. A dash: "
              "validation gave no threshold, or the test set no AUC."]
    weak = as_text(", ".join(weak_labels(metadata)))
    if weak:
        lines.append(f"**Worse than chance on validation (AUC below 0.5): {weak}.**")
    return "\n".join(lines) + "\n"


def as_text(text: str) -> str:
    """A text that stays text in Markdown, in a cell of a table too."""
    text = printable(text)
    for character, escaped in MARKUP.items():
        text = text.replace(character, escaped)
    return text


def describe_model(metadata: dict[str, Any]) -> dict[str, str]:
    """The rows of the card's first table; an empty text where there is nothing to say."""
    corpus = metadata["corpus"]
    if metadata["synthetic"] and corpus != "phantom":
        corpus += " (synthetic phantoms in its layout)"
    check, size = metadata["precision_check"], metadata["image_size"]
    versions = [f"{name} {number}" for name, number in metadata["versions"].items()]
    return {
        "architecture": metadata["architecture"], "initialized from": metadata["init"],
        "fine-tuned on": corpus, "cohort rule": metadata["cohort"],
        "label set": metadata["label_set"], "thresholds": metadata["thresholds_from"],
        "calibration": describe_calibration(metadata), "precision": metadata["precision"],
        "precision check": describe_check(check) if check else "",
        "checkpoint, sha256": metadata["checkpoint_sha256"],
        "versions": ", ".join(versions),
        "preprocessing": f"in the model: resize to {size} x {size}, min-max, equalization"}


def describe_test(auroc: dict[str, Any] | None, is_changed: bool) -> str:
    """What the AUCs of the card's second table were taken on."""
    if not auroc:
        return "Not scored on a test set before the export."
    model = ""
    if is_changed:
        model = " of the PyTorch fp32 checkpoint before calibration, not of this file,"
    return (f"AUC{model} on the test set ({auroc['images']} images) with its 95 % CI "
            f"({as_text(auroc['method'])}).")


def label_table(metadata: dict[str, Any], is_changed: bool) -> list[str]:
    """The lines of the card's second table: a row per label."""
    model = " (PyTorch, fp32)" if is_changed else ""
    lines = [f"| label | threshold | test AUC{model} | 95 % CI |", "|---|---|---|---|"]
    auroc = metadata["test_auroc"]
    for number, label in enumerate(metadata["labels"]):
        cells = [as_text(label), "–", "–", "–"]
        threshold = metadata["thresholds"][number]
        if threshold is not None:
            cells[1] = f"{threshold:.4f}"
        if auroc:
            area, low, high = auroc["labels"][number]
            if area is not None:
                cells[2] = f"{area:.3f}"
            if low is not None and high is not None:
                cells[3] = f"{low:.3f} to {high:.3f}"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def describe_calibration(metadata: dict[str, Any]) -> str:
    """The labels of each kind of calibration, in words."""
    labels: dict[str, list[str]] = {}
    for label, calibration in zip(metadata["labels"], metadata["calibration"]):
        labels.setdefault(calibration["method"], []).append(label)
    if set(labels) == {"none"}:
        return "none"
    parts = []
    for kind, words in CALIBRATIONS.items():
        if kind in labels:
            parts.append(f"{words}: {', '.join(labels[kind])}")
    return "; ".join(parts)


def describe_check(check: dict[str, Any]) -> str:
    """What the check of a reduced precision measured, in words."""
    parts = [f"{check['images']:,} radiographs of {check['split']}: an AUC fell by "
             f"{check['largest_auroc_loss']:.4f} at most, the mean by "
             f"{check['mean_auroc_loss']:.4f}",
             f"a probability changed by {check['largest_change']:.2g} at most, "
             f"{check['changed_decisions']:,} of {check['decisions']:,} decisions changed",
             f"checked on {check['device']}"]
    if check["unchecked"]:
        parts.append(f"not checked, for want of a class: {', '.join(check['unchecked'])}")
    not_excluded = check.get("not_excluded", [])  # absent in files of earlier days
    if not_excluded:
        parts.append("a loss above the limit cannot be excluded on so few images for "
                     f"{', '.join(not_excluded)}")
    return "; ".join(parts)


def weak_labels(metadata: dict[str, Any]) -> list[str]:
    """The labels whose AUC on validation was below 0.5."""
    weak = []
    for label, area in zip(metadata["labels"], metadata["val_auroc"] or ()):
        if area is not None and area < 0.5:
            weak.append(label)
    return weak
