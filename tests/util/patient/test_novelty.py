import numpy as np
import pytest

from util.patient.novelty import SMALLEST, UNLIKE, make_reference, novelty_of


def cohort(rng, count, folds=3, width=16):
    """Features of `folds` models: correlated, of different scales and offsets."""
    mixes = [rng.normal(size=(width, width)) * rng.uniform(0.1, 10, width) for _ in range(folds)]

    def draw(number, shift=0.0):
        latent = rng.normal(size=(number, width)) + shift
        return [latent @ mix + 5 for mix in mixes]

    return [make_reference(draw(count)[fold]) for fold in range(folds)], draw


def test_ordinary_scans_are_rarely_flagged_and_novel_ones_nearly_always():
    references, draw = cohort(np.random.default_rng(0), 30)
    ordinary, strange = ([novelty_of(references, found) for found in zip(*draw(200, shift))] for shift in (0.0, 3.0))
    assert np.mean([found.unlike for found in ordinary]) < UNLIKE + 0.03
    assert np.mean([found.unlike for found in strange]) > 0.95
    assert 0.8 < np.median([found.distance for found in ordinary]) < 1.5
    assert ordinary[0].n == 90


def test_the_false_alarm_rate_of_one_fold_is_calibrated():
    """Over many references, an ordinary scan is flagged about as often as promised, not nearly never."""
    flagged = []
    for seed in range(60):
        references, draw = cohort(np.random.default_rng(seed), 60, folds=1, width=4)
        flagged += [novelty_of(references, found).unlike for found in zip(*draw(20))]
    assert 0.02 < np.mean(flagged) < 0.09


def test_few_subjects_of_many_features_raise_no_false_alarm():
    """Were a subject measured by a mean that it has a part in, half of all new scans would look strange here."""
    flagged = []
    for seed in range(10):
        references, draw = cohort(np.random.default_rng(seed), 10, folds=2, width=120)
        flagged += [novelty_of(references, found).unlike for found in zip(*draw(20))]
    assert np.mean(flagged) < UNLIKE + 0.03


def test_scale_and_offset_of_features_do_not_matter():
    rng = np.random.default_rng(1)
    features, new = rng.normal(size=(20, 6)), rng.normal(size=6)
    scale, offset = rng.uniform(0.01, 100, 6), rng.normal(size=6)
    plain = novelty_of([make_reference(features)], [new])
    moved = novelty_of([make_reference(features * scale + offset)], [new * scale + offset])
    assert plain.distance == pytest.approx(moved.distance, rel=0.05)


def test_a_feature_that_never_varies_is_no_division_by_zero():
    features = np.random.default_rng(2).normal(size=(10, 4))
    features[:, 2] = 7
    assert np.isfinite(novelty_of([make_reference(features)], [features[0]]).distance)
    assert novelty_of([make_reference(np.ones((10, 4)))], [np.ones(4)]).distance == 0


def test_too_few_subjects_give_no_novelty():
    features = np.random.default_rng(3).normal(size=(SMALLEST, 4))
    assert make_reference(features[:-1]) is None
    assert novelty_of([None, None], [features[0]] * 2) is None
    assert novelty_of([None, make_reference(features)], [features[0]] * 2).n == SMALLEST
