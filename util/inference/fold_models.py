"""The models of a run's folds, opened on demand. The checks of maps compare models of different folds and runs."""

from pathlib import Path

from models import VolumeClassifier
from util.inference.open_run import open_run
from util.protocol.held_out import read_folds
from util.run_folder import fold_folder
from util.runs import checkpoints, read_config


class FoldModels:
    """The classifiers of `run` by fold, for volumes of the prepared folder `data`."""

    def __init__(self, run: Path, data: Path, device: str) -> None:
        self.run, self.data, self.device = run, data, device
        self.folds = read_folds(run)
        self.opened: dict[int, VolumeClassifier] = {}

    def model(self, fold: int) -> VolumeClassifier:
        if fold not in self.opened:
            session = open_run(self.run, "finetune", fold=fold, data=self.data, device=self.device)
            assert isinstance(session.model, VolumeClassifier)
            self.opened[fold] = session.model
        return self.opened[fold]

    def others(self, fold: int) -> list[VolumeClassifier]:
        """The models of every other fold that has a checkpoint."""
        return [self.model(number) for number in range(len(self.folds)) if number != fold and self._is_trained(number)]

    def holding_out(self, subject: str) -> VolumeClassifier | None:
        """The model of the first fold with a checkpoint that holds the subject out; None if there is none."""
        fold = next((n for n, fold in enumerate(self.folds) if subject in fold["test"] and self._is_trained(n)), None)
        return None if fold is None else self.model(fold)

    def _is_trained(self, fold: int) -> bool:
        return bool(checkpoints(fold_folder(self.run, fold)))


def shuffled_run(run: Path, data: Path, device: str) -> FoldModels:
    """The models of a run that was trained on shuffled labels. Raises ValueError for another run."""
    control = read_config(run).get("args", {}).get("control")
    if control != "shuffled_labels":
        raise ValueError(
            f"--shuffled {run} was trained with --control {control or 'none'}: give a run of main_cr_finetune.py with "
            "--control shuffled_labels"
        )
    return FoldModels(run, data, device)


def repeated_run(run: Path, original: Path, data: Path, device: str) -> FoldModels:
    """The models of `run`, a repetition of the run `original` with another seed. Raises ValueError if their labels,
    model or control differ."""
    config, original_config = (read_config(folder) for folder in (run, original))

    def design(config: dict) -> tuple:
        return config.get("label_type"), config["model"]["name"], config.get("args", {}).get("control", "none")

    if run.resolve() == original.resolve() or design(config) != design(original_config):
        raise ValueError(
            f"--seeds {run}: give another run of the same labels, model and --control as {original}, with another "
            "--seed"
        )
    return FoldModels(run, data, device)
