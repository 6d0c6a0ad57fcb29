"""One difference over several corpora: random-effects meta-analysis and regression, NumPy alone.

The difference of two inits on corpus k is d_k, with the standard error s_k that patients (and
training runs) give it. Corpora differ from each other beyond that, by hospital, labels and size:

    d_k = mu + u_k + e_k,   Var(u_k) = tau^2,   Var(e_k) = s_k^2

`pool` estimates mu, the mean difference over hospitals like these, and says where the difference of
a new hospital would lie; `regress` lets mu depend on one covariate. Both take

- tau^2 by Paule and Mandel, "Consensus values and weighting factors", J Res Natl Bur Stand 87
  (1982): the value for which the weighted squares add up to their degrees of freedom. DerSimonian
  and Kacker (2007) and Veroniki et al., Res Synth Methods 7 (2016), recommend it.
- Student's t with K - 1 degrees of freedom and the scaled standard error of Hartung and Knapp,
  Stat Med 20 (2001), and of Sidik and Jonkman, Stat Med 21 (2002), which do not take tau^2 for
  known as a normal interval does.
- Knapp and Hartung's modification, Stat Med 22 (2003), which never scales below 1: where the
  observed spread is by chance below what the s_k let expect, their standard error would shrink, in
  the extreme to 0, and the interval would be narrower than that of a fixed effect.

docs/statistics.md has type I errors and coverages, and the worked example of the paper's tables.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stats.intervals import t_quantile, t_test

MIN_CORPORA = 3  # with two, t has one degree of freedom: an interval 13 standard errors wide


@dataclass(frozen=True)
class PooledDifference:
    """One difference over K corpora; all in the unit of the differences that were pooled."""

    estimate: float  # mu, the mean over hospitals like these
    standard_error: float
    interval: tuple[float, float]  # of mu, 95 %
    p_value: float  # two-sided, of mu = 0
    degrees_of_freedom: int  # K - 1
    tau: float  # SD of the true differences between corpora
    i_squared: float  # share of the observed variance that tau^2 is, in [0, 1]
    q: float  # Cochran's Q, chi-squared with K - 1 degrees of freedom where tau is 0
    q_p_value: float
    prediction_interval: tuple[float, float]  # of the true difference in a new corpus, 95 %
    weights: npt.NDArray[np.float64]  # (K,), of each corpus in the estimate; they sum to 1


@dataclass(frozen=True)
class MetaRegression:
    """How a difference changes with one covariate over K corpora: intercept + slope * covariate."""

    intercept: float
    slope: float  # per unit of the covariate
    slope_standard_error: float
    slope_interval: tuple[float, float]  # 95 %
    slope_p_value: float  # two-sided, of slope = 0
    degrees_of_freedom: int  # K - 2
    tau: float  # SD of the true differences about the line
    zero_at: float | None  # covariate where the line crosses 0; None for a flat line


def pool(differences: npt.ArrayLike, standard_errors: npt.ArrayLike) -> PooledDifference:
    """The mean of a difference over corpora, as a random effect.

    Parameters
    ----------
    differences : (K,) array-like
        One difference per corpus, in any one unit.
    standard_errors : (K,) array-like
        Theirs, positive, in the same unit.

    Returns
    -------
    PooledDifference

    Raises
    ------
    ValueError
        With fewer than three corpora, or numbers that are not finite and positive.

    Notes
    -----
    With w_k = 1 / (s_k^2 + tau^2), the estimate is sum(w d) / sum(w), and its standard error is
    sqrt(max(1, sum(w (d - mu)^2) / (K - 1)) / sum(w)). I^2 is Higgins and Thompson's, Stat Med 21
    (2002), with the typical variance of the s_k^2. The prediction interval is that of Higgins,
    Thompson and Spiegelhalter, J R Stat Soc A 172 (2009), mu ± t sqrt(tau^2 + SE^2); t has K - 1
    degrees of freedom, as the standard error has (Viechtbauer's metafor does the same), where the
    article takes K - 2.

    Examples
    --------
    >>> pooled = pool([2.5, 0.7, 0.5, 0.6], [0.6, 0.2, 0.2, 0.2])
    >>> round(pooled.estimate, 2), round(pooled.p_value, 3)
    (0.95, 0.113)
    """
    d, s = _checked(differences, standard_errors)
    design = np.ones((len(d), 1))
    tau_squared = paule_mandel(d, s, design)
    weights = 1 / (s**2 + tau_squared)
    (estimate,), covariance = _weighted_fit(d, weights, design)
    standard_error = math.sqrt(covariance[0, 0])
    freedom = len(d) - 1
    t = float(t_quantile(0.95, freedom))
    half_width = t * standard_error
    prediction_half_width = t * math.sqrt(tau_squared + standard_error**2)
    q = weighted_squares(d, 1 / s**2, design)
    return PooledDifference(
        estimate=float(estimate), standard_error=standard_error,
        interval=(float(estimate - half_width), float(estimate + half_width)),
        p_value=float(t_test(estimate / standard_error, freedom)), degrees_of_freedom=freedom,
        tau=math.sqrt(tau_squared), i_squared=tau_squared / (tau_squared + typical_variance(s)),
        q=q, q_p_value=chi_squared_survival(q, freedom),
        prediction_interval=(float(estimate - prediction_half_width),
                             float(estimate + prediction_half_width)),
        weights=weights / weights.sum())


def leave_one_out(differences: npt.ArrayLike,
                  standard_errors: npt.ArrayLike) -> list[PooledDifference]:
    """The pooled difference without each of the K corpora in turn; K must be four or more."""
    d, s = _checked(differences, standard_errors)
    without = []
    for corpus in range(len(d)):
        without.append(pool(np.delete(d, corpus), np.delete(s, corpus)))
    return without


def regress(differences: npt.ArrayLike, standard_errors: npt.ArrayLike,
            covariate: npt.ArrayLike) -> MetaRegression:
    """How a difference changes over corpora with a covariate: log10 of the training images, say.

    Parameters
    ----------
    differences, standard_errors : (K,) array-like
        As in `pool`.
    covariate : (K,) array-like
        One number per corpus.

    Returns
    -------
    MetaRegression

    Raises
    ------
    ValueError
        With fewer than three corpora (a line through two fits whatever they are), numbers that are
        not finite, or a covariate that is the same everywhere.

    Notes
    -----
    As `pool`, with the two columns of a line in place of one of ones, and K - 2 degrees of freedom
    (Knapp and Hartung 2003). What it finds is a difference between corpora: hospital, labels and
    population change along with the covariate, and it cannot tell them apart.
    """
    d, s = _checked(differences, standard_errors)
    x = np.asarray(covariate, np.float64)
    if x.shape != d.shape or not np.isfinite(x).all():
        raise ValueError(f"covariate: expected {len(d)} finite numbers, found {covariate!r}")
    if np.ptp(x) == 0:
        raise ValueError("covariate: is the same for all corpora, so that no slope can be found")
    design = np.stack([np.ones(len(d)), x], axis=1)
    tau_squared = paule_mandel(d, s, design)
    (intercept, slope), covariance = _weighted_fit(d, 1 / (s**2 + tau_squared), design)
    standard_error = math.sqrt(covariance[1, 1])
    freedom = len(d) - 2
    half_width = float(t_quantile(0.95, freedom)) * standard_error
    zero_at = None
    if slope != 0:
        zero_at = float(-intercept / slope)
    return MetaRegression(
        intercept=float(intercept), slope=float(slope), slope_standard_error=standard_error,
        slope_interval=(float(slope - half_width), float(slope + half_width)),
        slope_p_value=float(t_test(slope / standard_error, freedom)), degrees_of_freedom=freedom,
        tau=math.sqrt(tau_squared), zero_at=zero_at)


def paule_mandel(d: npt.NDArray[np.float64], s: npt.NDArray[np.float64],
                 design: npt.NDArray[np.float64]) -> float:
    """tau^2 >= 0 for which the weighted squares about the fit equal their degrees of freedom.

    They fall as tau^2 grows, so the root is unique; it is 0 where they are too few at once.
    """
    freedom = len(d) - design.shape[1]
    if freedom == 0 or weighted_squares(d, 1 / s**2, design) <= freedom:
        return 0.0
    lower, upper = 0.0, float(np.max((d - d.mean()) ** 2)) + 1e-300
    while weighted_squares(d, 1 / (s**2 + upper), design) > freedom:
        upper *= 2
    for _ in range(200):  # halves the bracket until it is as narrow as floats can be
        middle = (lower + upper) / 2
        if middle in (lower, upper):
            break
        if weighted_squares(d, 1 / (s**2 + middle), design) > freedom:
            lower = middle
        else:
            upper = middle
    return (lower + upper) / 2


def weighted_squares(d: npt.NDArray[np.float64], weights: npt.NDArray[np.float64],
                     design: npt.NDArray[np.float64]) -> float:
    """The sum of weight times squared distance from the weighted fit of a design (K, P)."""
    root = np.sqrt(weights)
    coefficients = np.linalg.lstsq(root[:, None] * design, root * d, rcond=None)[0]
    return float(weights @ (d - design @ coefficients) ** 2)


def _weighted_fit(d: npt.NDArray[np.float64], weights: npt.NDArray[np.float64],
                  design: npt.NDArray[np.float64],
                  ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Coefficients (P,), and their covariance (P, P) scaled as Knapp and Hartung do, up only."""
    inverse = np.linalg.inv(design.T @ (weights[:, None] * design))
    coefficients = inverse @ (design.T @ (weights * d))
    freedom = len(d) - design.shape[1]
    spread = float(weights @ (d - design @ coefficients) ** 2) / freedom
    return coefficients, inverse * max(1.0, spread)


def typical_variance(s: npt.NDArray[np.float64]) -> float:
    """The variance within corpora that stands for all K of them in I^2 (Higgins and Thompson)."""
    weights = 1 / s**2
    freedom = len(s) - 1
    return float(freedom * weights.sum() / (weights.sum() ** 2 - (weights**2).sum()))


def chi_squared_survival(x: float, freedom: int) -> float:
    """The chance that chi-squared with a whole number of degrees of freedom exceeds x.

    Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.4.4 and 26.4.5: a finite
    sum, which for odd degrees of freedom begins with the normal distribution's tail.
    """
    half = x / 2
    if half <= 0:
        return 1.0
    total, first_power = 0.0, 0.0
    if freedom % 2 == 1:
        total, first_power = math.erfc(math.sqrt(half)), 0.5
    for step in range(freedom // 2):
        power = first_power + step
        total += math.exp(power * math.log(half) - half - math.lgamma(power + 1))
    return min(1.0, total)


def _checked(differences: npt.ArrayLike, standard_errors: npt.ArrayLike,
             ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Both as (K,) float arrays; a ValueError that says why they cannot be pooled."""
    d = np.asarray(differences, np.float64)
    s = np.asarray(standard_errors, np.float64)
    if d.ndim != 1 or d.shape != s.shape:
        raise ValueError(f"differences and standard errors: expected one each per corpus, found "
                         f"shapes {d.shape} and {s.shape}")
    if len(d) < MIN_CORPORA:
        raise ValueError(
            f"{len(d)} corpora: a mean over hospitals needs {MIN_CORPORA} or more, since their "
            "spread cannot be estimated from fewer")
    if not np.isfinite(d).all():
        raise ValueError(f"differences: expected finite numbers, found {d}")
    if not (np.isfinite(s) & (s > 0)).all():
        raise ValueError(f"standard errors: expected numbers above 0, found {s}")
    return d, s
