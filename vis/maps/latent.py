"""Latent-to-spatial maps: one number per token, put back at the token's place.

A scan keeps one token per place, so tokens (B, L, E) in raster order become a volume (B, z, y, x) of the token grid.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models import PatchPredictor, VolumeClassifier
from models.encoder import VolumeEncoder
from util.training.eval_mode import evaluating

Grid = tuple[int, int, int]
Upsampling = Literal["nearest", "trilinear"]


@dataclass(frozen=True)
class LatentMap:
    """A reduction of tokens, called as map(tokens_BLE, grid) -> (B, z, y, x), and what a figure must know about it."""

    reduce: Callable[[Tensor], Tensor]
    """(B, L, E) -> (B, L)."""
    title: str
    """Of the colour bar."""
    signed: bool = False
    """Values around 0, where both ends mean something."""
    before_norm: bool = False
    """Wants tokens before the final RMSNorm, which gives every token nearly the same length."""
    unit: str = "no unit"

    def __call__(self, tokens_BLE: Tensor, grid: Grid) -> Tensor:
        return on_grid(self.reduce(tokens_BLE), grid)


def maximum(tokens_BLE: Tensor) -> Tensor:
    """(B, L, E) -> (B, L): the largest feature of each token, as in the paper."""
    return tokens_BLE.amax(dim=-1)


def mean(tokens_BLE: Tensor) -> Tensor:
    """(B, L, E) -> (B, L): the mean feature of each token."""
    return tokens_BLE.mean(dim=-1)


def norm(tokens_BLE: Tensor) -> Tensor:
    """(B, L, E) -> (B, L): the Euclidean length of each token."""
    return torch.linalg.vector_norm(tokens_BLE, dim=-1)


def first_component(tokens_BLE: Tensor) -> Tensor:
    """(B, L, E) -> (B, L): scores on the first principal component of each sample's tokens.

    A component's sign is arbitrary; here its largest loading is positive. Equal tokens give zeros.
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
    """The map of that name: one of MAPS, or "feature-K" for feature K (from 0) of each token. ValueError otherwise."""
    if name in MAPS:
        return MAPS[name]
    if match := FEATURE.fullmatch(name):
        number = int(match[1])
        return LatentMap(partial(feature, number=number), f"feature {number}", signed=True)
    raise ValueError(f'there is no latent map "{name}": choose {", ".join(MAPS)} or feature-K for a single feature')


def feature(tokens_BLE: Tensor, number: int) -> Tensor:
    """(B, L, E) -> (B, L): one feature of each token. ValueError if tokens have fewer."""
    if number >= tokens_BLE.shape[-1]:
        raise ValueError(f"feature-{number} does not exist: tokens have features 0 to {tokens_BLE.shape[-1] - 1}")
    return tokens_BLE[..., number]


def on_grid(values_BL: Tensor, grid: Grid) -> Tensor:
    """(B, L) in raster order, Z slowest -> (B, z, y, x). ValueError if L does not fill the grid."""
    z, y, x = grid
    if values_BL.shape[1] != z * y * x:
        raise ValueError(f"{values_BL.shape[1]} tokens do not fill the grid {grid}: give every token, in raster order")
    return values_BL.reshape(-1, z, y, x)


def upsample(map_Bzyx: Tensor, size: Grid, how: Upsampling = "nearest") -> Tensor:
    """(B, z, y, x) on the token grid -> (B, Z, Y, X) voxels.

    "nearest", the paper's, fills each patch with its token's value; "trilinear" interpolates between patch centres.
    """
    return F.interpolate(map_Bzyx.unsqueeze(1).float(), size=tuple(size), mode=how).squeeze(1)


def block_number(model: VolumeEncoder, block: int) -> int:
    """A block counted from 0, given from 0 or, negative, from the end. ValueError for one that does not exist."""
    depth = model.config.depth
    if not -depth <= block < depth:
        raise ValueError(f"--block {block} does not exist: the model has blocks 0 to {depth - 1}, -1 is the last")
    return block % depth


def latent_maps(
    model: PatchPredictor | VolumeClassifier, volume_BCZYX: Tensor, names: Iterable[str], block: int = -1
) -> dict[str, Tensor]:
    """Maps (B, z, y, x) of an unmasked volume's tokens after a block, the last unless given; one forward pass for all.

    ValueError for a name or block that does not exist.
    """
    maps = {name: latent_map(name) for name in names}
    with evaluating(model):
        number = block_number(model, block)
        state_BLE = model.forward_intermediates(volume_BCZYX, [number], intermediates_only=True)[0]
        assert isinstance(state_BLE, Tensor)
        normed_BLE = model.norm_f(state_BLE)
        return {
            name: found(state_BLE if found.before_norm else normed_BLE, model.grid).float()
            for name, found in maps.items()
        }
