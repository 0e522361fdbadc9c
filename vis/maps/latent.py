"""Latent maps: one number per token, computed from its features, at the position of the token's patch.

The encoder keeps one token per patch, so tokens (B, L, E) in raster order give maps (B, z, y, x) on the token grid.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from models import PatchPredictor, VolumeClassifier
from models.encoder import VolumeEncoder
from util.training.eval_mode import evaluating
from vis.maps.token_grid import Grid, on_grid


@dataclass(frozen=True)
class LatentMap:
    """A reduction of tokens to one number each, with the properties that a figure needs.

    Called as latent_map(tokens_BLE, grid) -> (B, z, y, x).
    """

    reduce: Callable[[Tensor], Tensor]
    """(B, L, E) -> (B, L)."""
    title: str
    """Label of the colour bar."""
    signed: bool = False
    """Values lie on both sides of 0, and their sign has a meaning."""
    before_norm: bool = False
    """Computed from the tokens before the final RMSNorm. The norm gives all tokens nearly the same length."""
    unit: str = "no unit"

    def __call__(self, tokens_BLE: Tensor, grid: Grid) -> Tensor:
        return on_grid(self.reduce(tokens_BLE), grid)


def maximum(tokens_BLE: Tensor) -> Tensor:
    """(B, L, E) -> (B, L): the largest feature of each token. This is the map of the paper."""
    return tokens_BLE.amax(dim=-1)


def mean(tokens_BLE: Tensor) -> Tensor:
    """(B, L, E) -> (B, L): the mean over the features of each token."""
    return tokens_BLE.mean(dim=-1)


def norm(tokens_BLE: Tensor) -> Tensor:
    """(B, L, E) -> (B, L): the Euclidean norm of each token."""
    return torch.linalg.vector_norm(tokens_BLE, dim=-1)


def first_component(tokens_BLE: Tensor) -> Tensor:
    """(B, L, E) -> (B, L): scores on the first principal component of the tokens of each volume.

    The sign of a component is arbitrary; here its largest loading is positive. Tokens that are all equal give zeros.
    """
    centred_BLE = tokens_BLE.double() - tokens_BLE.double().mean(dim=1, keepdim=True)
    _, vectors_BEE = torch.linalg.eigh(centred_BLE.mT @ centred_BLE)  # ascending eigenvalues; E x E is small
    loading_BE = vectors_BEE[..., -1]
    largest_B1 = loading_BE.gather(1, loading_BE.abs().argmax(dim=1, keepdim=True))
    scores_BL = torch.einsum("ble,be->bl", centred_BLE, loading_BE * largest_B1.sign())
    return scores_BL.to(tokens_BLE.dtype)


MAPS: dict[str, LatentMap] = {
    "max": LatentMap(maximum, "maximum over features"),
    "mean": LatentMap(mean, "mean over features", signed=True),
    "norm": LatentMap(norm, "L2 norm over features", before_norm=True),
    "pca": LatentMap(first_component, "first principal component", signed=True),
}
FEATURE = re.compile(r"feature-(\d+)")


def latent_map(name: str) -> LatentMap:
    """The latent map with this name: one of MAPS, or "feature-K" for feature K (from 0) of each token.

    ValueError for any other name.
    """
    if name in MAPS:
        return MAPS[name]
    if match := FEATURE.fullmatch(name):
        number = int(match[1])
        return LatentMap(partial(feature, number=number), f"feature {number}", signed=True)
    raise ValueError(
        f'there is no latent map "{name}": choose one of {", ".join(MAPS)}, or feature-K for a single feature'
    )


def feature(tokens_BLE: Tensor, number: int) -> Tensor:
    """(B, L, E) -> (B, L): one feature of each token. ValueError if the tokens have fewer features."""
    if number >= tokens_BLE.shape[-1]:
        raise ValueError(f"feature-{number} does not exist: tokens have features 0 to {tokens_BLE.shape[-1] - 1}")
    return tokens_BLE[..., number]


def block_number(model: VolumeEncoder, block: int) -> int:
    """The index of a block, from 0. A negative `block` counts from the end. ValueError for one that does not exist."""
    depth = model.config.depth
    if not -depth <= block < depth:
        raise ValueError(f"--block {block} does not exist: the model has blocks 0 to {depth - 1}, -1 is the last")
    return block % depth


def latent_maps(
    model: PatchPredictor | VolumeClassifier, volume_BCZYX: Tensor, names: Iterable[str], block: int = -1
) -> dict[str, Tensor]:
    """Maps (B, z, y, x) by name, from the tokens of an unmasked volume after a block (default: the last).

    One forward pass serves all maps. ValueError for a name or a block that does not exist.
    """
    maps = {name: latent_map(name) for name in names}
    with evaluating(model):
        number = block_number(model, block)
        state_BLE = model.forward_intermediates(volume_BCZYX, [number], intermediates_only=True)[0]
        assert isinstance(state_BLE, Tensor)
        normed_BLE = model.norm_f(state_BLE)
        return {
            name: latent(state_BLE if latent.before_norm else normed_BLE, model.grid).float()
            for name, latent in maps.items()
        }
