"""Class probabilities of a classifier, with the views and the temperature of its fold."""

from collections.abc import Sequence

from torch import Tensor

from models import VolumeClassifier
from util.protocol.decision import Decision
from util.protocol.tta import average_views, views_of
from util.training.eval_mode import evaluating


def probabilities(
    model: VolumeClassifier,
    volume_BCZYX: Tensor,
    decision: Decision = Decision(),  # noqa: B008  (frozen)
) -> Tensor:
    """(B, C, Z, Y, X) -> probabilities (B, num_classes), with the test-time views and the temperature of `decision`."""
    with evaluating(model):
        return class_probabilities([model(view) for view in views_of(volume_BCZYX, decision.tta)], decision)


def class_probabilities(logits: Sequence[Tensor], decision: Decision) -> Tensor:
    """Logits (B, num_classes) of every view -> probabilities (B, num_classes)."""
    return (average_views(logits) / decision.temperature).softmax(dim=-1)
