"""Adjusting the p-values of a declared family of tests."""

import numpy as np
import numpy.typing as npt

from stats.intervals import normal_deviate, t_test


def benjamini_hochberg(p: npt.ArrayLike) -> np.ndarray:
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
    for entry in np.flatnonzero((p < 0) | (p > 1)):
        raise ValueError(f"p: entry {entry}: expected a number in [0, 1], found {p[entry]}")
    tested = np.flatnonzero(~np.isnan(p))
    ascending = tested[np.argsort(p[tested])]
    scaled = p[ascending] * len(tested) / np.arange(1, len(tested) + 1)
    adjusted = np.full(len(p), np.nan)
    adjusted[ascending] = np.minimum(1, np.minimum.accumulate(scaled[::-1])[::-1])
    return adjusted


def max_t(p: npt.ArrayLike, statistic: npt.ArrayLike, replicates: np.ndarray,
          units: npt.ArrayLike | None = None) -> np.ndarray:
    """Adjust p-values for the chance of any false rejection, by the replicates' joint distribution.

    Westfall and Young, "Resampling-Based Multiple Testing" (1993), 2.5, step-down: the adjusted p
    is the share of replicates in which the largest of the |t| still in the family reaches the
    observed one. It is kept between the p-value itself and Bonferroni's m p.

    Parameters
    ----------
    p : (m,) array-like
        Two-sided; NaN where a test could not be made.
    statistic : (m,) array-like
        |difference| over its standard error.
    replicates : (B, m) array
        The differences, all of the same resamples.
    units : (m,) array-like, optional
        How many units that are drawn the rarer class of each label has. A standard error from few
        of them is itself uncertain, which replicates do not show: t is then taken for Student's
        with one degree of freedom less than there are, and p is that of this t at the least.

    Returns
    -------
    (m,) float64 array
        NaN kept as NaN.
    """
    p, statistic = np.asarray(p, dtype=np.float64), np.asarray(statistic, dtype=np.float64)
    if units is not None:
        students = t_test(statistic, np.maximum(np.asarray(units, float) - 1, 1))
        p = np.where(np.isnan(p), np.nan, np.fmax(p, students))
        statistic = normal_deviate(students)
    adjusted, tested = np.full(len(p), np.nan), np.flatnonzero(~np.isnan(p))
    largest_first = tested[np.argsort(-statistic[tested], kind="stable")]
    differences = replicates[:, largest_first]
    with np.errstate(invalid="ignore", divide="ignore"):
        centered = np.abs(differences - np.nanmean(differences, axis=0))
        null = np.nan_to_num(centered / np.nanstd(differences, axis=0))
    # the largest of each test and all after it
    largest = np.maximum.accumulate(null[:, ::-1], axis=1)[:, ::-1]
    reached = (largest >= statistic[largest_first]).sum(axis=0)
    p = p[largest_first]
    joint = np.maximum.accumulate((reached + 1) / (len(differences) + 1))
    adjusted[largest_first] = np.clip(joint, p, np.minimum(1, len(tested) * p))
    return adjusted
