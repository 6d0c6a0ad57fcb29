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
        of them is itself uncertain, which replicates do not show: the statistic is then taken for
        Student's t with one degree of freedom less than there are, and p is that of this t at the
        least.

    Returns
    -------
    (m,) float64 array
        NaN kept as NaN.

    Notes
    -----
    Westfall and Young, "Resampling-Based Multiple Testing" (1993), 2.5, step-down. Replicates less
    their mean, over their SD, are draws of the statistics under the null hypothesis of no
    difference anywhere, and keep how these hang together. The tests leave the family one by one,
    that of the largest statistic first. The adjusted p of each is the share of replicates in which
    the largest of all statistics still in the family reaches the observed one, and no less than
    that of a test that left before. It is kept between the p-value itself and Bonferroni's m p.
    """
    p, statistic = np.asarray(p, dtype=np.float64), np.asarray(statistic, dtype=np.float64)
    if units is not None:
        df = np.maximum(np.asarray(units, float) - 1, 1)
        p_of_student = t_test(statistic, df)
        p = np.where(np.isnan(p), np.nan, np.fmax(p, p_of_student))
        statistic = normal_deviate(p_of_student)  # as the replicates' are, on the normal's scale

    tested = np.flatnonzero(~np.isnan(p))
    by_statistic = tested[np.argsort(-statistic[tested], kind="stable")]  # the largest first
    p, statistic = p[by_statistic], statistic[by_statistic]
    differences = replicates[:, by_statistic]

    with np.errstate(invalid="ignore", divide="ignore"):
        deviations = np.abs(differences - np.nanmean(differences, axis=0))
        null_statistics = np.nan_to_num(deviations / np.nanstd(differences, axis=0))  # (B, tested)
    # In each replicate the largest statistic of a test and of all that leave the family after it.
    largest_left = np.maximum.accumulate(null_statistics[:, ::-1], axis=1)[:, ::-1]
    times_reached = (largest_left >= statistic).sum(axis=0)
    p_of_step = (times_reached + 1) / (len(differences) + 1)
    p_joint = np.maximum.accumulate(p_of_step)

    adjusted = np.full(replicates.shape[1], np.nan)
    adjusted[by_statistic] = np.clip(p_joint, p, np.minimum(1, len(tested) * p))
    return adjusted
