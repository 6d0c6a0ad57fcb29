"""Make the README's figure from what its demo left: python docs/figures/make.py

Reads reports/forest.png and a sheet of maps/ in the working folder, and writes front.png beside
this file.
"""

import sys
from pathlib import Path

from PIL import Image

HEIGHT, WIDTH, GAP = 300, 1400, 20  # pixels


def main():
    """Set a map beside the forest plot; returns the exit code."""
    sheets, forest = sorted(Path("maps").glob("*.png"))[-1:], Path("reports/forest.png")
    if not sheets or not forest.is_file():
        print("make.py: error: no maps/*.png or reports/forest.png here; run the README's demo "
              "first", file=sys.stderr)
        return 2
    sheet = Image.open(sheets[0]).convert("RGB")
    rows = max(1, round(sheet.height / (0.53 * sheet.width)))  # a label each; the first is shown
    sheet = sheet.crop((0, 0, sheet.width, sheet.height // rows))
    sheet.thumbnail((WIDTH * 0.42, HEIGHT), Image.Resampling.LANCZOS)
    plot = Image.open(forest).convert("RGB")
    plot.thumbnail((WIDTH - sheet.width - GAP, HEIGHT), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (WIDTH, HEIGHT), "white")
    page.paste(sheet, (0, (HEIGHT - sheet.height) // 2))
    page.paste(plot, (sheet.width + GAP, (HEIGHT - plot.height) // 2))
    page.quantize(128).save(Path(__file__).with_name("front.png"), optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
