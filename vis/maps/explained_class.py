"""Parts that class-specific maps share: the explained score, the baseline input, the state of the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from models import VolumeClassifier
from util.training.eval_mode import evaluating


def log_odds(logits_BK: Tensor, target_B: Tensor) -> Tensor:
    """(B, classes), (B,) -> (B,): logit of the target class minus the log-sum-exp of the other classes.

    This equals log(p / (1 - p)) for the softmax probability p. Unlike p it does not saturate. Unlike a single logit it
    does not change when the same number is added to every logit.
    """
    target_B1 = target_B.unsqueeze(1)
    others = logits_BK.scatter(1, target_B1, float("-inf")).logsumexp(dim=1)
    return logits_BK.gather(1, target_B1).squeeze(1) - others


def target_classes(model: VolumeClassifier, volume_BCZYX: Tensor, target: int | None) -> Tensor:
    """(B,) the class that a map explains: `target`, or for None the predicted class of each volume."""
    if target is None:
        with attribution_mode(model), torch.no_grad():
            return model(volume_BCZYX).argmax(dim=1)
    if not 0 <= target < model.num_classes:
        raise ValueError(f"--target {target}: the model has classes 0 to {model.num_classes - 1}")
    return torch.full((volume_BCZYX.shape[0],), target, device=volume_BCZYX.device)


def empty_volume(volume_BCZYX: Tensor) -> Tensor:
    """The baseline input of the maps: every contrast filled with its background value, read from the volume's corner.

    After z-score normalisation over the brain this value is also the mean of the brain.
    """
    return volume_BCZYX[:, :, :1, :1, :1].expand_as(volume_BCZYX)


@contextmanager
def attribution_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode with gradients of activations only: none of parameters, no activation checkpointing.

    The previous state of the model is restored at the end.
    """
    required = {parameter: parameter.requires_grad for parameter in model.parameters()}
    checkpointed = {module: module.grad_checkpointing for module in model.modules() if _checkpoints(module)}
    model.requires_grad_(False)
    for module in checkpointed:
        module.grad_checkpointing = False  # pyright: ignore[reportArgumentType]
    try:
        with evaluating(model), torch.enable_grad():
            yield
    finally:
        for parameter, was_required in required.items():
            parameter.requires_grad_(was_required)
        for module, was_checkpointed in checkpointed.items():
            module.grad_checkpointing = was_checkpointed


@contextmanager
def replaced_output(module: nn.Module, replace: Callable[[tuple[Any, ...], Any], Any]) -> Iterator[None]:
    """Within the context the module returns replace(arguments, output) in place of its output."""
    handle = module.register_forward_hook(lambda _, arguments, output: replace(arguments, output))
    try:
        yield
    finally:
        handle.remove()


def to_raster(model: nn.Module, values_BL: Tensor) -> Tensor:
    """Reorder values of tokens from the scan order of the encoder to raster order.

    An encoder with another scan order than raster has `scan_places` (L,): the raster position of each scan step.
    """
    places_L = getattr(model, "scan_places", None)
    return values_BL if places_L is None else torch.empty_like(values_BL).index_copy_(1, places_L, values_BL)


def _checkpoints(module: nn.Module) -> bool:
    return isinstance(getattr(module, "grad_checkpointing", None), bool)
