"""Colors and line styles that the color-blind tell apart; names that fit into a figure."""

from typing import Any

# Okabe and Ito, "Color Universal Design" (2008), without black, and without yellow, which is faint
# on white.
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
STYLES = ("-", (0, (1, 1.2)), (0, (4, 1.5)), (0, (4, 1.5, 1, 1.5)))


def look(number: int) -> dict[str, Any]:
    """Color and line style of the curve of this number; 24 differ."""
    return {"color": OKABE_ITO[number % 6], "linestyle": STYLES[number // 6 % 4]}


def shortened(text: str, length: int = 40) -> str:
    """A name that fits into a figure or a terminal: so many characters, the last an ellipsis.

    A leading underscore, which would hide it from matplotlib's legends, gets a space in front.
    """
    if len(text) > length:
        text = text[:length - 1] + "…"
    return f" {text}" if text.startswith("_") else text
