"""Adjusting the p-values of a declared family of tests."""

import numpy as np


def benjamini_hochberg(p):
    """Adjust p-values: rejecting those up to q keeps the expected share of false rejections at q.

    Benjamini and Hochberg, "Controlling the false discovery rate", J R Stat Soc B 57 (1995): the
    adjusted p of the i-th smallest of m is the least p_j m / j over j >= i, at most 1.

    Parameters
    ----------
    p : (m,) array-like
        The whole family. NaN is a test that could not be made; it does not count toward m.

    Returns
    -------
    (m,) float64 array
        NaN kept as NaN. A p-value outside [0, 1] raises ValueError.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    array([0.03, 0.04, 0.04])
    """
    p = np.asarray(p, dtype=np.float64)
    if p.ndim != 1:
        raise ValueError(f"p: expected shape (m,), found {p.shape}")
    for at in np.flatnonzero((p < 0) | (p > 1)):
        raise ValueError(f"p: entry {at}: expected a number in [0, 1], found {p[at]}")
    tested = np.flatnonzero(~np.isnan(p))
    ascending = tested[np.argsort(p[tested])]
    scaled = p[ascending] * len(tested) / np.arange(1, len(tested) + 1)
    adjusted = np.full(len(p), np.nan)
    adjusted[ascending] = np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def max_t(p, statistic, replicates):
    """Adjust p-values for the chance of any false rejection, by the replicates' joint distribution.

    Westfall and Young, "Resampling-Based Multiple Testing" (1993), 2.5, step-down: the adjusted p
    is the share of replicates in which the largest of the |t| still in the family reaches the
    observed one. It is kept between the p-value itself and Bonferroni's m p.

    `p` (m,) are two-sided, NaN where a test could not be made; `statistic` (m,) is |difference|
    over its standard error, and `replicates` (B, m) the differences, all of the same resamples.
    """
    p, statistic = np.asarray(p, dtype=np.float64), np.asarray(statistic)
    adjusted, tested = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    largest_first = tested[np.argsort(-statistic[tested], kind="stable")]
    x = replicates[:, largest_first]
    with np.errstate(invalid="ignore", divide="ignore"):
        null = np.abs(x - np.nanmean(x, axis=0)) / np.nanstd(x, axis=0)
    null = np.nan_to_num(null)[:, ::-1]
    highest = np.maximum.accumulate(null, axis=1)[:, ::-1]  # of this test and all after it
    reached = (highest >= statistic[largest_first]).sum(axis=0)
    p = p[largest_first]
    joint = np.maximum.accumulate((reached + 1) / (len(x) + 1))
    adjusted[largest_first] = np.clip(joint, p, np.minimum(1, len(tested) * p))
    return adjusted
