"""Gradient-based attribution of the log-odds of a class to tokens or voxels. The unit of a map is log-odds."""

from typing import NamedTuple

import torch
from torch import Tensor

from models import VolumeClassifier
from models.blocks.mixers import BiMamba
from models.encoder import VolumeEncoder
from models.frozen_scan import frozen_scan
from vis.maps.explained_class import attribution_mode, empty_volume, log_odds, replaced_output, to_raster
from vis.maps.latent import block_number
from vis.maps.path_integral import Completeness, path_integral

PATH_START = 1e-8  # share of the volume that stands for the limit towards the empty volume


def gradient_activation(model: VolumeClassifier, volume_BCZYX: Tensor, target_B: Tensor, block: int = -1) -> Tensor:
    """(B, L): gradient times activation of the tokens after `block`, summed over features (Grad-CAM for tokens).

    Gradients are not averaged over positions, as in HiResCAM (arXiv 2011.08891): an average would attribute to a token
    gradients that belong to other tokens. For the last block the tokens after the final norm are used, where the map
    adds up to the log-odds minus the bias of the head. Before that norm the product is zero for every token, because
    the norm removes the scale of a token.
    """
    number = block_number(model, block)
    leaf: list[Tensor] = []
    activation: list[Tensor] = []

    def cut_norm(_, tokens_BLE: Tensor) -> Tensor:
        leaf.append(tokens_BLE.detach().requires_grad_())
        activation.append(leaf[0].detach())
        return leaf[0]

    def cut_block(_, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        hidden_BLE, residual_BLE = output
        leaf.append(hidden_BLE.detach().requires_grad_())  # the block adds hidden and residual: both have this gradient
        activation.append((residual_BLE + hidden_BLE).detach())
        return leaf[0], residual_BLE.detach()

    last = number == model.config.depth - 1
    place, cut = (model.norm_f, cut_norm) if last else (model.blocks[number], cut_block)
    with attribution_mode(model), replaced_output(place, cut):
        score = log_odds(model(volume_BCZYX).float(), target_B).sum()
        (gradient_BLE,) = torch.autograd.grad(score, leaf[0])
    return to_raster(model, (gradient_BLE * activation[0]).sum(dim=-1).float())


def scan_influence(model: VolumeClassifier, volume_BCZYX: Tensor, target_B: Tensor, block: int = -1) -> Tensor:
    """(B, L): first-order contribution of each token to the log-odds, through the scans of `block`.

    For token j: the sum over directions, channels i and positions t of (d score / d y_ti) (d y_ti / d u_ji) u_ji. The
    inner derivative is the hidden attention C_t exp(A sum of deltas between j and t) delta_j B_j of
    models/frozen_scan.py, with deltas, B, C and gates held constant. The cost is one forward and one backward pass,
    linear in the number of tokens. ValueError if the mixer of the block is not a bidirectional Mamba.
    """
    number = block_number(model, block)
    mixer = model.blocks.get_submodule(f"{number}.mixer")
    if not isinstance(mixer, BiMamba):
        raise ValueError(
            f"--map influence is defined for selective scans; block {number} mixes tokens by {type(mixer).__name__}: "
            "choose --map gradient or occlusion"
        )
    values: list[Tensor] = []

    def freeze(arguments: tuple[Tensor, ...], _) -> Tensor:
        scan = frozen_scan(mixer, arguments[0].detach())
        values.extend(scan.values)
        return torch.stack(scan.outputs).sum(dim=0)

    with attribution_mode(model), replaced_output(mixer, freeze):
        score = log_odds(model(volume_BCZYX).float(), target_B).sum()
        gradients = torch.autograd.grad(score, values)
    contributions = [(gradient * value.detach()).sum(dim=1) for gradient, value in zip(gradients, values, strict=True)]
    return to_raster(model, torch.stack(contributions).sum(dim=0).float())


class IntegratedGradients(NamedTuple):
    """Attribution of the log-odds to every voxel and contrast, and the completeness of each volume."""

    attributions_BCZYX: Tensor
    completeness: list[Completeness]


def integrated_gradients(
    model: VolumeClassifier, volume_BCZYX: Tensor, target_B: Tensor, *, steps: int = 16, batch: int = 4
) -> IntegratedGradients:
    """(B, C, Z, Y, X): contribution of each value to the log-odds, relative to the empty volume (arXiv 1703.01365).

    vis/maps/path_integral.py approximates the integral from `steps` gradients, or more if the completeness gap is too
    large. `batch` gradients are computed at a time.

    The difference of the log-odds is taken from the limit of the path towards the empty volume. In a model with
    contrast dropout the empty volume itself has another score, because a contrast of zeros counts as missing there.
    """
    attributions, completeness = [], []
    with attribution_mode(model):
        for volume_CZYX, empty_CZYX, target in zip(volume_BCZYX, empty_volume(volume_BCZYX), target_B, strict=True):
            difference_CZYX = volume_CZYX - empty_CZYX

            def score(path_SCZYX: Tensor, target: Tensor = target) -> Tensor:
                return log_odds(model(path_SCZYX).float(), target.expand(len(path_SCZYX)))

            def weighted_slopes(
                alphas: Tensor, weights: Tensor, empty: Tensor = empty_CZYX, difference: Tensor = difference_CZYX
            ):
                total = torch.zeros_like(difference)
                shape = (-1, 1, 1, 1, 1)
                for alpha, weight in zip(alphas.split(batch), weights.split(batch), strict=True):
                    path = (empty + alpha.to(difference).reshape(shape) * difference).requires_grad_()
                    (slope,) = torch.autograd.grad(score(path).sum(), path)
                    total += (weight.to(difference).reshape(shape) * slope).sum(dim=0)
                return difference * total

            with torch.no_grad():
                start_CZYX = empty_CZYX + PATH_START * difference_CZYX
                low, high = score(torch.stack([start_CZYX, volume_CZYX])).tolist()
            values_CZYX, gap = path_integral(weighted_slopes, high - low, steps)
            attributions.append(values_CZYX)
            completeness.append(gap)
    return IntegratedGradients(torch.stack(attributions), completeness)


def direction_difference(model: VolumeEncoder, volume_BCZYX: Tensor, block: int = -1) -> Tensor:
    """(B, L): norm of the forward scan's output of `block` at each token, minus the norm of the backward scan's output.

    This map is not class-specific and works for any encoder. ValueError if the block does not have two directions.
    """
    number = block_number(model, block)
    mixer = model.blocks.get_submodule(f"{number}.mixer")
    norms: list[Tensor] = []

    def record_norms(arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not isinstance(mixer, BiMamba) or len(outputs := frozen_scan(mixer, arguments[0]).outputs) != 2:
            raise ValueError(
                f"--map directions needs two scans, which block {number} ({type(mixer).__name__}) does not have"
            )
        norms.extend(torch.linalg.vector_norm(part.detach(), dim=-1) for part in outputs)
        return output

    with attribution_mode(model), replaced_output(mixer, record_norms):
        model.forward_features(volume_BCZYX)
    return to_raster(model, (norms[0] - norms[1]).float())
