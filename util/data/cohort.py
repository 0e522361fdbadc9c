"""The cohort of a training: the subjects of a prepared folder with a known label."""

import logging
from dataclasses import dataclass
from pathlib import Path

from util.data.dataset import PreparedVolumes
from util.data.folder import LABEL_SHEET
from util.data.labels import UNKNOWN, LabelType, read_labels
from util.data.normalize import Normalize
from util.data.stand_ins import OnBadVolume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cohort:
    """Subjects with a known label. sheet: the file of the labels; n_unknown: subjects without one, which are left
    out."""

    volumes: PreparedVolumes
    labels: dict[str, int]
    sheet: Path
    n_unknown: int


def load_cohort(
    root: Path,
    label_type: LabelType,
    *,
    sheet: Path | None = None,
    normalize: Normalize,
    on_bad_volume: OnBadVolume = "stop",
) -> Cohort:
    """Read the label sheet, by default the one in `root`, and leave out subjects whose label is unknown (-1)."""
    volumes = PreparedVolumes(root, normalize=normalize, on_bad_volume=on_bad_volume)
    sheet = sheet or root / LABEL_SHEET
    labels = read_labels(sheet, label_type, volumes.subjects)
    known = {subject: labels[subject] for subject in volumes.subjects if labels[subject] != UNKNOWN}
    n_unknown = len(volumes) - len(known)
    logger.info("%s: %d subjects with a known label, %d unknown left out", label_type, len(known), n_unknown)
    return Cohort(volumes.subset(list(known)).relabelled(known), known, sheet, n_unknown)
