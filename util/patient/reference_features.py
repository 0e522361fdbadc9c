"""The features of a run's held-out subjects, which a new scan is compared with."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from util.data.dataset import PreparedVolumes
from util.inference.ensemble import FoldEnsemble
from util.patient.novelty import ReferenceFeatures, make_reference
from util.probing.features import cached, extract_features, file_hash, state_of_volumes
from util.protocol.held_out import held_out, read_folds
from util.run_folder import REFERENCE_FEATURES

logger = logging.getLogger(__name__)


def reference_features(ensemble: FoldEnsemble, missing: Sequence[str], limit: int) -> list[ReferenceFeatures | None]:
    """The reference of every fold: features of its held-out subjects (at most `limit`, evenly spaced in their list)
    without the contrasts `missing`.

    Features are mean-pooled tokens, as the head reads them. They are computed once and cached in RUN/reference. Raises
    ValueError if the data of the run cannot be read.
    """
    root = ensemble.data_root
    if root is None:
        raise ValueError("an exported run has no data of held-out subjects; only the run itself can be compared with")
    if not root.is_dir():
        raise ValueError(f"the data that the run was trained on, {root}, do not exist")
    folds, data = read_folds(ensemble.folder), ensemble.config["data"]
    volumes = PreparedVolumes(root, contrasts=ensemble.contrasts, normalize=data["normalize"])
    hide = without([ensemble.contrasts.index(name) for name in missing])
    references = []
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
        references.append(make_reference(features_S1E[:, 0]))
    return references


def without(channels: Sequence[int]) -> Callable[[Tensor], Tensor]:
    """A transform for PreparedVolumes that sets some channels of (C, Z, Y, X) to 0, as if they were missing."""

    def hide(volume_CZYX: Tensor) -> Tensor:
        volume_CZYX = volume_CZYX.clone()
        volume_CZYX[list(channels)] = 0
        return volume_CZYX

    return hide
