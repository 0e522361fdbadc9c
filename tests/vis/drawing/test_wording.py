"""Contrasts, metrics and classes have names for readers; captions state their facts."""

from typing import get_args

from util.data.folder import CONTRASTS
from util.data.labels import CLASSES, LabelType
from util.evaluation.predictions import Prediction
from util.statistics.metrics import METRICS
from vis.drawing.wording import CLASS_NAMES, CONTRAST_NAMES, METRIC_NAMES, prediction_caption, task_words


def test_every_contrast_metric_and_binary_task_has_a_name():
    assert tuple(CONTRAST_NAMES) == CONTRASTS
    assert tuple(METRIC_NAMES) == METRICS
    binary = {label for label in get_args(LabelType) if len(CLASSES[label]) == 2}
    assert set(CLASS_NAMES) == binary
    assert all(len(names) == 2 for names in CLASS_NAMES.values())


def test_the_task_of_pre_training_in_words():
    assert task_words(0.75) == "75% of patches removed"
    assert "patches before it in the scan" in task_words(None)


def test_the_caption_states_label_probability_and_fold():
    line = prediction_caption("IDH", Prediction("A", 3, 0, 0.1), 0.126, 3)
    assert line == "IDH wild type · predicted probability of IDH mutant 0.13 · held out in fold 3"
    assert "label not recorded" in prediction_caption("1p19q", None, 0.5, 0)
