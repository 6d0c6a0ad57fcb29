"""The model card: what a model's metadata say, as Markdown."""

INTENDED_USE = ("Research. Not a medical device: not for diagnosis, triage or treatment. Reads "
                "frontal chest radiographs of adults like those of its corpus; it has not been "
                "shown to work on others.")
CALIBRATIONS = dict(platt="logistic map (Platt) fitted on validation",
                    prior="logarithm of the training's class weight subtracted", none="none")


def card(metadata):
    """A model's metadata, as `export.runtime.Predictor.metadata` has them, as a Markdown page."""
    auroc, size, check = metadata["test_auroc"], metadata["image_size"], metadata["precision_check"]
    synthetic, corpus = metadata["synthetic"], metadata["corpus"]
    if synthetic and corpus != "phantom":
        corpus += " (synthetic phantoms in its layout)"
    calibration = describe_calibration(metadata)
    changed = metadata["precision"] != "fp32" or calibration != "none"
    table = {
        "architecture": metadata["architecture"], "initialized from": metadata["init"],
        "fine-tuned on": corpus, "cohort rule": metadata["cohort"],
        "label set": metadata["label_set"], "thresholds": metadata["thresholds_from"],
        "calibration": calibration, "precision": metadata["precision"],
        "precision check": check and describe_check(check),
        "checkpoint, sha256": metadata["checkpoint_sha256"],
        "versions": ", ".join(f"{name} {number}" for name, number in metadata["versions"].items()),
        "preprocessing": f"in the model: resize to {size} x {size}, min-max, equalization"}
    whose = " of the PyTorch fp32 checkpoint before calibration, not of this file," * changed
    lines = [
        f"# {metadata['corpus']}-{metadata['init']}: chest radiograph to probabilities", "",
        f"**Intended use.** {metadata['intended_use']}", "",
        *["**Trained on synthetic phantoms: nothing it says is about patients.**", ""] * synthetic,
        "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in table.items() if text), "",
        "**Input** `image`: (N, 1, H, W) float32, raw gray intensities, dense tissue bright; any "
        "range; any N, H and W.",
        "**Output** `probability`: (N, labels), in the order below.", "",
        f"AUC{whose} on the test set ({auroc['images']} images) with its 95 % CI "
        f"({auroc['method']})." if auroc else "Not scored on a test set before the export.", "",
        f"| label | threshold | test AUC{' (PyTorch, fp32)' * changed} | 95 % CI |",
        "|---|---|---|---|"]
    for i, (label, threshold) in enumerate(zip(metadata["labels"], metadata["thresholds"])):
        area, low, high = auroc["labels"][i] if auroc else (None, None, None)
        cells = ("–" if threshold is None else f"{threshold:.4f}",
                 "–" if area is None else f"{area:.3f}",
                 "–" if None in (low, high) else f"{low:.3f} to {high:.3f}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", "A label is positive where its probability reaches the threshold. A dash: "
              "validation gave no threshold, or the test set no AUC."]
    if weak := weak_labels(metadata):
        lines += [f"**Worse than chance on validation (AUC below 0.5): {', '.join(weak)}.**"]
    return "\n".join(lines) + "\n"


def describe_calibration(metadata):
    """The labels of each kind of calibration, in words."""
    labels = {}
    for label, one in zip(metadata["labels"], metadata["calibration"]):
        labels.setdefault(one["method"], []).append(label)
    if set(labels) == {"none"}:
        return "none"
    return "; ".join(f"{words}: {', '.join(labels[kind])}" for kind, words in CALIBRATIONS.items()
                     if kind in labels)


def describe_check(check):
    """What the check of a reduced precision measured, in words."""
    unchecked = ", ".join(check["unchecked"])
    not_excluded = ", ".join(check.get("not_excluded", []))  # absent in files of earlier days
    return (f"{check['images']:,} radiographs of {check['split']}: an AUC fell by "
            f"{check['largest_auroc_loss']:.4f} at most, the mean by "
            f"{check['mean_auroc_loss']:.4f}; a probability changed by "
            f"{check['largest_change']:.2g} at most, "
            f"{check['changed_decisions']:,} of {check['decisions']:,} decisions changed; "
            f"checked on {check['device']}"
            + (f"; not checked, for want of a class: {unchecked}" if unchecked else "")
            + (f"; a loss above the limit cannot be excluded on so few images for "
               f"{not_excluded}" if not_excluded else ""))


def weak_labels(metadata):
    """The labels whose AUC on validation was below 0.5."""
    return [label for label, area in zip(metadata["labels"], metadata["val_auroc"] or ())
            if area is not None and area < 0.5]
