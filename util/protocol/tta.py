"""Test-time augmentation: a model that also looks at the mirror image, as augmentation in training shows it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from util.options.protocol import Views


def views_of(volume_BCZYX: Tensor, which: Views) -> list[Tensor]:
    """The volume and, for "flip", its mirror image across x."""
    return [volume_BCZYX, volume_BCZYX.flip(-1)] if which == "flip" else [volume_BCZYX]


def average_views(logits: Sequence[Tensor]) -> Tensor:
    """Logits (B, classes) of every view -> (B, classes) logarithms of the mean class probabilities, float32."""
    mean_BK = torch.stack([view.float().softmax(-1) for view in logits]).mean(0)
    return mean_BK.clamp_min(torch.finfo(torch.float32).tiny).log()


class FlipAveraged(nn.Module):
    """(B, C, Z, Y, X) -> (B, classes) logarithms of the class probabilities, average_views over both views."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # so that what restores a model's mode restores the one inside

    def forward(self, volume_BCZYX: Tensor) -> Tensor:
        return average_views([self.model(view) for view in views_of(volume_BCZYX, "flip")])
