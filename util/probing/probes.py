"""Probes of frozen features: k nearest neighbours and logistic regression.

Scaling, k, distance and C are chosen on the training part of a fold, by an inner stratified cross-validation. A probe
never sees a held-out label.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from util.statistics.logistic_regression import RidgeLogistic

INNER_FOLDS = 5
NEIGHBOURS = (1, 3, 5, 9, 15, 25)
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Probe:
    """A kind of probe, and the settings to choose from.

    make: creates a classifier. choices: the values of its settings to choose from, given the number of training
    subjects of an inner fold.
    """

    make: Callable[[], BaseEstimator]
    choices: Callable[[int], dict[str, list[Any]]]


PROBES = {
    "knn": Probe(
        KNeighborsClassifier,
        lambda n: {"n_neighbors": [k for k in NEIGHBOURS if k <= n], "metric": ["euclidean", "cosine"]},
    ),
    "logistic": Probe(RidgeLogistic, lambda n: {"C": list(INVERSE_PENALTIES)}),
}


def fit_and_score(
    probe: Probe, train_NE: np.ndarray, labels: Sequence[int], test_ME: np.ndarray, *, seed: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """The probabilities of class 1 of the test subjects (M,), and the settings with the highest AUC in inner folds.

    Features are standardised in float64 by the training subjects. Raises ValueError if a class has fewer than 2.
    """
    counts = Counter(labels)
    rarest = min(counts.values()) if len(counts) == 2 else 0
    if rarest < 2:
        raise ValueError(
            f"a probe trains on {dict(counts)} subjects per class; choosing its settings needs 2 subjects of each of "
            "two classes: use more data or a larger --k_fold"
        )
    inner = StratifiedKFold(min(INNER_FOLDS, rarest), shuffle=True, random_state=seed)
    smallest = min(len(train) for train, _ in inner.split(train_NE, labels))
    grid = {f"classify__{name}": values for name, values in probe.choices(smallest).items()}
    pipeline = Pipeline([("scale", StandardScaler()), ("classify", probe.make())])
    search = GridSearchCV(pipeline, grid, scoring="roc_auc", cv=inner, error_score="raise")  # pyright: ignore[reportArgumentType]  # the stub allows float only
    search.fit(train_NE.astype(float), np.asarray(labels))
    chosen = {name.removeprefix("classify__"): value for name, value in search.best_params_.items()}
    return search.predict_proba(test_ME.astype(float))[:, 1], chosen
