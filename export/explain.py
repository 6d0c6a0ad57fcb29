"""Where the model looked: hide each part of a radiograph and see which label's log-odds fall.

Occlusion (Zeiler and Fergus 2014, arXiv:1311.2901) needs the exported file alone. Each part is
hidden twice: at the radiograph's mean level, which hides air that should not be there, and at its
dark level, which hides what is too dense. benchmarks/explain.py has the evidence.
"""

from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from data.console import printable
from data.files import atomic_write
from data.preprocess import resize
from export.batch import Result
from export.runtime import Predictor
from export.verify import log_odds

WINDOW = 1 / 6  # side of what is hidden, in parts of the image's side
STEP = 0.5  # of a window
COUNT = round(1 / (WINDOW * STEP)) + 1  # windows along a side
INFERENCES = 2 * COUNT ** 2 + 1
DARK = 5  # percentile of the intensities
SIDE = 640  # of the radiograph in a picture, the longer one, pixels
HEADER, GAP, BAR = 64, 8, 92  # pixels: height above the radiograph, widths between and of the scale
CANVAS, SCALE = 640, 160  # least width and least height of the scale, so that the text fits
FAINT = 0.25  # log-odds; the color scale never ends below, so that noise is not blown up

# matplotlib's inferno at sixteenths, linear between
INFERNO = np.frombuffer(bytes.fromhex(
    "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d04545 e35933 f1711f f98c0a "
    "fcaa0f f9c932 f2e865 fcffa4"), np.uint8).reshape(-1, 3)


def occlusion(model: Predictor, image: np.ndarray, batch_size: int = 8) -> np.ndarray:
    """How much of each label's log-odds hangs on each place of a radiograph.

    From a Predictor and raw gray (H, W) to (L, S, S) float32, S the model's image size: the fall of
    the log-odds, before a calibration, where the image is hidden, at least 0; a mean over the two
    levels and over the windows that cover a place.
    """
    size = model.metadata["image_size"]
    small = resize(model.check(image), size)  # the graph's own resize then does nothing
    windows = grid(size)  # (n, S, S)
    hidden = []
    for level in (small.mean(), np.percentile(small, DARK)):
        for window in windows:
            hidden.append(small + window * (level - small))
    odds = log_odds(model.predict([small, *hidden], batch_size), 1e-6)
    slopes = np.array([one["slope"] for one in model.metadata["calibration"]])
    fall = np.maximum(odds[0] - odds[1:], 0) / slopes
    fall = fall.reshape(2, len(windows), -1).mean(0)  # (n, L)
    weights = windows.reshape(len(windows), -1)
    return (fall.T @ weights / weights.sum(0)).reshape(-1, size, size).astype(np.float32)


def grid(size: int) -> np.ndarray:
    """Soft windows (n, size, size) of values 0 to 1: bells of the width `WINDOW`, on a grid."""
    axis = (np.arange(size) + 0.5) / size
    distance = (axis - np.linspace(0, 1, COUNT)[:, None]) / (WINDOW / 2)
    bells = np.exp(-0.5 * distance ** 2).astype(np.float32)
    return (bells[:, None, :, None] * bells[None, :, None, :]).reshape(-1, size, size)


