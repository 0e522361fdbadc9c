"""Class-specific maps by gradients: which tokens or voxels speak for a class. Units are log-odds of the class."""

from typing import NamedTuple

import torch
from torch import Tensor

from models import VolumeClassifier
from models.blocks.mixers import BiMamba
from models.encoder import VolumeEncoder
from models.frozen_scan import frozen_scan
from vis.maps.explained_class import empty_volume, explaining, log_odds, replacing, to_raster
from vis.maps.latent import block_number
from vis.maps.path_integral import Completeness, path_integral


def gradient_activation(model: VolumeClassifier, volume_BCZYX: Tensor, target_B: Tensor, block: int = -1) -> Tensor:
    """(B, L): gradient times activation, summed over features, of the tokens after `block` (Grad-CAM for tokens).

    Without the mean of gradients over places that Grad-CAM takes (as HiResCAM, arXiv 2011.08891): a mean would let a
    place answer for gradients found elsewhere. After the last block, tokens are taken behind the final norm, where the
    map adds up to the log-odds minus the head's bias; before that norm the product vanishes at every place, because a
    norm does not change with the length of a token.
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
        leaf.append(hidden_BLE.detach().requires_grad_())  # hidden and residual meet in a sum: one gradient for both
        activation.append((residual_BLE + hidden_BLE).detach())
        return leaf[0], residual_BLE.detach()

    last = number == model.config.depth - 1
    place, cut = (model.norm_f, cut_norm) if last else (model.blocks[number], cut_block)
    with explaining(model), replacing(place, cut):
        score = log_odds(model(volume_BCZYX).float(), target_B).sum()
        (gradient_BLE,) = torch.autograd.grad(score, leaf[0])
    return to_raster(model, (gradient_BLE * activation[0]).sum(dim=-1).float())


def scan_influence(model: VolumeClassifier, volume_BCZYX: Tensor, target_B: Tensor, block: int = -1) -> Tensor:
    """(B, L): how much the class's log-odds owe, to first order, to what the scans of `block` carry from each token.

    For token j: sum over directions, channels i and places t of (d score / d y_ti) (d y_ti / d u_ji) u_ji, where the
    inner derivative is the hidden attention C_t exp(A sum of deltas between j and t) delta_j B_j of
    models/frozen_scan.py, deltas, B, C and gates held constant. One forward and one backward pass: linear in tokens.
    ValueError where the block's mixer is no bidirectional Mamba.
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

    with explaining(model), replacing(mixer, freeze):
        score = log_odds(model(volume_BCZYX).float(), target_B).sum()
        gradients = torch.autograd.grad(score, values)
    carried = [(gradient * value.detach()).sum(dim=1) for gradient, value in zip(gradients, values, strict=True)]
    return to_raster(model, torch.stack(carried).sum(dim=0).float())


class IntegratedGradients(NamedTuple):
    """Parts of the log-odds' rise, and per volume how far they are from adding up to it."""

    parts_BCZYX: Tensor
    completeness: list[Completeness]


def integrated_gradients(
    model: VolumeClassifier, volume_BCZYX: Tensor, target_B: Tensor, *, steps: int = 16, batch: int = 4
) -> IntegratedGradients:
    """(B, C, Z, Y, X): each value's part of the log-odds' rise from the empty volume to this one (arXiv 1703.01365).

    The integral is approximated by vis/maps/path_integral.py from `steps` gradients, or more where they miss too much
    of the rise; `batch` of them are computed at a time.
    """
    parts, completeness = [], []
    with explaining(model):
        for volume_CZYX, empty_CZYX, target in zip(volume_BCZYX, empty_volume(volume_BCZYX), target_B, strict=True):
            rise_CZYX = volume_CZYX - empty_CZYX

            def score(path_SCZYX: Tensor, target: Tensor = target) -> Tensor:
                return log_odds(model(path_SCZYX).float(), target.expand(len(path_SCZYX)))

            def weighted_slopes(alphas: Tensor, weights: Tensor, empty: Tensor = empty_CZYX, rise: Tensor = rise_CZYX):
                total = torch.zeros_like(rise)
                shape = (-1, 1, 1, 1, 1)
                for alpha, weight in zip(alphas.to(rise).split(batch), weights.to(rise).split(batch), strict=True):
                    path = (empty + alpha.reshape(shape) * rise).requires_grad_()
                    (slope,) = torch.autograd.grad(score(path).sum(), path)
                    total += (weight.reshape(shape) * slope).sum(dim=0)
                return rise * total

            with torch.no_grad():
                low, high = score(torch.stack([empty_CZYX, volume_CZYX])).tolist()
            found, complete = path_integral(weighted_slopes, high - low, steps)
            parts.append(found)
            completeness.append(complete)
    return IntegratedGradients(torch.stack(parts), completeness)


def direction_difference(model: VolumeEncoder, volume_BCZYX: Tensor, block: int = -1) -> Tensor:
    """(B, L): length of what the forward scan of `block` adds to each token, minus that of the backward scan.

    Not class-specific; for any encoder. ValueError where the block has no two directions.
    """
    number = block_number(model, block)
    mixer = model.blocks.get_submodule(f"{number}.mixer")
    found: list[Tensor] = []

    def look(arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not isinstance(mixer, BiMamba) or len(outputs := frozen_scan(mixer, arguments[0]).outputs) != 2:
            raise ValueError(f"--map directions needs two scans; block {number} ({type(mixer).__name__}) has not")
        found.extend(torch.linalg.vector_norm(part.detach(), dim=-1) for part in outputs)
        return output

    with explaining(model), replacing(mixer, look):
        model.forward_features(volume_BCZYX)
    return to_raster(model, (found[0] - found[1]).float())
