"""All kinds of maps by name: computed from a model and a volume, on the token grid."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor

from models import PatchPredictor, VolumeClassifier
from util.cli import nearest
from vis.maps.explained_class import target_classes
from vis.maps.gradients import direction_difference, gradient_activation, integrated_gradients, scan_influence
from vis.maps.latent import MAPS, latent_map, latent_maps
from vis.maps.occlusion import occlusion
from vis.maps.path_integral import Completeness
from vis.maps.token_grid import on_grid, patch_sums

LOG_ODDS = "log-odds of the class"


@dataclass(frozen=True)
class MapOptions:
    """Settings of all kinds of maps. Each kind uses the fields that apply to it."""

    block: int = -1
    """Index of the block after which the map is computed, from 0. Negative values count from the end."""
    target: int | None = None
    """Class that a class-specific map explains. None: the predicted class of each volume."""
    steps: int = 16
    """Steps of integrated gradients. They are doubled while the completeness gap is too large."""
    window: int = 1
    """Side of an occlusion window in patches."""
    batch: int = 8
    """Volumes per forward pass."""


@dataclass(frozen=True)
class MapKind:
    """The properties of a kind of map that figures and scores need."""

    title: str
    signed: bool
    """Values lie on both sides of 0, and their sign has a meaning."""
    unit: str
    scored_by: Literal["value", "magnitude"]
    """The quantity that should be high in a tumour. "magnitude": the sign is arbitrary, or both signs count."""
    class_specific: bool = False


class SpatialMap(NamedTuple):
    """A map on the token grid."""

    values_Bzyx: Tensor
    """float32."""
    completeness: list[Completeness] | None = None
    """Completeness of each volume. None for a map that does not approximate an integral."""

    def first(self) -> tuple[Tensor, Completeness | None]:
        """The map (z, y, x) of the first volume, and its completeness."""
        return self.values_Bzyx[0], self.completeness[0] if self.completeness else None


TokenValues = tuple[Tensor, list[Completeness] | None]
Attribution = Callable[[VolumeClassifier, Tensor, Tensor, MapOptions], TokenValues]
"""(model, volume (B, C, Z, Y, X), class (B,), options) -> values (B, L) and their completeness."""


def _gradient(model: VolumeClassifier, volume: Tensor, target: Tensor, options: MapOptions) -> TokenValues:
    return gradient_activation(model, volume, target, options.block), None


def _influence(model: VolumeClassifier, volume: Tensor, target: Tensor, options: MapOptions) -> TokenValues:
    return scan_influence(model, volume, target, options.block), None


def _integrated(model: VolumeClassifier, volume: Tensor, target: Tensor, options: MapOptions) -> TokenValues:
    attributions_BCZYX, completeness = integrated_gradients(
        model, volume, target, steps=options.steps, batch=options.batch
    )
    return patch_sums(attributions_BCZYX.sum(dim=1), model.config.patch_size), completeness


def _occlusion(model: VolumeClassifier, volume: Tensor, target: Tensor, options: MapOptions) -> TokenValues:
    return occlusion(model, volume, target, window=options.window, batch=options.batch), None


_for_class = partial(MapKind, signed=True, unit=LOG_ODDS, scored_by="value", class_specific=True)
CLASS_SPECIFIC: dict[str, tuple[MapKind, Attribution]] = {
    "gradient": (_for_class("gradient x activation"), _gradient),
    "integrated": (_for_class("integrated gradients"), _integrated),
    "occlusion": (_for_class("drop when occluded"), _occlusion),
    "influence": (_for_class("influence through the scan"), _influence),
}
DIRECTIONS = MapKind("forward minus backward scan", signed=True, unit="no unit", scored_by="magnitude")
NAMES = (*MAPS, "directions", *CLASS_SPECIFIC)


def map_kind(name: str) -> MapKind:
    """The kind of map with this name. ValueError for an unknown name, with a hint at the nearest known one."""
    if name in CLASS_SPECIFIC:
        return CLASS_SPECIFIC[name][0]
    if name == "directions":
        return DIRECTIONS
    try:
        latent = latent_map(name)
    except ValueError as error:
        known = f"{', '.join(NAMES)}, feature-K"
        raise ValueError(f'there is no map "{name}"{nearest(name, NAMES)} (choose from {known})') from error
    return MapKind(latent.title, latent.signed, latent.unit, "magnitude" if name == "pca" else "value")


def map_name(text: str) -> str:
    """Check the name of a map. For use as the `type` of an argparse option."""
    try:
        map_kind(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def compute_maps(
    model: PatchPredictor | VolumeClassifier,
    volume_BCZYX: Tensor,
    names: Iterable[str],
    options: MapOptions = MapOptions(),  # noqa: B008  (frozen)
) -> dict[str, SpatialMap]:
    """Compute maps, by name.

    ValueError for an unknown name, and for a class-specific map of a model without classes.
    """
    names = list(names)
    kinds = {name: map_kind(name) for name in names}
    specific = [name for name in names if kinds[name].class_specific]
    latent = [name for name in names if not kinds[name].class_specific and name != "directions"]
    values_by_name = latent_maps(model, volume_BCZYX, latent, options.block) if latent else {}
    maps = {name: SpatialMap(values_Bzyx) for name, values_Bzyx in values_by_name.items()}
    if "directions" in names:
        values_BL = direction_difference(model, volume_BCZYX, options.block)
        maps["directions"] = SpatialMap(on_grid(values_BL, model.grid))
    if specific:
        if not isinstance(model, VolumeClassifier):
            raise ValueError(f"--map {specific[0]} explains a class: it needs a fine-tuned run")
        target_B = target_classes(model, volume_BCZYX, options.target)
        for name in specific:
            values_BL, completeness = CLASS_SPECIFIC[name][1](model, volume_BCZYX, target_B, options)
            maps[name] = SpatialMap(on_grid(values_BL, model.grid), completeness)
    return {name: maps[name]._replace(values_Bzyx=maps[name].values_Bzyx.detach().float()) for name in names}
