"""Test-time augmentation: the mean prediction over a volume and its mirror image, which training shows too."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from util.options.protocol import Views


def views_of(volume_BCZYX: Tensor, which: Views) -> list[Tensor]:
    """The volume and, with "flip", its mirror image across x."""
    return [volume_BCZYX, volume_BCZYX.flip(-1)] if which == "flip" else [volume_BCZYX]


def average_views(logits: Sequence[Tensor]) -> Tensor:
    """Logits (B, classes) of every view -> logarithms of the mean class probabilities (B, classes), float32."""
    mean_BK = torch.stack([view.float().softmax(-1) for view in logits]).mean(0)
    return mean_BK.clamp_min(torch.finfo(torch.float32).tiny).log()


class FlipAveraged(nn.Module):
    """(B, C, Z, Y, X) -> logarithms of the mean class probabilities over both views (B, classes)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # the inner model's mode, which is restored with this one

    def forward(self, volume_BCZYX: Tensor) -> Tensor:
        return average_views([self.model(view) for view in views_of(volume_BCZYX, "flip")])
