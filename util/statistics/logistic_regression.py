"""Logistic regression with a ridge penalty that always converges to its minimum.

scikit-learn's solvers stop before it in some cases: lbfgs if rounding in float32 hides the descent, newton-cholesky if
it starts at the minimum (constant features and balanced classes). They then warn, and their result depends on the BLAS.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin

TOLERANCE = 1e-6  # change of log-odds that ends the iteration; the remaining error is about its square
MAX_STEPS = 200  # about ten are usual


class RidgeLogistic(ClassifierMixin, BaseEstimator):
    """scikit-learn's LogisticRegression(C) for two classes. C: inverse strength of the penalty, which spares the
    intercept.

    Newton's method in float64 with steps that are guaranteed to descend. It compares gradients, not losses, whose small
    differences would be lost to rounding. If a step changes no log-odds by more than b, then ln(1 + b) / b of it always
    descends, because the third derivative is at most b times the second (Bach, Electronic Journal of Statistics 2010;
    Sun & Tran-Dinh, Mathematical Programming 2019). The lengths 1, 1/2, 1/4, ... are tried first.
    """

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def fit(self, X: np.ndarray, y: Sequence[int] | np.ndarray) -> Self:
        """X: (subjects, features), standardised; y: (subjects,), two classes. Raises ValueError for anything else."""
        features_SE = np.asarray(X, dtype=float)
        self.classes_, is_second_S = np.unique(y, return_inverse=True)
        if not np.isfinite(features_SE).all() or len(self.classes_) != 2 or not self.C > 0:
            raise ValueError(
                f"logistic regression needs finite features, two classes and C > 0, not {len(self.classes_)} classes, "
                f"C = {self.C} and {(~np.isfinite(features_SE)).sum()} values that are not finite: check the features"
            )
        # The weights lie in the span of the subjects, and the penalty is invariant to rotations: an orthonormal basis
        # of that span needs at most as many weights as there are subjects.
        basis_EK, coordinates_KS = np.linalg.qr(features_SE.T)
        weights_K, self.intercept_ = _newton(coordinates_KS.T, is_second_S, self.C)
        self.coef_ = basis_EK @ weights_K
        return self

    def decision_function(self, X: np.ndarray) -> np.ndarray:
        """(M, features) -> (M,) log-odds of the second class."""
        return np.asarray(X, dtype=float) @ self.coef_ + self.intercept_

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """(M, features) -> (M, 2) probabilities of the classes."""
        log_odds_M = self.decision_function(X)
        return np.stack([expit(-log_odds_M), expit(log_odds_M)], axis=1)


def _newton(features_SK: np.ndarray, is_second_S: np.ndarray, C: float) -> tuple[np.ndarray, float]:
    """The weights and intercept that minimise the sum of the log-loss over subjects plus |weights|^2 / 2C."""
    inputs_SJ = np.column_stack([features_SK, np.ones(len(features_SK))])
    penalty_J = np.append(np.full(features_SK.shape[1], 1 / C), 0.0)
    weights_J = np.zeros_like(penalty_J)
    for _ in range(MAX_STEPS):
        log_odds_S = inputs_SJ @ weights_J
        probability_S = expit(log_odds_S)
        gradient_J = inputs_SJ.T @ (probability_S - is_second_S) + penalty_J * weights_J
        spread_S = probability_S * (1 - probability_S)
        step_J = np.linalg.solve((inputs_SJ.T * spread_S) @ inputs_SJ + np.diag(penalty_J), -gradient_J)
        change_S = inputs_SJ @ step_J
        largest = float(np.abs(change_S).max())
        if largest <= TOLERANCE:
            return (weights_J + step_J)[:-1], float(weights_J[-1] + step_J[-1])
        length, safe_length = 1.0, np.log1p(largest) / largest
        while length > safe_length:
            trial_J, residual_S = weights_J + length * step_J, expit(log_odds_S + length * change_S) - is_second_S
            if residual_S @ change_S + (penalty_J * trial_J) @ step_J <= 0:  # the convex loss still descends there
                break
            length /= 2
        weights_J += max(length, safe_length) * step_J
    raise ArithmeticError(f"no minimum after {MAX_STEPS} steps of Newton's method: C = {C} is too large for float64")
