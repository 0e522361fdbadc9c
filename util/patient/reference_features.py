"""Held-out subjects of a run as its models see them: what a new scan is compared with."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from util.data.dataset import PreparedVolumes
from util.inference.ensemble import FoldEnsemble
from util.patient.novelty import Reference, make_reference
from util.probing.features import cached, extract_features, file_hash, state_of_volumes
from util.protocol.held_out import held_out, read_folds
from util.run_folder import REFERENCE_FEATURES

logger = logging.getLogger(__name__)


def references(ensemble: FoldEnsemble, missing: Sequence[str], limit: int) -> list[Reference | None]:
    """Of every fold, its held-out subjects (at most `limit`, evenly from the list) without the contrasts `missing`.

    Features are those that the head reads from a mean pool. They are computed once and kept in RUN/reference.
    ValueError where the data of the run cannot be read.
    """
    root = ensemble.data_root
    if root is None:
        raise ValueError("an exported run has no data of held-out subjects; only the run itself can be compared with")
    if not root.is_dir():
        raise ValueError(f"the data that the run was trained on, {root}, are not there")
    folds, data = read_folds(ensemble.folder), ensemble.config["data"]
    volumes = PreparedVolumes(root, contrasts=ensemble.contrasts, normalize=data["normalize"])
    hide = without([ensemble.contrasts.index(name) for name in missing])
    found = []
    for fold, model in ensemble.models.items():
        subjects = held_out(folds, fold)
        places = np.linspace(0, len(subjects) - 1, min(limit, len(subjects))).round().astype(int)
        part = volumes.subset([subjects[place] for place in places], transform=hide if missing else None)
        depends_on = {
            "weights": file_hash(ensemble.checkpoints[fold]),
            "data": state_of_volumes(part),
            "missing": list(missing),
            "normalize": data["normalize"],
        }
        last_layer = [model.config.depth - 1]
        compute = partial(extract_features, model, part, last_layer, device=ensemble.device)
        features_S1E = cached(ensemble.folder / REFERENCE_FEATURES, depends_on, compute)
        found.append(make_reference(features_S1E[:, 0]))
    return found


def without(channels: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A transform of PreparedVolumes: (C, Z, Y, X) in [0, 1] with some channels 0, as if they were missing."""

    def hide(volume_CZYX: Tensor) -> Tensor:
        volume_CZYX = volume_CZYX.clone()
        volume_CZYX[list(channels)] = 0
        return volume_CZYX

    return hide
