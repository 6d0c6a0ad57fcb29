"""Statistics for multi-label classifiers, on anybody's predictions: pure NumPy."""

from stats.bootstrap import (METRICS, Bootstrap, PairedBootstrap, bootstrap, bootstrap_models, compare,
                             paired_bootstrap, p_values)
from stats.delong import DeLong, delong_test
from stats.fdr import benjamini_hochberg
from stats.roc import (OperatingPoint, RocCurve, auroc, one_class, operating_point, roc_curve, youden)

__all__ = ["METRICS", "Bootstrap", "DeLong", "OperatingPoint", "PairedBootstrap", "RocCurve", "auroc",
           "benjamini_hochberg", "bootstrap", "bootstrap_models", "compare", "delong_test", "one_class",
           "operating_point", "p_values", "paired_bootstrap", "roc_curve", "youden"]
