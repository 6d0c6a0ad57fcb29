"""The model card: what a model's metadata say, as Markdown."""

INTENDED_USE = ("Research. Not a medical device: not for diagnosis, triage or treatment. Reads "
                "frontal chest radiographs of adults like those of its corpus; it has not been "
                "shown to work on others.")


def card(metadata):
    """A model's metadata, as `export.runtime.Predictor.metadata` has them, as a Markdown page."""
    auroc, size, check = metadata["test_auroc"], metadata["image_size"], metadata["precision_check"]
    versions = ", ".join(f"{name} {number}" for name, number in metadata["versions"].items())
    intensities = "8-bit range, 0 to 255" if metadata["input_type"] == "uint8" else "any range"
    calibrated = describe_calibration(metadata)
    warning = ["**Trained on synthetic phantoms: nothing it says is about patients.**", ""]
    corpus = metadata["corpus"]
    if metadata["synthetic"] and corpus != "phantom":
        corpus += " (synthetic phantoms in its layout)"
    lines = [
        f"# {metadata['corpus']}-{metadata['init']}: chest radiograph to probabilities", "",
        f"**Intended use.** {metadata['intended_use']}", "",
        *(warning if metadata["synthetic"] else []),
        "| | |", "|---|---|",
        f"| architecture | {metadata['architecture']} |",
        f"| initialized from | {metadata['init']} |",
        f"| fine-tuned on | {corpus} |",
        f"| cohort rule | {metadata['cohort']} |",
        f"| label set | {metadata['label_set']} |",
        f"| thresholds | {metadata['thresholds_from']} |",
        f"| calibration | {calibrated} |",
        f"| precision | {metadata['precision']} |",
        f"| operators | {metadata['operators']} |",
        *([f"| precision check | {describe_check(check)} |"] if check else []),
        f"| checkpoint, sha256 | {metadata['checkpoint_sha256']} |",
        f"| versions | {versions} |",
        f"| preprocessing | in the model: resize to {size} x {size}, min-max, equalization |", "",
        f"**Input** `image`: (N, 1, H, W) {metadata['input_type']}, raw gray intensities, dense "
        f"tissue bright; {intensities}; any N, H and W.",
        "**Output** `probability`: (N, labels), in the order below.", "",
    ]
    changed = metadata["precision"] != "fp32" or calibrated != "none"
    whose = " of the PyTorch fp32 checkpoint before calibration, not of this file,"
    if auroc:
        lines += [f"AUC{whose if changed else ''} on the test set ({auroc['images']} images) with "
                  f"its 95 % CI ({auroc['method']}).", ""]
    else:
        lines += ["Not scored on a test set before the export.", ""]
    whose = " (PyTorch, fp32)" if changed else ""
    lines += [f"| label | threshold | test AUC{whose} | 95 % CI |",
              "|---|---|---|---|"]
    for i, (label, threshold) in enumerate(zip(metadata["labels"], metadata["thresholds"])):
        value, low, high = auroc["labels"][i] if auroc else (None, None, None)
        ci = "–" if None in (low, high) else f"{low:.3f} to {high:.3f}"
        lines.append(f"| {label} | {rounded(threshold, 4)} | {rounded(value, 3)} | {ci} |")
    lines += ["", "A label is positive where its probability reaches the threshold. A dash: "
              "validation gave no threshold, or the test set no AUC."]
    weak = [label for label, area in zip(metadata["labels"], metadata["val_auroc"] or ())
            if area is not None and area < 0.5]
    if weak:
        lines += [f"**Worse than chance on validation (AUC below 0.5): {', '.join(weak)}.**"]
    return "\n".join(lines) + "\n"


def describe_calibration(metadata):
    """The labels of each kind of calibration, in words."""
    kinds = dict(platt="logistic map (Platt) fitted on validation: ",
                 prior="logarithm of the training's class weight subtracted: ",
                 none="none: ")
    found = {kind: [label for label, one in zip(metadata["labels"], metadata["calibration"])
                    if one["method"] == kind] for kind in kinds}
    if len(found["none"]) == len(metadata["labels"]):
        return "none"
    return "; ".join(kinds[kind] + ", ".join(labels) for kind, labels in found.items() if labels)


def describe_check(check):
    """What the check of a reduced precision measured, in words."""
    unchecked = ""
    if check["unchecked"]:
        unchecked = f"; not checked, for want of a class: {', '.join(check['unchecked'])}"
    return (f"{check['images']:,} radiographs of {check['split']}: an AUC fell by "
            f"{check['largest_auroc_loss']:.4f} at most, the mean by "
            f"{check['mean_auroc_loss']:.4f}; a probability changed by "
            f"{check['largest_change']:.2g} at most, "
            f"{check['changed_decisions']:,} of {check['decisions']:,} decisions changed; "
            f"checked on {check['device']}{unchecked}")


def rounded(value, digits):
    """A number as text, or a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"
