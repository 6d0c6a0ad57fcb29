"""Draw a synthetic frontal radiograph, with findings and masks of where they are (NumPy alone).

A phantom adds up, along the beam, what soft tissue, bone and fluid absorb and takes away what air
lets through. It is no simulation and nobody's image: every picture carries the word PHANTOM.

Coordinates: x from -1 (the patient's right, on the viewer's left) to 1, y from -1 (top) to 1.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np

View = Literal["PA", "AP"]
PREVALENCE = {"Cardiomegaly": 0.30, "Pleural effusion": 0.30, "Pneumothorax": 0.18,
              "Consolidation": 0.22, "Nodule": 0.22}
FINDINGS = tuple(PREVALENCE)
RIB_SPACING = 0.155
# Of a pneumothorax: plain enough to be learned at 64 pixels.
FREE_AIR = 0.26
PLEURAL_LINE = 0.20

_LETTERS = {  # 5 x 7 dots, a row an int, the most significant of five bits on the left
    "P": (30, 17, 17, 30, 16, 16, 16), "H": (17, 17, 17, 31, 17, 17, 17),
    "A": (14, 17, 17, 31, 17, 17, 17), "N": (17, 25, 21, 19, 17, 17, 17),
    "T": (31, 4, 4, 4, 4, 4, 4), "O": (14, 17, 17, 17, 17, 17, 14),
    "M": (17, 27, 21, 21, 17, 17, 17), "R": (30, 17, 17, 30, 20, 18, 17),
}


def _step(distance: np.ndarray, softness: float) -> np.ndarray:
    """0 to 1 across a soft edge; `distance` is positive inside."""
    return 0.5 + 0.5 * np.tanh(np.clip(distance / softness, -8, 8))


def _ridge(distance: np.ndarray, width: float) -> np.ndarray:
    """A bell of the given half-width along a line."""
    return np.exp(-(distance / width) ** 2)


def _smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """Smooth noise with about `cells` bumps along a side, standard deviation about 1."""
    coarse = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    position = np.linspace(0, cells, size, endpoint=False)
    low = position.astype(int)
    part = (position % 1).astype(np.float32)  # of the way to the next cell
    rows = coarse[low] * (1 - part)[:, None] + coarse[low + 1] * part[:, None]
    return 1.5 * (rows[:, low] * (1 - part) + rows[:, low + 1] * part)


def _pixel_axis(size: int) -> np.ndarray:
    """The coordinates of pixel centers along an axis."""
    return (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1


ANATOMY = {  # from, to: what stays the same in all images of a patient
    "width": (0.70, 0.78),  # outer border of the lungs
    "apex": (-0.80, -0.74),  # their top
    "base": (0.44, 0.54),  # top of the right dome
    "heart": (0.82, 0.98),  # a normal heart's size
    "rib_shift": (0, RIB_SPACING),
    "rib_slope": (0.20, 0.30),
    "bone": (0.8, 1.15),
    "fat": (0.85, 1.15)}


class _Chest:
    """The grid and outlines that all layers share; one instance draws one image."""

    def __init__(self, size: int, anatomy: dict[str, float], rng: np.random.Generator,
                 view: View) -> None:
        self.size = size
        self.rng = rng
        self.anatomy = anatomy
        axis = _pixel_axis(size)
        tilt = rng.uniform(-0.03, 0.03)
        shift_x = rng.uniform(-0.04, 0.04)
        shift_y = rng.uniform(-0.04, 0.04)
        zoom = rng.uniform(0.96, 1.04)
        x = axis[None, :] / zoom - shift_x
        y = axis[:, None] / zoom - shift_y
        self.x = x + tilt * y
        self.y = y - tilt * x
        self.side = np.abs(self.x)  # distance from the midline
        self.breath = rng.uniform(-0.04, 0.03)
        if view == "AP":
            self.breath -= 0.05

        # The rib cage narrows toward the apex; the lungs fill it down to the domes.
        down = np.clip((self.y - anatomy["apex"]) / 0.9, 0, 1)
        self.outer = anatomy["width"] * np.sqrt(1 - (1 - down) ** 2.4) * (1 + 0.05 * self.y)
        self.cage = _step(self.outer - self.side, 0.012) * (self.y > anatomy["apex"])
        self.right = self.x < 0
        dome = anatomy["base"] + self.breath + 0.05 * (1 - self.right)
        self.dome = (dome + 0.55 * (self.side - 0.33) ** 2
                     + 0.9 * np.clip(self.side - 0.52, 0, None) ** 2)
        self.above = _step(self.dome - self.y, 0.012)
        inner = 0.11 + 0.05 * _ridge(self.y + 0.35, 0.35)
        self.lungs = self.cage * self.above * _step(self.side - inner, 0.02)

    def body(self) -> np.ndarray:
        """Soft tissue: trunk, shoulders and neck; nothing outside."""
        trunk = 0.96 - 0.05 * self.y + 0.08 * _step(-0.25 - self.y, 0.12)
        shoulder = 0.20 + 0.95 * np.clip((self.y + 0.98) / 0.30, 0, 1) ** 0.55
        inside = _step(np.minimum(trunk, shoulder) - self.side, 0.015)
        return inside * (0.40 + 0.18 * self.anatomy["fat"]
                         * np.sqrt(np.clip(1.02 - (self.side / 1.1) ** 2, 0, 1)))

    def mediastinum(self) -> np.ndarray:
        """Spine, great vessels, aortic knob, hila, and the windpipe, which is dark."""
        spine = 0.15 * _ridge(self.x, 0.11) * (1 + 0.10 * np.cos(self.y * 2 * np.pi / 0.17))
        vessels = 0.17 * _step(0.150 - self.side, 0.04) * _step(0.2 - self.y, 0.2)
        vessels *= _step(self.y + 0.85, 0.1)
        knob = 0.17 * _step(0.105 - np.hypot(self.x - 0.13, (self.y + 0.30) * 0.9), 0.015)
        hila = 0.14 * _ridge(np.hypot(self.side - 0.20, 0.7 * (self.y + 0.02 + 0.05 * self.x)), 0.1)
        trachea = 0.17 * _ridge(self.x + 0.01, 0.036) * _step(-0.22 - self.y, 0.04)
        bronchi = 0.06 * _ridge(self.y + 0.22 - 0.7 * self.side, 0.03)
        bronchi *= _step(0.16 - self.side, 0.03)
        return spine + np.maximum(vessels, knob) + hila - trachea - bronchi

    def bones(self) -> np.ndarray:
        """Ribs behind and in front, collar bones, humeral heads."""
        slope = self.anatomy["rib_slope"]
        out = np.clip((self.side - 0.08) / 0.7, 0, 1.2)
        back = self.y - self.anatomy["rib_shift"] - (slope * 1.5 * out ** 2 - 0.16 * out)
        front = self.y - self.anatomy["rib_shift"] - 0.05 - (0.16 - 0.42 * out + 0.1 * out ** 2)
        ribs = 0.105 * self._rib_profile(back, 0.24) * _step(out - 0.02, 0.03)
        ribs += 0.05 * self._rib_profile(front, 0.28) * _step(self.side - 0.34, 0.06)
        within = _step(self.outer + 0.035 - self.side, 0.012)
        within *= _step(self.y - self.anatomy["apex"] + 0.02, 0.02)
        ribs *= within * _step(0.72 - self.y, 0.06)
        line = self.y + 0.66 + 0.20 * (self.side - 0.05) - 0.035 * np.sin(self.side * 8)
        collar = 0.17 * _step(0.030 - np.abs(line), 0.008) * _step(0.80 - self.side, 0.02)
        rim = 0.75 + 0.25 * np.minimum(np.abs(line) / 0.02, 1)
        collar *= _step(self.side - 0.07, 0.015) * rim
        head = 0.16 * _step(0.15 - np.hypot(self.side - 0.98, self.y + 0.66), 0.02)
        return self.anatomy["bone"] * (ribs + collar + head)

    @staticmethod
    def _rib_profile(height: np.ndarray, half: float) -> np.ndarray:
        """Bars that repeat each rib spacing, brighter at their edges as cortical bone is."""
        phase = np.abs((height / RIB_SPACING) % 1 - 0.5)
        return _step(half - phase, 0.05) * (0.7 + 0.5 * _ridge(phase - half + 0.04, 0.07))

    def vessels(self) -> np.ndarray:
        """Lung markings that fan out from the hila, finer and fainter outwards."""
        dx = self.side - 0.17
        dy = self.y + 0.02
        radius = np.hypot(dx, dy)
        angle = np.arctan2(dy, dx) + np.where(self.right, 0.0, 7.0)
        angle = angle + 0.10 * np.sin(7 * radius + 2 * angle)
        markings = np.zeros((), np.float32)
        # How many branches a generation has, from and to which radius, and how dense.
        for count, near, far, depth in ((36, 0.08, 0.28, 0.13), (70, 0.20, 0.46, 0.09),
                                        (130, 0.34, 0.72, 0.06)):
            knots = np.linspace(-3.2, 10.2, 4 * count)
            noise = np.convolve(self.rng.standard_normal(4 * count), (0.3, 0.8, 0.3), "same")
            fan = np.interp(angle, knots, np.clip(noise, 0.4, None) - 0.4).astype(np.float32)
            band = _step(radius - near, 0.08) * _step(far - radius, 0.12)
            markings = markings + depth * fan * band
        return markings

    def heart(self, scale: float) -> tuple[np.ndarray, np.ndarray]:
        """The cardiac shadow and its mask; `scale` 1 is a cardiothoracic ratio of about 0.45."""
        low = self.anatomy["base"] + self.breath - 0.19
        turn_x = self.x - 0.13 * scale
        turn_y = self.y - low
        along = 0.80 * turn_x + 0.60 * turn_y
        across = -0.60 * turn_x + 0.80 * turn_y
        ventricle = 1 - np.hypot(along / (0.34 * scale), across / (0.25 * (0.4 + 0.6 * scale)))
        atrium = 1 - np.hypot((self.x + 0.06 * scale) / (0.17 * scale),
                              (self.y - low + 0.04) / 0.27)
        pulmonary = 0.9 - np.hypot((self.x - 0.07 * scale) / 0.13, (self.y - low + 0.26) / 0.20)
        # A smooth maximum, so that the chambers flow into one outline.
        shape = 0.07 * np.logaddexp(np.logaddexp(ventricle / 0.07, atrium / 0.07), pulmonary / 0.07)
        shadow = _step(shape - 0.02, 0.07)
        return 0.24 * shadow * (0.8 + 0.5 * np.clip(shape, 0, 0.6)), shape > 0.02


def _pick_spot(chest: _Chest, rng: np.random.Generator, right: bool, low: float, high: float,
               margin: float) -> tuple[float, float]:
    """A point (x, y) in a lung between two heights, away from its borders."""
    y = rng.uniform(low, high)
    row = np.abs(chest.y[:, chest.size // 2] - y).argmin()
    outer = float(chest.outer[row].mean()) - margin
    x = rng.uniform(0.24 + margin / 2, max(outer, 0.3 + margin / 2))
    if right:
        x = -x
    return x, y


def _effusion(chest: _Chest, rng: np.random.Generator, right: bool) -> np.ndarray:
    """Fluid in the costophrenic angle: dense, with a meniscus that climbs the chest wall."""
    depth = rng.uniform(0.20, 0.45)
    middle = chest.anatomy["base"] + chest.breath + 0.12 - depth
    level = middle - 1.6 * np.clip(chest.side - 0.40, 0, None) ** 2
    fluid = _step(chest.y - level, 0.03) * chest.cage * _step(chest.side - 0.10, 0.03)
    return fluid * (chest.right == right) * _step(chest.dome + 0.25 - chest.y, 0.05)


def _pneumothorax(chest: _Chest, rng: np.random.Generator,
                  right: bool) -> tuple[np.ndarray, np.ndarray]:
    """Air between chest wall and lung, and the pleural line.

    It is widest at the apex and along the side, and has no markings in it.
    """
    gap = rng.uniform(0.20, 0.32)
    retreat = gap * (0.6 + 0.9 * np.clip(-(chest.y + 0.1), 0, 1))
    edge = chest.outer - retreat - chest.side
    top = chest.y - chest.anatomy["apex"] - 1.3 * gap
    pleura = -0.04 * np.logaddexp(-edge / 0.04, -top / 0.04)  # a minimum without a corner
    here = chest.lungs * (chest.right == right)
    return here * _step(-pleura, 0.01), here * _ridge(pleura, 0.010) * (chest.y < 0.35)


def _consolidation(chest: _Chest, rng: np.random.Generator, right: bool) -> np.ndarray:
    """A cloud in a lung, from 0 to 1."""
    x, y = _pick_spot(chest, rng, right, -0.35, 0.20, 0.18)
    width = rng.uniform(0.18, 0.28)
    height = rng.uniform(0.18, 0.28)
    cloud = 1 - np.hypot((chest.x - x) / width, (chest.y - y) / height)
    cloud = cloud + 0.22 * _smooth_noise(rng, chest.size, 14)
    cloud = cloud + 0.12 * _smooth_noise(rng, chest.size, 40)
    return _step(cloud, 0.18) * chest.lungs


def _nodule(chest: _Chest, rng: np.random.Generator, right: bool) -> np.ndarray:
    """The square of how thick a ball in a lung is, 1 in its center and 0 outside."""
    radius = rng.uniform(0.06, 0.10)
    x, y = _pick_spot(chest, rng, right, -0.50, 0.25, 0.12)
    return np.clip(1 - ((chest.x - x) ** 2 + (chest.y - y) ** 2) / radius**2, 0, 1)


def render(findings: Iterable[str], seed: int, *, size: int = 256, patient: int = 0,
           view: View = "PA") -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Draw one frontal radiograph.

    `findings` are of `FINDINGS`; empty, or "No finding", is a healthy chest. `patient` seeds the
    anatomy, `seed` positioning, noise and where the findings sit: the same arguments give the same
    bytes. AP has a wider heart, higher diaphragm and more noise, as at the bedside. Returns the
    image (size, size), float32 in [0, 1], and for each finding the mask of where it is.
    """
    unknown = set(findings) - {*FINDINGS, "No finding"}
    if unknown:
        raise ValueError(f"findings: the phantom cannot draw {', '.join(sorted(unknown))}")
    if view not in ("PA", "AP"):
        raise ValueError(f"view: expected PA or AP, found {view!r}")
    fixed = np.random.default_rng((7, patient))
    anatomy = {name: fixed.uniform(*between) for name, between in ANATOMY.items()}
    rng = np.random.default_rng((11, patient, seed))
    chest = _Chest(size, anatomy, rng, view)

    air = 0.36 * chest.lungs
    markings = chest.vessels()
    masks = {}
    heart_scale = anatomy["heart"]
    if view == "AP":
        heart_scale *= 1.07
    if "Cardiomegaly" in findings:
        heart_scale *= rng.uniform(1.50, 1.70)
    heart, heart_mask = chest.heart(heart_scale)
    if "Cardiomegaly" in findings:
        masks["Cardiomegaly"] = heart_mask

    extra = np.zeros((size, size), np.float32)
    is_right = {name: bool(rng.integers(2)) for name in FINDINGS}
    if "Pneumothorax" in findings:
        if "Pleural effusion" in findings:
            is_right["Pneumothorax"] = not is_right["Pleural effusion"]
        rim, pleura = _pneumothorax(chest, rng, is_right["Pneumothorax"])
        air += FREE_AIR * rim
        markings = markings * (1 - rim)
        extra += PLEURAL_LINE * pleura
        masks["Pneumothorax"] = rim > 0.5
    if "Pleural effusion" in findings:
        fluid = _effusion(chest, rng, is_right["Pleural effusion"])
        air *= 1 - fluid
        extra += 0.10 * fluid
        masks["Pleural effusion"] = (fluid > 0.5) & (chest.cage > 0.5)
    if "Consolidation" in findings:
        cloud = _consolidation(chest, rng, is_right["Consolidation"])
        air *= 1 - 0.72 * cloud
        masks["Consolidation"] = cloud > 0.5
    if "Nodule" in findings:
        ball = _nodule(chest, rng, is_right["Nodule"])
        extra += 0.30 * np.sqrt(ball)
        masks["Nodule"] = ball > 0

    belly = 0.10 * (1 - chest.above) * _step(chest.outer - chest.side, 0.05)
    belly *= np.where(chest.right, 1.2, 0.8)
    bubble = 0.16 * _step(0.1 - np.hypot(0.8 * (chest.x - 0.33), chest.y - 0.72), 0.02)
    dose = chest.body() + chest.mediastinum() + chest.bones() + heart + belly
    dose -= bubble * (1 - chest.above)
    beside_heart = 1 - 0.85 * _step(heart - 0.10, 0.05)
    dose += extra + (markings * chest.lungs - air) * beside_heart
    dose += 0.012 * _smooth_noise(rng, size, 24)
    noise = 0.022 if view == "AP" else 0.014
    dose += noise * rng.standard_normal((size, size), dtype=np.float32)
    absorbed = 1.22 * (1 - np.exp(-1.1 * np.clip(dose - 0.02, 0, None)))
    image = np.clip(absorbed, 0, 1).astype(np.float32)
    _stamp(image, "R", 0.05, 0.06, 3)
    _stamp(image, "PHANTOM", 0.05, 0.94, 1)
    return image, masks


