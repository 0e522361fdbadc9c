"""Predictions for the tests of the statistics."""

import numpy as np

from util.evaluation.predictions import Prediction, arrange


def predictions(labels, probabilities, *, k=5, repeats=1, patients=None, threshold=0.5):
    """(S,) labels and (R, S) or (S,) probabilities; subjects take the folds in turn, shifted by one per repeat."""
    rows = np.atleast_2d(probabilities)
    return [
        Prediction(f"s{i:03d}", repeat * k + (i + repeat) % k, int(label), float(row[i]), repeat, threshold,
                   patients[i] if patients else "")
        for repeat, row in enumerate(rows)
        for i, label in enumerate(labels)
    ]  # fmt: skip


def scores(labels, probabilities, **options):
    return arrange(predictions(labels, probabilities, **options))


def binormal(seed, positives, negatives, distance=1.0, runs=1, ties=False):
    """Labels, and probabilities of `runs` correlated runs (runs, S), of two normal classes `distance` apart."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [positives, negatives])
    shared = generator.normal(size=len(labels))
    latent = distance * labels + np.sqrt(0.5) * (shared + generator.normal(size=(runs, len(labels))))
    found = 1 / (1 + np.exp(distance / 2 - latent))
    return labels, np.round(found, 1) if ties else found
