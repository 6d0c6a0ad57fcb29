"""docs/options.md from `models.settings`: python tests/options_table.py writes it."""

import sys
import typing
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
from data import CORPORA  # noqa: E402
from models.settings import (  # noqa: E402
    GROUPS,
    Config,
    ProbeConfig,
    defaults_of,
    settings_of,
)

PAGE = REPOSITORY / "docs" / "options.md"
HEAD = """\
# Options of train.py (generated)

Written by `python tests/options_table.py` from [`models/settings.py`](../models/settings.py), for
looking up what an option does: what `python train.py --help-all` prints. `--help` shows those in
bold, which most runs need. `pretrain_mimic.py` takes the same and `--target`, `probe.py` those
marked °.
"""


def default_text(default):
    if default is None or default is False:
        return "–"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def option_text(name, known, hint):
    words = "--" + name.replace("_", "-")
    if hint == bool | None:
        words += f"`, `--no-{name.replace('_', '-')}"
    text = f"`{words}`"
    if known.is_basic:
        text = f"**{text}**"
    if name in settings_of(ProbeConfig):
        text += " °"
    return text


def rows_of(group):
    hints, defaults = typing.get_type_hints(Config), defaults_of(Config)
    for name, known in settings_of(Config).items():
        if known.group != group:
            continue
        choices = tuple(CORPORA) if name == "data" else known.choices
        does = known.help.replace("|", "\\|").replace("<", "&lt;")
        if choices:
            does += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        yield option_text(name, known, hints[name]), default_text(defaults[name]), does


def page():
    """The whole page."""
    parts = [HEAD]
    for group, title in GROUPS.items():
        rows = "".join(f"| {' | '.join(row)} |\n" for row in rows_of(group))
        parts.append(f"\n## {title[0].upper()}{title[1:]}\n\n| option | default | what it does |\n"
                     f"|---|---|---|\n{rows}")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
