"""Class probabilities of a classifier, with the views and the temperature of its fold's decision."""

from collections.abc import Sequence

from torch import Tensor

from models import VolumeClassifier
from util.protocol.decision import Decision
from util.protocol.tta import averaged, views_of
from util.training.eval_mode import evaluating


def probabilities(
    model: VolumeClassifier,
    volume_BCZYX: Tensor,
    decision: Decision = Decision(),  # noqa: B008  (frozen)
) -> Tensor:
    """(B, C, Z, Y, X) -> (B, num_classes), summing to 1, of the views and with the temperature that `decision` says."""
    with evaluating(model):
        return decided([model(view) for view in views_of(volume_BCZYX, decision.tta)], decision)


def decided(logits: Sequence[Tensor], decision: Decision) -> Tensor:
    """Logits (B, num_classes) of every view -> (B, num_classes) probabilities."""
    return (averaged(logits) / decision.temperature).softmax(dim=-1)
