"""Open a run folder for inference: its model with weights and its data, one subject at a time."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import PatchPredictor, VolumeClassifier, create_model
from models.config import Fidelity
from util.checkpoint.loading import load_pretrained, load_weights
from util.cli import nearest
from util.data.dataset import PreparedVolumes
from util.data.folder import PHANTOM
from util.data.manifest import NAME as MANIFEST
from util.distributed.world import choose_device
from util.hub.download import local_path
from util.inference.probabilities import probabilities
from util.inference.study import Study
from util.protocol.best_epoch import selected_weights
from util.protocol.decision import Decision, read_decision
from util.run_folder import fold_folder
from util.runs import RunKind, data_root, last_checkpoint, read_config, read_fold_config

logger = logging.getLogger(__name__)
SCRIPTS = {"pretrain": "visualize.py", "finetune": "visualize_finetuned.py"}


@dataclass(frozen=True)
class OpenRun:
    """A run in memory. The model is on `device`, in evaluation mode.

    decision: the views, temperature and threshold of the opened fold; the default ones if a checkpoint was named.
    """

    folder: Path
    config: dict[str, Any]
    checkpoint: Path
    model: PatchPredictor | VolumeClassifier
    data: PreparedVolumes
    device: torch.device
    decision: Decision

    @property
    def phantom(self) -> bool:
        return is_phantom(self.config, self.data.root)

    def batch(self, study: Study) -> Tensor:
        """The study's volume as a batch (1, C, Z, Y, X) on the device."""
        return torch.from_numpy(study.volume_CZYX).unsqueeze(0).to(self.device)

    def probability(self, volume_BCZYX: Tensor) -> float:
        """The probability of class 1 that the run's classifier gives one volume (1, C, Z, Y, X)."""
        assert isinstance(self.model, VolumeClassifier)
        return probabilities(self.model, volume_BCZYX, self.decision)[0, 1].item()

    def predicted_class(self, probability: float) -> int:
        """The class that the run predicts at this probability of class 1. Class-specific maps explain it."""
        return int(probability >= self.decision.threshold)

    def study(self, subject: str) -> Study:
        """The study of one subject, normalised as in training and not augmented."""
        volume_CZYX, _ = self.data[self.data.subjects.index(subject)]
        return Study(
            subject,
            self.data.contrasts,
            volume_CZYX.numpy(),
            self.data.segmentation(subject),
            oriented=(self.data.root / MANIFEST).exists(),
            phantom=self.phantom,
        )


def open_run(
    folder: Path,
    kind: RunKind,
    *,
    checkpoint: Path | None = None,
    fold: int | None = None,
    data: Path | None = None,
    device: str = "auto",
    fidelity: Fidelity | None = None,
) -> OpenRun:
    """Open a run of this kind at `checkpoint` (default: the last one, or the one that `fold` is tested with).

    data: a prepared folder instead of the run's own. fidelity: a fidelity instead of the run's own. Raises ValueError
    with the option to change.
    """
    folder = local_path(folder, folds=True)
    config = read_config(folder)
    if config.get("kind") != kind:
        other = SCRIPTS.get(config.get("kind", ""), "another program")
        raise ValueError(f"--run {folder} is not a {kind} run; {other} shows it")
    if fold is not None:
        config = read_fold_config(folder, fold)
    device = choose_device(device)
    decision = Decision()
    if checkpoint is None and fold is not None:
        decision = read_decision(fold_folder(folder, fold), config.get("args", {}))
        checkpoint = selected_weights(fold_folder(folder, fold), decision.select)
    elif checkpoint is None:
        checkpoint = last_checkpoint(folder)
    root = data if data is not None else data_root(config)
    if root is None:
        raise ValueError(f"--run {folder} was exported without its data: name a prepared folder with --data")
    if not root.is_dir():
        raise ValueError(f"the prepared data {root} of {folder} do not exist; name their folder with --data")
    volumes = PreparedVolumes(root, contrasts=config["data"]["contrasts"], normalize=config["data"]["normalize"])
    fields = config["model"]["fields"]
    model = create_model(config["model"]["name"], **(fields if fidelity is None else {**fields, "fidelity": fidelity}))
    assert isinstance(model, PatchPredictor | VolumeClassifier)
    if volumes.size != model.config.img_size:
        raise ValueError(
            f"volumes in {root} are {volumes.size} voxels, the run was trained on {model.config.img_size}; "
            f"choose other --data, or prepare them with --size {' '.join(map(str, model.config.img_size))}"
        )
    own_fidelity = fields.get("fidelity", "corrected")
    if fidelity in (None, own_fidelity):
        load_weights(model, checkpoint)
    else:
        logger.info("%s was trained with fidelity %s, shown with --fidelity %s", folder, own_fidelity, fidelity)
        if missing := load_pretrained(model, checkpoint, any_fidelity=True).missing:
            raise ValueError(f"checkpoint {checkpoint} is not of this model: it lacks {', '.join(missing)}")
    logger.info("%s, data %s (%d subjects)", checkpoint, root, len(volumes))
    return OpenRun(folder, config, checkpoint, model.to(device).eval(), volumes, torch.device(device), decision)


def is_phantom(config: dict[str, Any], root: Path | None) -> bool:
    """Whether data are simulated: the names that `prepare_data.py phantom` gives them show it, or an exported run
    records it."""
    if root is None:
        return config["data"].get("phantom") is True
    return any(any((root / contrast).glob(f"{PHANTOM}*.npy")) for contrast in config["data"]["contrasts"])


def choose_subjects(wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    """The subjects that --subjects selects: names, or one number N for the first N of `known`. Raises ValueError, with
    the nearest name, for an unknown subject."""
    if len(wanted) == 1 and wanted[0].isdigit() and wanted[0] not in known:
        if not 1 <= int(wanted[0]) <= len(known):
            raise ValueError(f"--subjects {wanted[0]}: choose 1 to {len(known)}, or names")
        return list(known[: int(wanted[0])])
    for name in wanted:
        if name not in known:
            raise ValueError(f'--subjects: there is no "{name}" among the {len(known)} subjects{nearest(name, known)}')
    return list(dict.fromkeys(wanted))
