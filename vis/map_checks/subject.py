"""One held-out subject put to the test: scores of every map, of trivial ones, of randomised and shuffled models."""

import dataclasses
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from models import VolumeClassifier
from util.inference.open_run import Session
from util.inference.study import Study
from vis.map_checks.deletion_insertion import erasure_areas
from vis.map_checks.random_weights import cascade, similarity
from vis.map_checks.table import CHANCE, VOXELWISE, Scored
from vis.map_checks.tumour_scores import (
    Places,
    Reading,
    readings,
    token_places,
    trivial_maps,
    tumour_scores,
    voxel_flair,
)
from vis.maps.registry import MapOptions, SpatialMap, compute_maps


@dataclass(frozen=True)
class Check:
    """Which maps are checked, and how they are computed; the class is the one that the run calls each subject."""

    names: tuple[str, ...]
    options: MapOptions

    @staticmethod
    def trivial(contrasts: tuple[str, ...]) -> tuple[str, str]:
        """Rows that a map must beat."""
        return ("flair" if "flair" in contrasts else contrasts[-1]), "centre"


@dataclass(frozen=True)
class Others:
    """Models whose maps of the same subject are compared with the map under test."""

    folds: Sequence[VolumeClassifier] = ()
    """Of the run's other folds. They trained on the subject, unless the division was repeated."""
    seeds: Sequence[VolumeClassifier] = ()
    """Of repeated runs, from folds that held the subject out."""
    shuffled: VolumeClassifier | None = None
    """Trained on shuffled labels."""
    randomise: bool = False
    """Also draw the weights anew, part by part."""


@dataclass(frozen=True)
class Found:
    """Of one subject."""

    study: Study
    label: int
    target: int
    maps: dict[str, Tensor]
    """(z, y, x) by name."""
    rows: list[Scored]
    similarities: list[dict[str, Any]]
    """{subject, stage, method, similarity} of maps of partly randomised models."""


def score_subject(
    session: Session,
    study: Study,
    check: Check,
    *,
    fold: int,
    label: int,
    others: Others = Others(),  # noqa: B008  (frozen)
) -> Found:
    """All scores of one subject by the session's model, which must not have trained on it.

    All models explain the class that the session's run calls.
    """
    model, volume_1CZYX = session.model, session.batch(study)
    assert isinstance(model, VolumeClassifier)
    target = session.called(session.probability(volume_1CZYX))
    options = dataclasses.replace(check.options, target=target)
    places = token_places(study, model.config.patch_size)

    def read(maps: dict[str, SpatialMap]) -> dict[str, Reading]:
        found: dict[str, Reading] = {}
        for name, spatial in maps.items():
            found |= readings(name, spatial.values_Bzyx.flatten().cpu().double().numpy(), places.occupied)
        return found

    def maps_of(other: VolumeClassifier) -> dict[str, SpatialMap]:
        return compute_maps(other, volume_1CZYX, check.names, options)

    maps = maps_of(model)
    read_here = read(maps)
    generator = np.random.default_rng(zlib.crc32(study.subject.encode()))
    rows: dict[str, Reading] = {CHANCE: Reading(generator.random(len(places.brain)), 0.0)}
    rows |= {name: Reading(values, 0.0) for name, values in trivial_maps(study, model.config.patch_size).items()}
    rows |= read_here
    scores: dict[str, dict[str, float]] = {}
    for name, reading in rows.items():
        areas = erasure_areas(model, volume_1CZYX, reading.values, places.occupied, target, batch=check.options.batch)
        scores[name] = {**_against_mask(reading, places), **areas}
    intensity, _ = check.trivial(study.contrasts)
    scores[f"{intensity}{VOXELWISE}"] = _against_mask(*voxel_flair(study))

    similarities = []
    if others.randomise:
        fields = session.config["model"]
        for stage, randomised in cascade(model, fields["name"], fields["fields"]):
            for name, reading in read(maps_of(randomised)).items():
                alike = similarity(read_here[name].values, reading.values, places.occupied)
                similarities.append({"subject": study.subject, "stage": stage, "method": name, "similarity": alike})
                if stage == "everything":
                    scores[name]["random_similarity"] = alike
                    scores[name] |= _named("random_auc", reading, places)
    for kind, models in (("fold_similarity", others.folds), ("seed_similarity", others.seeds)):
        if models:
            alike = [read(maps_of(other)) for other in models]
            for name, here in read_here.items():
                scores[name][kind] = float(
                    np.mean([similarity(here.values, there[name].values, places.occupied) for there in alike])
                )
    if others.shuffled is not None:
        for name, reading in read(maps_of(others.shuffled)).items():
            scores[name] |= _named("shuffled_auc", reading, places)
    for name, spatial in maps.items():
        for completeness in spatial.completeness or ():
            completeness.warn(study.subject)
            for row in read({name: spatial}):
                scores[row]["completeness_gap"] = completeness.gap
    scored = [Scored(study.subject, fold, label, name, **found) for name, found in scores.items()]
    shown = {name: spatial.values_Bzyx[0] for name, spatial in maps.items()}
    return Found(study, label, target, shown, scored, similarities)


def _against_mask(reading: Reading, places: Places) -> dict[str, float]:
    """Nothing where the subject has no tumour mask."""
    return tumour_scores(reading, places) if places.tumour.any() else {}


def _named(name: str, reading: Reading, places: Places) -> dict[str, float]:
    scores = _against_mask(reading, places)
    return {name: scores["auc"]} if scores else {}
