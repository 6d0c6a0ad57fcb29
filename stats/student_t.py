"""Student's t distribution with any degrees of freedom, without SciPy."""

import math

import numpy as np

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)


def t_test(t, df):
    """Two-sided p-value: the chance that |T| is at least |t|.

    With T = sqrt(df) tan(x) the density is proportional to cos(x)^(df - 1), which is smooth and
    integrated by Gauss and Legendre's rule.

    Parameters
    ----------
    t : float
    df : float
        Degrees of freedom, above 0; from 1e6 on the normal distribution is taken.

    Returns
    -------
    float
    """
    if math.isnan(t) or math.isnan(df):
        return math.nan
    if df >= 1e6:
        return math.erfc(abs(t) / math.sqrt(2))
    end = math.atan(abs(t) / math.sqrt(df))
    x = (_NODES + 1) / 2 * end
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    inside = scale * end * float(np.sum(_WEIGHTS * np.cos(x) ** (df - 1)))
    return min(1.0, max(0.0, 1 - inside))


def t_quantile(level, df):
    """How many standard errors hold a share `level` of the distribution, to either side."""
    if math.isnan(df):
        return math.nan
    low, high = 0.0, 1e5
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if t_test(middle, df) <= 1 - level else (middle, high)
    return high
