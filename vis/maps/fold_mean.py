"""The mean of the maps of all folds of a run, for a scan that no fold has seen."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models import VolumeClassifier
from vis.maps.path_integral import Completeness
from vis.maps.registry import MapOptions, compute_maps


class MeanMap(NamedTuple):
    """The mean of the folds' maps of one volume."""

    values_zyx: Tensor
    completeness: Completeness | None
    """Of the fold with the largest gap, where the map approximates an integral."""


def mean_maps(
    models: Iterable[VolumeClassifier], volume_BCZYX: Tensor, names: Sequence[str], target: int
) -> dict[str, MeanMap]:
    """Maps of one volume (1, C, Z, Y, X); class-specific ones explain class `target`.

    ValueError for a kind of map that the models do not have.
    """
    options = MapOptions(target=target)
    of_models = [compute_maps(model, volume_BCZYX, names, options) for model in models]
    means = {}
    for name in of_models[0]:
        values, completeness = zip(*(maps[name].first() for maps in of_models))
        known = [each for each in completeness if each is not None]
        means[name] = MeanMap(torch.stack(values).mean(0).cpu(), max(known, key=lambda each: each.gap, default=None))
    return means
