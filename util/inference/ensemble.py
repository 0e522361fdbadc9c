"""The models of all folds of a fine-tuning run as one, for patients that no fold has seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import VolumeClassifier, create_model
from util.checkpoint.loading import load_weights
from util.data.manifest import read_manifest
from util.data.normalize import Normalize, normalize_volume
from util.data.prepare.study import Prepared, Settings
from util.hub.download import located
from util.inference.probabilities import decided
from util.protocol.best_epoch import selected_weights
from util.protocol.decision import Decision, read_decision
from util.protocol.tta import views_of
from util.run_folder import fold_folders
from util.runs import checkpoints, data_root, read_config
from util.training.eval_mode import evaluating


@dataclass(frozen=True)
class Opinion:
    """One scan as all folds see it. probability: of class 1, the mean over folds; features: (E,) by fold."""

    by_fold: dict[int, float]
    features: dict[int, np.ndarray]

    @property
    def probability(self) -> float:
        return float(np.mean(list(self.by_fold.values())))

    @property
    def sd(self) -> float:
        """Standard deviation over folds; 0 for a single one."""
        return float(np.std(list(self.by_fold.values()), ddof=1)) if len(self.by_fold) > 1 else 0.0


@dataclass(frozen=True)
class FoldEnsemble:
    """models, checkpoints and decisions by fold; models are on `device`, in evaluation mode."""

    folder: Path
    config: dict[str, Any]
    models: dict[int, VolumeClassifier]
    checkpoints: dict[int, Path]
    decisions: dict[int, Decision]
    settings: Settings
    device: torch.device
    warnings: tuple[str, ...] = ()

    @property
    def label_type(self) -> str:
        return self.config["label_type"]

    @property
    def threshold(self) -> float:
        """Of the ensemble's probability: the mean of the folds' thresholds, as between repeats in
        util/statistics/scores.py."""
        return float(np.mean([decision.threshold for decision in self.decisions.values()]))

    def called(self, opinion: Opinion) -> int:
        """The class that the folds call together."""
        return int(opinion.probability >= self.threshold)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """That the models read, in the order of their channels."""
        return tuple(self.config["data"]["contrasts"])

    @property
    def data_root(self) -> Path | None:
        return data_root(self.config)

    def check_contrasts(self, missing: Sequence[str]) -> None:
        """Raise ValueError, naming the missing contrasts, where the models were not trained to do without any."""
        if len(missing) == len(self.contrasts):
            raise ValueError(f"none of {', '.join(self.contrasts)} is there, and {self.folder} needs at least one")
        if missing and not all(model.config.contrast_dropout for model in self.models.values()):
            raise ValueError(
                f"{', '.join(missing)} missing, and {self.folder} was trained with all of {', '.join(self.contrasts)}: "
                "give the missing files, or a run that was fine-tuned with --contrast_dropout"
            )

    def model_input(self, prepared: Prepared) -> Tensor:
        """(1, C, Z, Y, X) on the device, normalised as in training; a contrast that is missing is 0."""
        shape = next(iter(prepared.volumes.values())).shape
        stored_CZYX = np.stack([prepared.volumes.get(name, np.zeros(shape, np.uint8)) for name in self.contrasts])
        normalize: Normalize = self.config["data"]["normalize"]
        return normalize_volume(torch.from_numpy(stored_CZYX).float() / 255, normalize).unsqueeze(0).to(self.device)

    def opinion(self, volume_BCZYX: Tensor) -> Opinion:
        """Of one volume (1, C, Z, Y, X)."""
        by_fold, features = {}, {}
        for fold, model in self.models.items():
            with evaluating(model):
                views = [model.forward_features(view) for view in views_of(volume_BCZYX, self.decisions[fold].tta)]
                found_BK = decided([model.forward_head(tokens_BLE) for tokens_BLE in views], self.decisions[fold])
            by_fold[fold] = found_BK[0, 1].item()
            features[fold] = views[0][0].float().mean(0).cpu().numpy()  # of the scan as it is
        return Opinion(by_fold, features)


def open_ensemble(folder: Path, device: torch.device) -> FoldEnsemble:
    """Every fold of a fine-tuning run that has weights; also of an exported one, or of one on the hub. ValueError names
    the run or file at fault and the fix."""
    folder = located(folder, folds=True)
    config = read_config(folder)
    if config.get("kind") != "finetune":
        raise ValueError(f"--run {folder} is not a fine-tuning run; give the --output_dir of main_cr_finetune.py")
    warnings = []
    trained = {fold: part for fold, part in fold_folders(folder).items() if checkpoints(part)}
    decisions = {fold: read_decision(part, config.get("args", {})) for fold, part in trained.items()}
    paths = {fold: selected_weights(part, decisions[fold].select) for fold, part in trained.items()}
    if not paths:
        raise ValueError(f"--run {folder} has no fold with a checkpoint; let main_cr_finetune.py finish one")
    count = config.get("k_fold", len(paths)) * config.get("repeats", 1)
    if len(paths) < count:
        warnings.append(f"only {len(paths)} of {count} folds of {folder} have a checkpoint")
    models = {}
    for fold in paths:
        model = create_model(config["model"]["name"], **config["model"]["fields"])
        assert isinstance(model, VolumeClassifier)
        content = load_weights(model, paths[fold])
        trained_for = content.get("config", {}).get("label_type", config["label_type"])
        if trained_for != config["label_type"]:
            raise ValueError(
                f"{paths[fold]} was trained for {trained_for}, its run {folder} for {config['label_type']}: the folds "
                "of two runs were mixed; put each run's folds into its own folder"
            )
        models[fold] = model.to(device).eval()
    settings, doubt = _settings(config)
    warnings += [doubt] if doubt else []
    return FoldEnsemble(folder, config, models, paths, decisions, settings, device, tuple(warnings))


def check_together(ensembles: Sequence[FoldEnsemble]) -> None:
    """Raise ValueError where two runs answer the same question."""
    seen: dict[str, Path] = {}
    for ensemble in ensembles:
        if ensemble.label_type in seen:
            raise ValueError(
                f"--run {seen[ensemble.label_type]} and --run {ensemble.folder} both predict {ensemble.label_type}; "
                "give one run per label type, for instance one for IDH and one for 1p19q"
            )
        seen[ensemble.label_type] = ensemble.folder


def _settings(config: dict[str, Any]) -> tuple[Settings, str | None]:
    """By which the run's volumes were prepared, and a warning where nobody recorded them."""
    stored = config["data"].get("preparation")
    if stored is None and (root := data_root(config)) and root.is_dir():
        stored = next((row.settings for row in read_manifest(root).values() if row.settings), None)
    if stored is not None:
        return Settings.from_json(stored), None
    z, y, x = config["model"]["fields"]["img_size"]
    return Settings(size=(z, y, x)), (
        "the run does not say how its volumes were prepared (a folder made by hand): percentiles and margin are taken "
        "to be the defaults of prepare_data.py"
    )
