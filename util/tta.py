"""Test-time augmentation: a model that also looks at the mirror image, as augmentation in training shows it."""

import torch
from torch import Tensor, nn


class FlipAveraged(nn.Module):
    """(B, C, Z, Y, X) -> (B, classes) logarithms of the class probabilities, averaged over the volume and its mirror
    image across x."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # so that what restores a model's mode restores the one inside

    def forward(self, volume_BCZYX: Tensor) -> Tensor:
        both = [self.model(view).float().softmax(-1) for view in (volume_BCZYX, volume_BCZYX.flip(-1))]
        return torch.stack(both).mean(0).clamp_min(torch.finfo(torch.float32).tiny).log()
