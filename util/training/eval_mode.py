"""A model asked, not trained. Apart from util/inference/probabilities.py, whose calibration loads scikit-learn and
SciPy (100 MiB): a pre-training draws its pictures without them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No drop path and no gradients inside; afterwards every module is in the mode it was in."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
