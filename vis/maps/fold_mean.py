"""Maps averaged over the models of all folds, for a scan that is in no fold."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from models import VolumeClassifier
from vis.maps.latent import MAPS
from vis.maps.path_integral import Completeness
from vis.maps.registry import CLASS_SPECIFIC, MapOptions, compute_maps

# Kinds that can be averaged. Signed latent maps are excluded: each fold has its own features and component signs.
AVERAGED_MAPS = (*(name for name in MAPS if not MAPS[name].signed), *CLASS_SPECIFIC)


class MeanMap(NamedTuple):
    """A map of one volume, averaged over folds."""

    values_zyx: Tensor
    completeness: Completeness | None
    """The completeness of the fold with the largest gap. None for a map without completeness."""


def mean_maps(
    models: Iterable[VolumeClassifier], volume_BCZYX: Tensor, names: Sequence[str], target: int
) -> dict[str, MeanMap]:
    """Maps of one volume (1, C, Z, Y, X), averaged over `models`. Class-specific maps explain class `target`.

    ValueError for a kind of map that the models do not support.
    """
    options = MapOptions(target=target)
    maps_by_model = [compute_maps(model, volume_BCZYX, names, options) for model in models]
    means = {}
    for name in maps_by_model[0]:
        values, completeness = zip(*(maps[name].first() for maps in maps_by_model))
        checked = [each for each in completeness if each is not None]
        means[name] = MeanMap(torch.stack(values).mean(0).cpu(), max(checked, key=lambda each: each.gap, default=None))
    return means
