"""Tokens of a masked encoder for every patch: the mean over random masks, each of which leaves few patches visible."""

from typing import NamedTuple

import torch
from torch import Tensor

from models import MaskedAutoencoder3D
from util.training.eval_mode import evaluating


class VisibleTokens(NamedTuple):
    """Final tokens of a masked encoder, averaged over masks."""

    tokens_BLE: Tensor
    seen_L: Tensor
    """Number of masks in which each patch was visible."""
    masks: int
    error_B: Tensor
    """Standard error of a token over the random masks, relative to its norm (root mean square over patches).

    NaN if no patch was visible twice. It falls with the square root of the number of rounds.
    """


def covering_noise(tokens: int, keep: int, rounds: int, seed: int) -> Tensor:
    """(M, L) noise for M = rounds * ceil(L / keep) masks: the `keep` smallest values of a row are the visible patches.

    A round splits a random permutation of all patches into masks of `keep` visible patches. Patches from its start fill
    up the last mask. Every patch is therefore visible at least `rounds` times, for every mask ratio.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(rounds):
        order_L = torch.randperm(tokens, generator=generator)
        for start in range(0, tokens, keep):
            rotated_L = order_L.roll(-start)
            rows.append(torch.empty(tokens).scatter_(0, rotated_L, torch.arange(tokens) / tokens))
    return torch.stack(rows)


def visible_tokens(
    mae: MaskedAutoencoder3D, volume_BCZYX: Tensor, *, mask_ratio: float, rounds: int = 4, seed: int = 0
) -> VisibleTokens:
    """Tokens of the encoder when it sees a share of 1 - mask_ratio of the patches.

    The token of a patch is the mean over the masks in which the patch was visible. ValueError for a mask ratio outside
    (0, 1), for one that leaves no patch visible, and for fewer than one round.
    """
    patches = mae.grid[0] * mae.grid[1] * mae.grid[2]
    keep = int(patches * (1 - mask_ratio))  # the same float product as in the model
    if not 1 <= keep < patches:
        raise ValueError(
            f"--mask_ratio {mask_ratio} leaves {keep} of {patches} patches visible; choose a ratio between 0 and 1"
        )
    if rounds < 1:
        raise ValueError(f"--rounds {rounds}: give 1 or more")
    noise_ML = covering_noise(patches, keep, rounds, seed).to(volume_BCZYX.device)
    batch = volume_BCZYX.shape[0]
    total_BLE = volume_BCZYX.new_zeros(batch, patches, mae.config.embed_dim)
    squares_BL = volume_BCZYX.new_zeros(batch, patches)
    seen_L = volume_BCZYX.new_zeros(patches)
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
    """(B,): relative standard error of mean tokens.

    length2: squared norms of the mean tokens. squares: sums of the squared norms of the `seen` tokens of each mean.
    """
    twice_L = seen_L > 1
    seen_L, length2_BL, squares_BL = seen_L[twice_L], length2_BL[:, twice_L], squares_BL[:, twice_L]
    variance_BL = (squares_BL / seen_L - length2_BL).clamp(min=0) / (seen_L - 1)  # unbiased variance of the mean
    return (variance_BL.mean(dim=1) / length2_BL.mean(dim=1)).sqrt()
