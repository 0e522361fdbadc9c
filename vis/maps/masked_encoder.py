"""Tokens of a masked encoder at every place: the mean over many random masks, each of which shows few places."""

from typing import NamedTuple

import torch
from torch import Tensor

from models import MaskedAutoencoder3D
from util.training.eval_mode import evaluating


class VisibleTokens(NamedTuple):
    """Final tokens of a masked encoder, averaged over masks."""

    tokens_BLE: Tensor
    seen_L: Tensor
    """In how many masks each place was visible."""
    masks: int
    error_B: Tensor
    """Standard error of a token over the random masks, as a share of its length (root mean square over places); NaN
    where no place was visible twice. It falls with the square root of the rounds."""


def covering_noise(tokens: int, keep: int, rounds: int, seed: int) -> Tensor:
    """(M, L) noise whose `keep` smallest per row are kept: M = rounds * ceil(L / keep) masks.

    A round deals out all places in random order, `keep` at a time; its last mask is filled up with places dealt before.
    So every place is visible at least `rounds` times, whatever the mask ratio.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(rounds):
        order_L = torch.randperm(tokens, generator=generator)
        for start in range(0, tokens, keep):
            dealt = order_L.roll(-start)
            rows.append(torch.empty(tokens).scatter_(0, dealt, torch.arange(tokens) / tokens))
    return torch.stack(rows)


def visible_tokens(
    mae: MaskedAutoencoder3D, volume_BCZYX: Tensor, *, mask_ratio: float, rounds: int = 4, seed: int = 0
) -> VisibleTokens:
    """What the encoder makes of each place when it sees 1 - mask_ratio of the patches.

    A place's token is the mean over the masks in which it was visible. ValueError for a mask ratio outside (0, 1), one
    that keeps no patch, and less than one round.
    """
    places = mae.grid[0] * mae.grid[1] * mae.grid[2]
    keep = int(places * (1 - mask_ratio))  # the float product decides, as in the model
    if not 1 <= keep < places:
        raise ValueError(f"--mask_ratio {mask_ratio} keeps {keep} of {places} patches; choose a ratio between 0 and 1")
    if rounds < 1:
        raise ValueError(f"--rounds {rounds}: give 1 or more")
    noise_ML = covering_noise(places, keep, rounds, seed).to(volume_BCZYX.device)
    batch = volume_BCZYX.shape[0]
    total_BLE = volume_BCZYX.new_zeros(batch, places, mae.config.embed_dim)
    squares_BL = volume_BCZYX.new_zeros(batch, places)
    seen_L = volume_BCZYX.new_zeros(places)
    with evaluating(mae):
        for noise_L in noise_ML:
            out = mae(volume_BCZYX, mask_ratio=mask_ratio, noise=noise_L.expand(batch, -1), return_pred=False)
            latent_BKE = out.latent.to(total_BLE.dtype)
            total_BLE.scatter_add_(1, out.ids_keep.unsqueeze(-1).expand_as(latent_BKE), latent_BKE)
            squares_BL.scatter_add_(1, out.ids_keep, latent_BKE.square().sum(dim=-1))
            seen_L[out.ids_keep[0]] += 1
    mean_BLE = total_BLE / seen_L[:, None]
    error_B = _standard_error(mean_BLE.square().sum(dim=-1), squares_BL, seen_L)
    return VisibleTokens(mean_BLE, seen_L.int(), len(noise_ML), error_B)


def _standard_error(length2_BL: Tensor, squares_BL: Tensor, seen_L: Tensor) -> Tensor:
    """(B,): of means of squared length length2, from sums of the squared lengths of `seen` tokens each."""
    twice_L = seen_L > 1
    seen_L, length2_BL, squares_BL = seen_L[twice_L], length2_BL[:, twice_L], squares_BL[:, twice_L]
    variance_BL = (squares_BL / seen_L - length2_BL).clamp(min=0) / (seen_L - 1)  # of the mean, unbiased
    return (variance_BL.mean(dim=1) / length2_BL.mean(dim=1)).sqrt()
