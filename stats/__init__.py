"""Statistics for multi-label classifiers, on anybody's predictions: pure NumPy.

In the order of their use: `predictions` (files), `grouping` (which are compared with which),
`roc`, `calibration`, `metrics` (the table of them), `resampling` and `bootstrap`, `intervals`,
`delong`, `runs`, `multiple_testing`; `results` has the types of what is found; `study` puts one
corpus's numbers together, beside the paper's, `subgroups` those of groups of patients; `report/`
presents them. `curves` draws a training run's log.
"""

from stats.bootstrap import (
    Bootstrap,
    PairedBootstrap,
    bootstrap,
    bootstrap_models,
    compare,
    p_values,
    paired_bootstrap,
)
from stats.delong import DeLong, delong_test
from stats.metrics import DEFAULT_METRICS, METRICS, Metric
from stats.multiple_testing import benjamini_hochberg
from stats.roc import (
    OperatingPoint,
    RocCurve,
    auroc,
    operating_point,
    roc_curve,
    undefined_reasons,
    youden,
)

__all__ = [
    "DEFAULT_METRICS", "METRICS", "Bootstrap", "DeLong", "Metric", "OperatingPoint",
    "PairedBootstrap", "RocCurve", "auroc", "benjamini_hochberg", "bootstrap", "bootstrap_models",
    "compare", "delong_test", "operating_point", "p_values", "paired_bootstrap", "roc_curve",
    "undefined_reasons", "youden"]
