"""Make the figures of README and docs from what was evaluated in the working folder.

    python docs/figures/make.py                   # front.png, after demo.sh, in its folder demo/
    python docs/figures/make.py learning-curves   # the last step of docs/figures/learning-curves.sh

Reads reports/ and maps/ there, and writes beside this file.
"""

import sys
from pathlib import Path

from PIL import Image

HEIGHT, WIDTH, GAP = 300, 1400, 20  # pixels
CURVES_WIDTH = 720
HERE = Path(__file__).parent


def make_front() -> None:
    """Set a map beside the forest plot."""
    sheets, forest = sorted(Path("maps").glob("*.png"))[-1:], Path("reports/forest.png")
    if not sheets or not forest.is_file():
        raise FileNotFoundError("no maps/*.png or reports/forest.png here; run the README's demo "
                                "first")
    sheet = Image.open(sheets[0]).convert("RGB")
    rows = max(1, round(sheet.height / (0.53 * sheet.width)))  # a label each; the first is shown
    sheet = sheet.crop((0, 0, sheet.width, sheet.height // rows))
    sheet.thumbnail((WIDTH * 0.42, HEIGHT), Image.Resampling.LANCZOS)
    plot = Image.open(forest).convert("RGB")
    plot.thumbnail((WIDTH - sheet.width - GAP, HEIGHT), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    page.paste(sheet, (0, (HEIGHT - sheet.height) // 2))
    page.paste(plot, (sheet.width + GAP, (HEIGHT - plot.height) // 2))
    page.quantize(128).save(HERE / "front.png", optimize=True)


def make_learning_curves() -> None:
    """Shrink the report's figure to the width of a page."""
    curves = Path("reports/learning-curves.png")
    if not curves.is_file():
        raise FileNotFoundError(f"no {curves} here; run docs/figures/learning-curves.sh first")
    page = Image.open(curves).convert("RGB")
    page.thumbnail((CURVES_WIDTH, page.height), Image.Resampling.LANCZOS)
    page.quantize(128).save(HERE / "learning-curves.png", optimize=True)


def main(names: list[str]) -> int:
    """Make the figure of that name, or the README's; returns the exit code."""
    makers = {"front": make_front, "learning-curves": make_learning_curves}
    name = names[0] if names else "front"
    try:
        if name not in makers:
            raise ValueError(f"{name}: expected one of {', '.join(makers)}")
        makers[name]()
    except (FileNotFoundError, ValueError) as error:
        print(f"make.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
