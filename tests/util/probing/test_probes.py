"""Probes: they find a signal, find none in noise, and use the training part only."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import util.probing.probes
from util.probing.probes import PROBES, fit_and_score
from util.protocol.folds import make_folds

NAMES = tuple(PROBES)


def sample(seed, signal, n=40, width=12):
    """Features (n, width) whose first column differs by `signal` deviations between the classes 0, 1, 0, 1, ..."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    features = generator.standard_normal((n, width)).astype(np.float32)
    features[:, 0] += signal * labels
    return features * np.logspace(-2, 2, width, dtype=np.float32), labels.tolist()  # columns of uneven scale


def cross_validated_auc(name, features, labels, seed=0):
    """Mean over folds of the AUC on held-out subjects."""
    folds = make_folds({f"{i:03d}": label for i, label in enumerate(labels)}, 4, seed)
    aucs = []
    for fold in folds:
        train, test = ([int(s) for s in fold[part]] for part in ("train", "test"))
        found, _ = fit_and_score(PROBES[name], features[train], [labels[i] for i in train], features[test], seed=seed)
        aucs.append(roc_auc_score([labels[i] for i in test], found))
    return np.mean(aucs)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_is_found_whatever_the_scale_of_its_column(name):
    assert cross_validated_auc(name, *sample(0, signal=5.0, width=4)) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_noise_gives_chance(name, monkeypatch):
    """Features that know nothing of the labels, more of them than subjects, so that everything can be fitted: over
    samples the mean AUC stays at a half, up to 4 standard errors. Choosing or scaling by held-out labels would not."""
    monkeypatch.setattr(util.probing.probes, "INNER_FOLDS", 2)
    aucs = [cross_validated_auc(name, *sample(seed, signal=0.0, width=60), seed=seed) for seed in range(6)]
    assert abs(np.mean(aucs) - 0.5) < 4 * np.std(aucs, ddof=1) / len(aucs) ** 0.5


@pytest.mark.parametrize("name", NAMES)
def test_a_subjects_probability_does_not_depend_on_the_others_held_out_with_it(name):
    features, labels = sample(1, signal=1.0)
    train, test = features[:30], features[30:]
    together, _ = fit_and_score(PROBES[name], train, labels[:30], test, seed=0)
    alone = [fit_and_score(PROBES[name], train, labels[:30], test[i : i + 1], seed=0)[0][0] for i in range(3)]
    np.testing.assert_allclose(together[:3], alone, atol=1e-12)
    assert ((together >= 0) & (together <= 1)).all()


def test_settings_are_chosen_by_the_training_part():
    """Where one neighbour is misleading (a quarter of labels flipped), more neighbours are taken."""
    generator = np.random.default_rng(0)
    labels = np.arange(80) % 2
    features = (labels[:, None] * 4 + generator.standard_normal((80, 2))).astype(np.float32)
    flipped = np.where(generator.random(80) < 0.25, 1 - labels, labels).tolist()
    _, clean = fit_and_score(PROBES["knn"], features, labels.tolist(), features[:1], seed=0)
    _, noisy = fit_and_score(PROBES["knn"], features, flipped, features[:1], seed=0)
    assert noisy["n_neighbors"] > clean["n_neighbors"]
    assert set(clean) == {"n_neighbors", "metric"}


def test_constant_features_are_ignored():
    features, labels = sample(0, signal=5.0)
    features[:, 3:] = 7.0
    found, _ = fit_and_score(PROBES["logistic"], features[:30], labels[:30], features[30:], seed=0)
    assert roc_auc_score(labels[30:], found) > 0.9


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [1, 1, 1, 1]])
def test_too_few_subjects_of_a_class_are_named(labels):
    with pytest.raises(ValueError, match="needs 2 subjects of each"):
        fit_and_score(PROBES["knn"], np.zeros((4, 2), np.float32), labels, np.zeros((1, 2), np.float32), seed=0)