def overlay(image: np.ndarray, heat: np.ndarray, name: str, label: str, probability: float,
            threshold: float | None, side: int = SIDE) -> Image.Image:
    """A picture of one label's map (S, S) of `occlusion` on a radiograph (H, W), with a scale."""
    height, width = (max(1, round(n * side / max(image.shape))) for n in image.shape)
    low, high = np.percentile(image, (0.5, 99.5))
    gray = (np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)
    gray = Image.fromarray(gray).resize((width, height), Image.Resampling.LANCZOS).convert("RGB")
    is_faint = heat.max() < FAINT
    top = max(float(heat.max()), FAINT)
    heat_map = Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(heat_map) / top, 0, 1)
    if is_faint:
        strength = np.zeros_like(strength)

    # from left to right: the radiograph, the same with its map, the scale
    right, scale, length = width + GAP, 2 * (width + GAP), max(height, SCALE)
    picture = Image.new("RGB", (max(scale + BAR, CANVAS), HEADER + length), "black")
    picture.paste(gray, (0, HEADER))
    picture.paste(outlined(blend(np.asarray(gray), strength), strength > 0.5), (right, HEADER))
    steps = np.linspace(1, 0, length)[:, None].repeat(16, 1)
    picture.paste(blend(np.full((length, 16, 3), 128), steps), (scale, HEADER))  # as on mid-gray

    verdict = ""
    if threshold is not None:
        answer = "yes" if probability >= threshold else "no"
        verdict = f"  (threshold {threshold:.3f}: {answer})"
    write_line(picture, 3, f"{label}  p = {probability:.3f}{verdict}", 18, "white")
    write_line(picture, 26, name, 13, "white")
    write_line(picture, 44, "right: fall of the log-odds when a place is hidden. Research, not a "
               "medical device.", 13, "#aaaaaa")
    draw = ImageDraw.Draw(picture)
    if is_faint:
        middle, font = (right + width / 2, HEADER + height / 2), ImageFont.load_default(14)
        text = shortened(f"nowhere over {heat.max():.2g}: nothing to show", font, width)
        draw.rectangle(draw.textbbox(middle, text, font, anchor="mm"), fill="black")
        draw.text(middle, text, font=font, fill="white", anchor="mm")
    font = ImageFont.load_default(15)
    for value, anchor in ((0, "lb"), (top / 2, "lm"), (top, "lt")):
        y = HEADER + (length - 1) * (1 - value / top)
        draw.text((scale + 22, y), f"{value:.3g}", fill="white", font=font, anchor=anchor)
    return picture


def write_line(picture: Image.Image, y: int, text: str, size: int, color: str) -> None:
    """Write a line of the header, shortened to the picture's width."""
    font = ImageFont.load_default(size)
    text = shortened(text, font, picture.width - 16)
    ImageDraw.Draw(picture).text((8, y), text, fill=color, font=font)


def blend(base: np.ndarray, strength: np.ndarray) -> Image.Image:
    """The colors of strengths (H, W) over a picture (H, W, 3); weak places show it untouched."""
    opacity = 0.75 * np.clip(strength * 2 - 0.3, 0, 1)[..., None]
    blended = base * (1 - opacity) + inferno(strength) * opacity
    return Image.fromarray(blended.round().astype(np.uint8))


def outlined(picture: Image.Image, mask: np.ndarray) -> Image.Image:
    """A picture with a white and black line, seen on bone and on lung, around a mask (H, W)."""
    outer = Image.fromarray(mask.astype(np.uint8) * 255)
    for color in ("white", "black"):
        inner = outer.filter(ImageFilter.MinFilter(3))  # less one pixel all around
        picture.paste(color, mask=ImageChops.subtract(outer, inner))
        outer = inner
    return picture


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
              width: float) -> str:
    """As much of a text as fits, with dots for the rest; what cannot be printed is escaped."""
    text = printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."


def inferno(values: np.ndarray) -> np.ndarray:
    """Colors (..., 3) in 0..255 of values in [0, 1]."""
    positions = np.linspace(0, 1, len(INFERNO))
    channels = [np.interp(values, positions, channel) for channel in INFERNO.T]
    return np.stack(channels, axis=-1)


def write_sheet(model: Predictor, result: Result, folder: Path, taken: set[str],
                all_labels: bool = False) -> Path | None:
    """Write the overlays of a result, one below the other, as a picture; gives its path.

    Of the labels that reach their threshold, or of all; None where there is none. `taken` holds the
    names of this run's pictures: one more of a name gets a number.
    """
    if result.probability is None:
        return None
    positive = model.predict_labels(result.probability)
    shown = [number for number, yes in enumerate(positive) if yes or all_labels]
    if not shown:
        return None
    image, _ = model.read(result.path, any_modality=True)
    source, heats = Path(result.path), occlusion(model, image)
    panels = []
    for number in shown:
        panel = overlay(image, heats[number], source.name, model.labels[number],
                        float(result.probability[number]), model.thresholds[number])
        panels.append(np.asarray(panel))
    name = source.stem
    for number in count(2):
        if name.casefold() not in taken:
            break
        name = f"{source.stem}-{number}"
    taken.add(name.casefold())
    with atomic_write(folder / f"{name}.png") as file:
        Image.fromarray(np.vstack(panels)).save(file, format="PNG")
    return folder / f"{name}.png"