def render_lateral(seed: int, *, size: int = 256, patient: int = 0) -> np.ndarray:
    """A crude lateral view, which completes a tree of files; arguments and image as in `render`."""
    rng = np.random.default_rng((13, patient, seed))
    axis = _pixel_axis(size)
    x = axis[None, :]
    y = axis[:, None]
    dose = 0.5 * _step(0.78 - np.hypot(x / 1.0, y / 1.6), 0.03)
    lungs = 0.28 * _step(0.52 - np.hypot(x / 1.1, (y + 0.05) / 1.3), 0.04)
    dose -= lungs * _step(0.45 - y - 0.3 * x, 0.03)
    dose += 0.18 * _ridge(x - 0.55 + 0.15 * y ** 2, 0.09) * (1 + 0.2 * np.cos(y * 2 * np.pi / 0.17))
    dose += 0.22 * _step(0.28 - np.hypot(x + 0.25, (y - 0.22) / 1.1), 0.04)
    dose += 0.014 * rng.standard_normal((size, size), dtype=np.float32)
    image = np.clip(1.1 * dose, 0, 1).astype(np.float32)
    _stamp(image, "PHANTOM", 0.05, 0.94, 1)
    return image


def draw_findings(rng: np.random.Generator) -> list[str]:
    """A patient's findings, each by its prevalence."""
    return [name for name, share in PREVALENCE.items() if rng.random() < share]


def _stamp(image: np.ndarray, text: str, x: float, y: float, dot: int) -> None:
    """Write `text` in white from the fractions x and y on, each dot `dot` 256ths of the width."""
    dot = max(1, round(dot * len(image) / 256))
    dots = np.zeros((7, 6 * len(text)), bool)  # a letter has a free column before it
    for i, letter in enumerate(text):
        for row, bits in enumerate(_LETTERS[letter]):
            for column in range(5):
                dots[row, 6 * i + 1 + column] = bits >> (4 - column) & 1
    dots = np.kron(dots, np.ones((dot, dot), bool))
    top = int(y * len(image))
    left = int(x * len(image))
    patch = image[top : top + dots.shape[0], left : left + dots.shape[1]]
    patch[dots[: patch.shape[0], : patch.shape[1]]] = 0.95
