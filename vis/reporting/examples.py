"""Example figures for a report: reconstructions and latent maps, with captions that state the use of each subject."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from models import PatchPredictor, VolumeClassifier
from util.data.dataset import PreparedVolumes
from util.evaluation.predictions import Prediction, held_out_predictions
from util.inference.open_run import open_run
from util.protocol.held_out import held_out, read_folds
from util.run_folder import fold_folder
from util.runs import checkpoints, read_config
from vis.drawing.figures import map_figure, reconstruction_figure
from vis.drawing.reconstruction import reconstruct
from vis.drawing.wording import prediction_caption, task_words
from vis.maps.latent import latent_maps
from vis.maps.token_grid import upsample


@dataclass(frozen=True)
class Example:
    """A figure with its caption."""

    figure: Figure
    caption: str


def held_out_examples(run: Path, count: int) -> tuple[int, list[str]]:
    """The first fold with a checkpoint, and `count` of its held-out subjects, alternating between classes."""
    folds, labels = read_folds(run), held_out_predictions(run)
    for fold in range(len(folds)):
        if checkpoints(fold_folder(run, fold)):
            return fold, alternate_classes(held_out(folds, fold), labels)[:count]
    raise ValueError(f"no fold of {run} has a checkpoint")


def alternate_classes(subjects: Sequence[str], labels: dict[str, Prediction]) -> list[str]:
    """Reorder subjects so that their classes alternate. Subjects without a recorded label come last."""
    position: dict[str, tuple[int, int]] = {}
    counts: dict[int, int] = {}
    for subject in subjects:
        label = labels[subject].label if subject in labels else -1
        counts[label] = counts.get(label, 0) + 1
        position[subject] = (counts[label] if label >= 0 else len(subjects) + 1, label)
    return sorted(subjects, key=lambda subject: position[subject])


def map_examples(run: Path, count: int, device: str = "auto") -> list[Example]:
    """The map of the paper (maximum over features) for held-out subjects of a fine-tuned fold."""
    fold, subjects = held_out_examples(run, count)
    opened, labels = open_run(run, "finetune", fold=fold, device=device), held_out_predictions(run)
    model = opened.model
    assert isinstance(model, VolumeClassifier)
    examples = []
    for subject in subjects:
        study = opened.study(subject)
        batch = opened.batch(study)
        map_Bzyx = latent_maps(model, batch, ["max"])["max"]
        map_ZYX = upsample(map_Bzyx, opened.data.size)[0].cpu().numpy()
        line = prediction_caption(opened.config["label_type"], labels.get(subject), opened.probability(batch), fold)
        examples.append(Example(map_figure(study, map_ZYX, "max", subtitle=line), f"{subject}: {line}."))
    return examples


def reconstruction_examples(run: Path, finetune: Path | None, count: int, device: str = "auto") -> list[Example]:
    """Reconstructions of subjects that were not in pre-training if the fine-tuning data have any, else of others."""
    opened = open_run(run, "pretrain", device=device)
    trained_on = set(opened.data.subjects)
    subjects = opened.data.subjects[:count]
    if finetune is not None:
        root, (_, others) = Path(read_config(finetune)["data"]["root"]), held_out_examples(finetune, count)
        if not trained_on & set(others) and root.is_dir() and PreparedVolumes(root).size == opened.data.size:
            opened, subjects = open_run(run, "pretrain", data=root, device=device), others
    model, mask_ratio = opened.model, opened.config["mask_ratio"]
    assert isinstance(model, PatchPredictor)
    examples = []
    for subject in subjects:
        study = opened.study(subject)
        result = reconstruct(model, opened.batch(study), mask_ratio=mask_ratio)
        use = "seen in pre-training" if subject in trained_on else "not among the pre-training subjects"
        line = f"{use} · {task_words(mask_ratio)} · loss {result.loss:.3f}"
        figure = reconstruction_figure(
            study, result.prediction[0].cpu().numpy(), result.removed_ZYX[0].cpu().numpy(), subtitle=line,
            planes=("axial",), panel=1.75,
        )  # fmt: skip
        examples.append(Example(figure, f"{subject}: {line}."))
    return examples
