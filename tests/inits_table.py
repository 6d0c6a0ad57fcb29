"""The table of docs/inits.md from `models.init_catalog`: python tests/inits_table.py writes it."""

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
from models.init_catalog import IMAGENET_MEAN, INITS  # noqa: E402

PAGE = REPOSITORY / "docs" / "inits.md"
POSITIONS = {"offset": "offset 0.1", "antialias": "antialiased", None: "rotary"}
SIZES = {"vit_tiny": "T", "vit_small": "S", "vit_base": "B", "vit_large": "L"}
MARKS = "<!-- inits -->\n", "<!-- /inits -->"


def numbers(values):
    return " ".join(f"{value:g}" for value in dict.fromkeys(values))


def table():
    rows = [("`--init`", "weights", "sizes", "patch", "license", "mean; SD", "px, resized",
             "pretrained on")]
    for init in INITS.values():
        file = init.files.get("vit_base")
        known = file and (f"[{file.sha256[:8]}]" if file.sha256 else "[first use]")
        rows.append((
            f"`{init.name}`",
            f"{init.title}, {init.reference}" + (f" {known}({file.url})" if file else ""),
            " ".join(SIZES[arch] for arch in init.files) or "any",
            str(init.shape.get("patch_size", 16)) if init.files else "any",
            (f"[{init.license}]({init.gated}), gated" if init.gated else init.license) or "–",
            "ImageNet's" if init.mean == IMAGENET_MEAN else f"{numbers(init.mean)}; "
            f"{numbers(init.std)}" if init.mean else "as trained",
            f"{init.native}, {POSITIONS[init.resize]}" if init.native else "–",
            ", ".join(init.pretrained_on) or "nothing"))
    rows.insert(1, ("---",) * len(rows[0]))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def written(text):
    """The page with its table made anew."""
    begin, end = (re.escape(mark) for mark in MARKS)
    return re.sub(f"({begin}).*?({end})", lambda m: m[1] + table() + m[2], text, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
