"""What class-specific maps share: the score they explain, a model that lends its gradients, the empty volume."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from models import VolumeClassifier
from util.training.eval_mode import evaluating


def log_odds(logits_BK: Tensor, target_B: Tensor) -> Tensor:
    """(B, classes), (B,) -> (B,): logit of the target class minus the log-sum-exp of the others.

    Of a probability p that is log(p / (1 - p)), which unlike p does not saturate, and unlike a logit does not change
    when the same number is added to every class.
    """
    target_B1 = target_B.unsqueeze(1)
    others = logits_BK.scatter(1, target_B1, float("-inf")).logsumexp(dim=1)
    return logits_BK.gather(1, target_B1).squeeze(1) - others


def targets(model: VolumeClassifier, volume_BCZYX: Tensor, target: int | None) -> Tensor:
    """(B,) the class to explain: the given one, or each volume's predicted class."""
    if target is None:
        with explaining(model), torch.no_grad():
            return model(volume_BCZYX).argmax(dim=1)
    if not 0 <= target < model.num_classes:
        raise ValueError(f"--target {target}: the model has classes 0 to {model.num_classes - 1}")
    return torch.full((volume_BCZYX.shape[0],), target, device=volume_BCZYX.device)


def empty_volume(volume_BCZYX: Tensor) -> Tensor:
    """Every contrast at its background value, which is found in the corner of the volume: a scan of nothing.

    After a z-score over the brain that value is also the brain's mean.
    """
    return volume_BCZYX[:, :, :1, :1, :1].expand_as(volume_BCZYX)


@contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients of parameters, no recomputed blocks; afterwards everything is as it was."""
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    checkpointed = {module: module.grad_checkpointing for module in model.modules() if _checkpoints(module)}
    model.requires_grad_(False)
    for module in checkpointed:
        module.grad_checkpointing = False  # pyright: ignore[reportArgumentType]
    try:
        with evaluating(model), torch.enable_grad():
            yield
    finally:
        for parameter, was_wanted in wanted.items():
            parameter.requires_grad_(was_wanted)
        for module, was_checkpointed in checkpointed.items():
            module.grad_checkpointing = was_checkpointed


@contextmanager
def replacing(module: nn.Module, replace: Callable[[tuple[Any, ...], Any], Any]) -> Iterator[None]:
    """Inside, the module's output is replace(its arguments, its output)."""
    handle = module.register_forward_hook(lambda _, arguments, output: replace(arguments, output))
    try:
        yield
    finally:
        handle.remove()


def to_raster(model: nn.Module, values_BL: Tensor) -> Tensor:
    """Values of tokens as the trunk reads them -> of the same tokens in raster order.

    Encoders that scan in another order than raster say it in `scan_places` (L,): the raster place of each step.
    """
    places_L = getattr(model, "scan_places", None)
    return values_BL if places_L is None else torch.empty_like(values_BL).index_copy_(1, places_L, values_BL)


def _checkpoints(module: nn.Module) -> bool:
    return isinstance(getattr(module, "grad_checkpointing", None), bool)
