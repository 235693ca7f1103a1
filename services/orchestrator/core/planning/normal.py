"""The normal distribution for vectors."""

from __future__ import annotations

from typing import Final

import numpy
from numpy.typing import NDArray

# Coefficients of the rational approximation 26.2.17 of Abramowitz and Stegun, Handbook of Mathematical Functions
# (1964); its error is below 7.5e-8 everywhere, which no percentile of a latency can tell.
_P: Final = 0.2316419
_B: Final = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
_DENSITY: Final = 0.3989422804014327


def normal_cdf(z: NDArray[numpy.float64]) -> NDArray[numpy.float64]:
    """Probabilities of at most z standard deviations, within 7.5e-8."""
    t = 1.0 / (1.0 + _P * numpy.abs(z))
    tail = _DENSITY * numpy.exp(-0.5 * z * z)
    polynomial = t * (_B[0] + t * (_B[1] + t * (_B[2] + t * (_B[3] + t * _B[4]))))
    upper = tail * polynomial
    return numpy.where(z >= 0.0, 1.0 - upper, upper)
