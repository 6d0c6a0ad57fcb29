"""The paper's own results, from `paper_results.toml`, to print next to ours.

Tayebi Arasteh et al., "Enhancing diagnostic deep learning via self-supervised pretraining on
large-scale, unlabeled non-medical images", Eur Radiol Exp 8:10 (2024), Tables 4 and 5.
"""

import tomllib
from pathlib import Path

# {(corpus, init): {metric, label or "mean": (mean, sd)}}, in percent
TABLE4, TABLE5 = (
    {(corpus, init): {name: tuple(cell) for name, cell in cells.items()}
     for corpus, inits in table.items() for init, cells in inits.items()}
    for table in tomllib.loads(Path(__file__).with_suffix(".toml").read_text()).values())
