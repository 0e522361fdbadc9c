"""The ensemble of all folds of a fine-tuning run, for patients that no fold was trained on."""

from collections.abc import Mapping, Sequence
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
from util.hub.download import local_path
from util.inference.probabilities import class_probabilities
from util.protocol.best_epoch import selected_weights
from util.protocol.decision import Decision, read_decision
from util.protocol.tta import views_of
from util.run_folder import fold_folders
from util.runs import checkpoints, data_root, read_config, read_fold_config
from util.training.eval_mode import evaluating


@dataclass(frozen=True)
class EnsemblePrediction:
    """The predictions of all folds for one scan. by_fold: probability of class 1; features: (E,) by fold."""

    by_fold: dict[int, float]
    features: dict[int, np.ndarray]

    @property
    def probability(self) -> float:
        """Probability of class 1, the mean over folds."""
        return float(np.mean(list(self.by_fold.values())))

    @property
    def sd(self) -> float:
        """Standard deviation over folds; 0 for a single one."""
        return float(np.std(list(self.by_fold.values()), ddof=1)) if len(self.by_fold) > 1 else 0.0


@dataclass(frozen=True)
class FoldEnsemble:
    """The models, checkpoints and decisions of a run by fold. Models are on `device`, in evaluation mode."""

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
        """The threshold of the ensemble's probability: the mean of the folds' thresholds, as in
        util/statistics/scores.py."""
        return float(np.mean([decision.threshold for decision in self.decisions.values()]))

    def predicted_class(self, prediction: EnsemblePrediction) -> int:
        """The class at the ensemble's threshold."""
        return int(prediction.probability >= self.threshold)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """The contrasts that the models read, in the order of their channels."""
        return tuple(self.config["data"]["contrasts"])

    @property
    def data_root(self) -> Path | None:
        return data_root(self.config)

    def check_contrasts(self, missing: Sequence[str]) -> None:
        """Raise ValueError, with the missing contrasts, if the models were trained with all contrasts."""
        if len(missing) == len(self.contrasts):
            raise ValueError(f"{', '.join(self.contrasts)} are all missing, and {self.folder} needs at least one")
        if missing and not all(model.config.contrast_dropout for model in self.models.values()):
            raise ValueError(
                f"{', '.join(missing)} missing, and {self.folder} was trained with all of {', '.join(self.contrasts)}: "
                "give the missing files, or a run that was fine-tuned with --contrast_dropout"
            )

    def model_input(self, prepared: Prepared) -> Tensor:
        """The models' input (1, C, Z, Y, X) on the device, normalised as in training. A missing contrast is 0."""
        shape = next(iter(prepared.volumes.values())).shape
        stored_CZYX = np.stack([prepared.volumes.get(name, np.zeros(shape, np.uint8)) for name in self.contrasts])
        normalize: Normalize = self.config["data"]["normalize"]
        return normalize_volume(torch.from_numpy(stored_CZYX).float() / 255, normalize).unsqueeze(0).to(self.device)

    def predict(self, volume_BCZYX: Tensor) -> EnsemblePrediction:
        """The predictions of all folds for one volume (1, C, Z, Y, X)."""
        by_fold, features = {}, {}
        for fold, model in self.models.items():
            with evaluating(model):
                views = [model.forward_features(view) for view in views_of(volume_BCZYX, self.decisions[fold].tta)]
                logits = [model.forward_head(tokens_BLE) for tokens_BLE in views]
                probabilities_BK = class_probabilities(logits, self.decisions[fold])
            by_fold[fold] = probabilities_BK[0, 1].item()
            features[fold] = views[0][0].float().mean(0).cpu().numpy()  # of the first view, the scan itself
        return EnsemblePrediction(by_fold, features)


def open_ensemble(folder: Path, device: torch.device) -> FoldEnsemble:
    """The ensemble of every fold with weights of a fine-tuning run, of an exported run, or of one on the hub. Raises
    ValueError with the run or file at fault and the fix."""
    folder = local_path(folder, folds=True)
    config = read_config(folder)
    if config.get("kind") != "finetune":
        raise ValueError(f"--run {folder} is not a fine-tuning run; give the --output_dir of main_cr_finetune.py")
    warnings = []
    trained = {fold: part for fold, part in fold_folders(folder).items() if checkpoints(part)}
    configs = {fold: read_fold_config(folder, fold) for fold in trained}
    decisions = {fold: read_decision(part, configs[fold].get("args", {})) for fold, part in trained.items()}
    paths = {fold: selected_weights(part, decisions[fold].select) for fold, part in trained.items()}
    if not paths:
        raise ValueError(f"--run {folder} has no fold with a checkpoint: finish a fold with main_cr_finetune.py first")
    config = _with_input_of_folds(folder, config, configs)
    count = config.get("k_fold", len(paths)) * config.get("repeats", 1)
    if len(paths) < count:
        warnings.append(f"only {len(paths)} of {count} folds of {folder} have a checkpoint")
    models = {}
    for fold in paths:
        model = create_model(configs[fold]["model"]["name"], **configs[fold]["model"]["fields"])
        assert isinstance(model, VolumeClassifier)
        content = load_weights(model, paths[fold])
        trained_for = content.get("config", {}).get("label_type", config["label_type"])
        if trained_for != config["label_type"]:
            raise ValueError(
                f"{paths[fold]} was trained for {trained_for}, its run {folder} for {config['label_type']}: the folds "
                "of two runs were mixed; put each run's folds into its own folder"
            )
        models[fold] = model.to(device).eval()
    settings, warning = _settings(config)
    warnings += [warning] if warning else []
    return FoldEnsemble(folder, config, models, paths, decisions, settings, device, tuple(warnings))


def _with_input_of_folds(
    folder: Path, config: dict[str, Any], configs: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """The run's config with the input that its folds were trained on. ValueError where --override made them read
    different inputs: one volume cannot be prepared for all of them."""
    first, data = min(configs), dict(config["data"])
    for name in ("normalize", "contrasts", "preparation"):
        for fold, own in configs.items():
            if own["data"].get(name) != configs[first]["data"].get(name):
                raise ValueError(
                    f"--run {folder}: fold {first} was trained with {name} {configs[first]['data'].get(name)}, fold "
                    f"{fold} with {own['data'].get(name)}: they cannot predict together; move one of them to a run "
                    "folder of its own"
                )
        if name in configs[first]["data"]:
            data[name] = configs[first]["data"][name]
    return {**config, "data": data}


def check_label_types(ensembles: Sequence[FoldEnsemble]) -> None:
    """Raise ValueError if two runs predict the same label type."""
    seen: dict[str, Path] = {}
    for ensemble in ensembles:
        if ensemble.label_type in seen:
            raise ValueError(
                f"--run {seen[ensemble.label_type]} and --run {ensemble.folder} both predict {ensemble.label_type}; "
                "give one run per label type, for instance one for IDH and one for 1p19q"
            )
        seen[ensemble.label_type] = ensemble.folder


def _settings(config: dict[str, Any]) -> tuple[Settings, str | None]:
    """The settings that the run's volumes were prepared with, and a warning if they are not recorded."""
    stored = config["data"].get("preparation")
    if stored is None and (root := data_root(config)) and root.is_dir():
        stored = next((row.settings for row in read_manifest(root).values() if row.settings), None)
    if stored is not None:
        return Settings.from_json(stored), None
    z, y, x = config["model"]["fields"]["img_size"]
    return Settings(size=(z, y, x)), (
        "the run does not record how its volumes were prepared (a folder made by hand): percentiles and margin are "
        "taken to be the defaults of prepare_data.py"
    )
