"""Where the model looked: hide each part of a radiograph in turn and see which label's log-odds fall.

Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901) needs the exported file alone, no gradient and no second model,
and tells the labels apart; attention rollout does not. Each part is hidden twice, at the radiograph's mean level and
at its dark level: the one hides air that should not be there, the other what is too dense. tests/bench_explain.py
has the evidence for this choice.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

WINDOW = 1 / 6  # side of what is hidden, in parts of the image's side
STEP = 0.5  # of a window
DARK = 5  # percentile of the intensities
FAINT = 0.25  # log-odds; the colour scale never ends below, so that noise is not blown up to a finding

# matplotlib's inferno at sixteenths, linear between
INFERNO = np.array([
    [0, 0, 4], [11, 7, 36], [33, 12, 74], [61, 9, 101], [87, 16, 110], [113, 25, 110], [138, 34, 106],
    [163, 44, 97], [188, 55, 84], [208, 69, 69], [227, 89, 51], [241, 113, 31], [249, 140, 10],
    [252, 170, 15], [249, 201, 50], [242, 232, 101], [252, 255, 164]], np.float64)


def occlusion(model, image, batch_size=8):
    """How much of each label's log-odds hangs on each place of a radiograph.

    Parameters
    ----------
    model : export.runtime.Predictor
    image : ndarray, shape (H, W)
        Raw grey intensities.
    batch_size : int

    Returns
    -------
    ndarray, shape (L, S, S), float32
        Fall of the log-odds where the image is hidden, at least 0: a mean over the two levels and over the windows
        that cover a place. S is the model's image size.
    """
    size = model.metadata["image_size"]
    small = resize(model.check(image), size)  # the graph's own resize then does nothing
    windows = grid(size)  # (n, S, S)
    hidden = [small + window * (level - small) for level in (small.mean(), np.percentile(small, DARK))
              for window in windows]
    pictures = [picture.round().astype(np.uint8) if model.input_dtype == np.uint8 else picture
                for picture in (small, *hidden)]
    log_odds = to_log_odds(model(pictures, batch_size))
    fall = np.maximum(log_odds[0] - log_odds[1:], 0).reshape(2, len(windows), -1).mean(0)  # (n, L)
    weights = windows.reshape(len(windows), -1)
    return (fall.T @ weights / weights.sum(0)).reshape(-1, size, size).astype(np.float32)


def grid(size):
    """Soft windows (n, size, size) of values 0 to 1, bells of the width `WINDOW`, all over the image."""
    count = round(1 / (WINDOW * STEP)) + 1
    axis = (np.arange(size) + 0.5) / size
    bells = np.exp(-0.5 * ((axis - np.linspace(0, 1, count)[:, None]) / (WINDOW / 2)) ** 2).astype(np.float32)
    return (bells[:, None, :, None] * bells[None, :, None, :]).reshape(-1, size, size)


def resize(image, size):
    """A grey image at (size, size), float32: step 1 of the model's preprocessing."""
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR))


def to_log_odds(probability):
    p = np.clip(probability.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def overlay(image, heat, label, probability, threshold, side=640):
    """A picture of one label's map on the radiograph, with the scale, label and probability written on it.

    Parameters
    ----------
    image : ndarray, shape (H, W)
        Raw grey intensities.
    heat : ndarray, shape (S, S)
        One label's map from `occlusion`.
    label : str
    probability : float
    threshold : float or None
    side : int
        Longer side of the radiograph in the picture, pixels.

    Returns
    -------
    PIL.Image.Image
        The radiograph as it is on the left, with the map on the right.
    """
    height, width = (max(1, round(n * side / max(image.shape))) for n in image.shape)
    low, high = np.percentile(image, (0.5, 99.5))
    grey = (np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    grey = Image.fromarray(grey).resize((width, height), Image.Resampling.LANCZOS)
    top = max(float(heat.max()), FAINT)
    strength = np.asarray(Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)) / top
    strength = np.clip(strength, 0, 1)
    opacity = 0.75 * np.clip(strength * 2 - 0.3, 0, 1)[..., None]  # weak places show the radiograph untouched
    base = np.asarray(grey.convert("RGB"), np.float64)
    coloured = (base * (1 - opacity) + inferno(strength) * opacity).round().astype(np.uint8)

    header, bar, gap = 44, 92, 8
    picture = Image.new("RGB", (2 * width + gap + bar, height + header), "black")
    picture.paste(grey.convert("RGB"), (0, header))
    picture.paste(Image.fromarray(coloured), (width + gap, header))
    scale = inferno(np.linspace(1, 0, height)[:, None].repeat(16, 1)).round().astype(np.uint8)
    picture.paste(Image.fromarray(scale), (2 * width + 2 * gap, header))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=15)
    title = f"{label}  p = {probability:.3f}"
    if threshold is not None:
        title += f"  (threshold {threshold:.3f}: {'yes' if probability >= threshold else 'no'})"
    draw.text((8, 3), title, fill="white", font=ImageFont.load_default(size=18))
    draw.text((8, 25), "right: fall of the log-odds when a place is hidden. Research, not a medical device.",
              fill="#aaaaaa", font=ImageFont.load_default(size=13))
    for value in (0, top / 2, top):
        y = header + (height - 1) * (1 - value / top)
        draw.text((2 * width + 2 * gap + 22, y), f"{value:.2f}", fill="white", font=font,
                  anchor="lm" if 0 < value < top else "lb" if value == 0 else "lt")
    return picture


def inferno(values):
    """Colours (..., 3) in 0..255 of values in [0, 1]."""
    at = np.linspace(0, 1, len(INFERNO))
    return np.stack([np.interp(values, at, INFERNO[:, channel]) for channel in range(3)], axis=-1)


def write_overlays(model, name, image, probability, folder):
    """Write one overlay per label as `folder`/`name`--<label>.png; gives their paths."""
    paths = []
    for i, heat in enumerate(occlusion(model, image)):
        label, threshold = model.labels[i], model.thresholds[i]
        path = folder / f"{name}--{label.replace(' ', '_').replace('/', '_')}.png"
        overlay(image, heat, label, float(probability[i]), threshold).save(path)
        paths.append(path)
    return paths
