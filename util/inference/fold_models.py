"""The models of a run's folds, opened when asked for: what a map is compared with."""

from pathlib import Path

from models import VolumeClassifier
from util.inference.open_run import open_run
from util.protocol.held_out import read_folds
from util.run_folder import fold_folder
from util.runs import checkpoints, read_config


class FoldModels:
    """Classifiers of `run` by fold, for volumes of the prepared folder `data`."""

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
        """Of every other fold that has a checkpoint."""
        return [self.model(number) for number in range(len(self.folds)) if number != fold and self._is_trained(number)]

    def holding_out(self, subject: str) -> VolumeClassifier | None:
        """Of the first fold with a checkpoint that did not train on the subject; None where there is none."""
        fold = next((n for n, fold in enumerate(self.folds) if subject in fold["test"] and self._is_trained(n)), None)
        return None if fold is None else self.model(fold)

    def _is_trained(self, fold: int) -> bool:
        return bool(checkpoints(fold_folder(self.run, fold)))


def shuffled_run(run: Path, data: Path, device: str) -> FoldModels:
    """ValueError where the run learnt the true labels."""
    control = read_config(run).get("args", {}).get("control")
    if control != "shuffled_labels":
        raise ValueError(
            f"--shuffled {run} was trained with --control {control or 'none'}: give a run of main_cr_finetune.py with "
            "--control shuffled_labels"
        )
    return FoldModels(run, data, device)


def repeated_run(run: Path, of: Path, data: Path, device: str) -> FoldModels:
    """ValueError where `run` cannot repeat the run `of` with another seed: other labels, model or control."""
    mine, other = (read_config(folder) for folder in (run, of))

    def design(config: dict) -> tuple:
        return config.get("label_type"), config["model"]["name"], config.get("args", {}).get("control", "none")

    if run.resolve() == of.resolve() or design(mine) != design(other):
        raise ValueError(
            f"--seeds {run}: give another run of the same labels, model and --control as {of}, with another --seed"
        )
    return FoldModels(run, data, device)
