"""The error model that suits known errors best: found after a training, on simulated objects.

A live process does without it, and without what its imports cost.
"""

import numpy as np
from scipy.optimize import minimize

from operators.arrays import Array
from operators.mosaic.error_bars import ErrorModel, factor_asked_for


def fit_error_model(terms: Array, errors: Array) -> ErrorModel:
    """Return the model under which the `errors` are likeliest, of the scale that their coverage asks for.

    Parameters
    ----------
    terms : (4, n) float
        Variances of `ErrorModel`, rad^2, of pixels of objects that the network was not trained on.
    errors : (n,) float, rad

    Notes
    -----
    Coefficients of at least 0 by the likelihood of a normal distribution. Errors have longer tails than that,
    which would make all bars too long: the common factor is the geometric mean of what 68.3 % within sigma
    and 95 % within 1.96 sigma ask for.
    """
    terms, squares = terms.astype(np.float64), np.square(errors.astype(np.float64))
    start = np.log(np.maximum(squares.mean() / np.maximum(terms.mean(axis=1), 1e-30) / len(terms), 1e-30))

    def loss(logarithms: Array) -> tuple[float, Array]:
        weights = np.exp(np.clip(logarithms, -30, 30))
        variance = weights @ terms
        slope = (1 - squares / variance) / variance / (2 * len(squares))
        return float((np.log(variance) + squares / variance).mean() / 2), weights * (terms @ slope)

    weights = np.exp(minimize(loss, start, jac=True, method="L-BFGS-B").x)
    weights *= factor_asked_for(errors, np.sqrt(weights @ terms)) ** 2
    return ErrorModel(**dict(zip(ErrorModel.__slots__, map(float, weights), strict=True)))
