"""All checks of one held-out subject: scores of its maps, of trivial maps, and of the maps of comparison models."""

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from models import VolumeClassifier
from util.inference.open_run import OpenRun
from util.inference.study import Study
from vis.map_checks.deletion_insertion import deletion_insertion_areas
from vis.map_checks.random_weights import randomised_models, rank_correlation
from vis.map_checks.table import PER_VOXEL, RANDOM, ScoreRow
from vis.map_checks.tumour_scores import (
    Variant,
    VoxelCounts,
    intensity_contrast,
    map_variants,
    patch_counts,
    trivial_maps,
    tumour_scores,
    voxel_intensity,
)
from vis.maps.registry import MapOptions, SpatialMap, compute_maps

Scores = dict[str, dict[str, float]]
"""Scores by name, by map variant."""


@dataclass(frozen=True)
class ComparisonModels:
    """Models whose maps of the same subject are compared with the map under test."""

    folds: Sequence[VolumeClassifier] = ()
    """The other folds of the run. They trained on the subject, unless the cross-validation was repeated."""
    seeds: Sequence[VolumeClassifier] = ()
    """Repeated runs with other seeds: the folds that held out the subject."""
    shuffled: VolumeClassifier | None = None
    """A model trained on shuffled labels."""
    randomise: bool = False
    """Also compare with randomised weights."""


@dataclass(frozen=True)
class SubjectResult:
    """The maps and the scores of one subject."""

    study: Study
    label: int
    target: int
    """The class that the maps explain."""
    maps: dict[str, Tensor]
    """(z, y, x) by name."""
    rows: list[ScoreRow]
    similarities: list[dict[str, Any]]
    """{subject, stage, method, similarity} for every stage of the weight randomisation."""


@dataclass(frozen=True)
class _MapsOfSubject:
    """Computes the map variants of one subject by any model."""

    volume_1CZYX: Tensor
    names: Sequence[str]
    options: MapOptions
    counts: VoxelCounts

    def maps(self, model: VolumeClassifier) -> dict[str, SpatialMap]:
        return compute_maps(model, self.volume_1CZYX, self.names, self.options)

    def variants(self, maps: dict[str, SpatialMap]) -> dict[str, Variant]:
        variants: dict[str, Variant] = {}
        for name, spatial in maps.items():
            values = spatial.values_Bzyx.flatten().cpu().double().numpy()
            variants |= map_variants(name, values, self.counts.has_brain)
        return variants

    def variants_of(self, model: VolumeClassifier) -> dict[str, Variant]:
        return self.variants(self.maps(model))


def score_subject(
    opened: OpenRun,
    study: Study,
    names: Sequence[str],
    options: MapOptions,
    *,
    fold: int,
    label: int,
    others: ComparisonModels = ComparisonModels(),  # noqa: B008  (frozen)
) -> SubjectResult:
    """All scores of one subject by the model of the run, which must not have trained on the subject.

    names, options: the maps to check. The maps of all models explain the class that the run predicts for the subject.
    """
    model, volume_1CZYX = opened.model, opened.batch(study)
    assert isinstance(model, VolumeClassifier)
    target = opened.predicted_class(opened.probability(volume_1CZYX))
    counts = patch_counts(study, model.config.patch_size)
    subject = _MapsOfSubject(volume_1CZYX, names, dataclasses.replace(options, target=target), counts)
    maps = subject.maps(model)
    variants = subject.variants(maps)

    scores: Scores = {}
    for name, variant in (_maps_without_model(study, model.config.patch_size, counts) | variants).items():
        areas = deletion_insertion_areas(
            model, volume_1CZYX, variant.values, counts.has_brain, target, batch=options.batch
        )
        scores[name] = {**_localisation(variant, counts), **areas}
    scores[f"{intensity_contrast(study.contrasts)}{PER_VOXEL}"] = _localisation(*voxel_intensity(study))
    similarities = _compare_random_weights(opened, subject, variants, scores) if others.randomise else []
    for kind, models in (("fold_similarity", others.folds), ("seed_similarity", others.seeds)):
        if models:
            _compare_models(kind, models, subject, variants, scores)
    if others.shuffled is not None:
        for name, variant in subject.variants_of(others.shuffled).items():
            scores[name] |= _tumour_auc("shuffled_auc", variant, counts)
    for name, spatial in maps.items():
        for completeness in spatial.completeness or ():
            completeness.warn(study.subject)
            for row in subject.variants({name: spatial}):
                scores[row]["completeness_gap"] = completeness.gap
    return SubjectResult(
        study,
        label,
        target,
        {name: spatial.values_Bzyx[0] for name, spatial in maps.items()},
        [ScoreRow(study.subject, fold, label, name, **values) for name, values in scores.items()],
        [{"subject": study.subject, **similarity} for similarity in similarities],
    )


def _maps_without_model(study: Study, patch_size: int, counts: VoxelCounts) -> dict[str, Variant]:
    """Random values, which are the same in every run, and the trivial maps."""
    generator = np.random.default_rng(zlib.crc32(study.subject.encode()))
    maps = {RANDOM: generator.random(len(counts.brain)), **trivial_maps(study, patch_size)}
    return {name: Variant(values, 0.0) for name, values in maps.items()}


def _compare_random_weights(
    opened: OpenRun, subject: _MapsOfSubject, variants: dict[str, Variant], scores: Scores
) -> list[dict[str, Any]]:
    """The similarity at every stage of randomisation. Adds the scores of fully random weights to `scores`."""
    assert isinstance(opened.model, VolumeClassifier)
    similarities, created = [], opened.config["model"]
    for stage, randomised in randomised_models(opened.model, created["name"], created["fields"]):
        for name, variant in subject.variants_of(randomised).items():
            similarity = rank_correlation(variants[name].values, variant.values, subject.counts.has_brain)
            similarities.append({"stage": stage, "method": name, "similarity": similarity})
            if stage == "everything":
                scores[name]["random_similarity"] = similarity
                scores[name] |= _tumour_auc("random_auc", variant, subject.counts)
    return similarities


def _compare_models(
    kind: str,
    models: Sequence[VolumeClassifier],
    subject: _MapsOfSubject,
    variants: dict[str, Variant],
    scores: Scores,
) -> None:
    """Add to `scores` the mean rank correlation with the maps of other models."""
    by_model = [subject.variants_of(model) for model in models]
    for name, variant in variants.items():
        similarities = [
            rank_correlation(variant.values, other[name].values, subject.counts.has_brain) for other in by_model
        ]
        scores[name][kind] = float(np.mean(similarities))


def _localisation(variant: Variant, counts: VoxelCounts) -> dict[str, float]:
    """Tumour scores; empty if the subject has no tumour mask."""
    return tumour_scores(variant, counts) if counts.tumour.any() else {}


def _tumour_auc(name: str, variant: Variant, counts: VoxelCounts) -> dict[str, float]:
    """The tumour AUC under another name; empty if the subject has no tumour mask."""
    scores = _localisation(variant, counts)
    return {name: scores["auc"]} if scores else {}
