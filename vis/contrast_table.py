"""AUC and accuracy of a run for every subset of its contrasts, on the held-out subjects of all folds.

    python -m vis.contrast_table --run runs/idh            -> RUN/contrasts.csv and RUN/contrasts.json

The run must have been fine-tuned with --contrast_dropout. The model of the fold that held out a subject predicts it,
with the temperature, the threshold and the test-time augmentation of the run.
"""

import argparse
import csv
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from util import cli
from util.data.dataset import PreparedVolumes
from util.data.labels import UNKNOWN, read_labels
from util.distributed.world import choose_device
from util.evaluation.tables import without_nan
from util.files.atomic import atomic_write
from util.inference.ensemble import FoldEnsemble, open_ensemble
from util.inference.open_run import is_phantom
from util.inference.probabilities import probabilities
from util.protocol.held_out import held_out, read_folds
from util.run_folder import CONTRASTS, CONTRASTS_TABLE
from util.runs import newest_run, write_json
from util.statistics.metrics import classification_metrics
from vis.drawing.style import NOTICE, PHANTOM_NOTICE

logger = logging.getLogger(__name__)
METRICS = ("auc", "accuracy")


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="AUC and accuracy of a fine-tuning run for every subset of its contrasts.")
    parser.add_argument("--run", type=Path, help="fine-tuning run; default: the newest")
    parser.add_argument("--out", type=Path, help="folder of contrasts.csv and contrasts.json; default: RUN")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args(argv)


def subsets(contrasts: Sequence[str]) -> list[tuple[str, ...]]:
    """All non-empty subsets, the largest first."""
    sizes = range(len(contrasts), 0, -1)
    return [chosen for size in sizes for chosen in itertools.combinations(contrasts, size)]


def contrast_rows(ensemble: FoldEnsemble) -> list[dict[str, Any]]:
    """One row per subset: contrasts, n, auc and accuracy over the held-out subjects of all folds.

    ValueError if the run needs every contrast, or if its data or labels cannot be read.
    """
    ensemble.check_contrasts(ensemble.contrasts[1:])
    data, folds, root = ensemble.config["data"], read_folds(ensemble.folder), ensemble.data_root
    if root is None or not root.is_dir():
        raise ValueError(f"the training data of {ensemble.folder} are missing: {root}")
    labels = read_labels(data["labels"], ensemble.config["label_type"])
    volumes = PreparedVolumes(root, contrasts=ensemble.contrasts, normalize=data["normalize"])
    chosen = subsets(ensemble.contrasts)
    predicted: dict[tuple[str, ...], list[float]] = {subset: [] for subset in chosen}
    truth, thresholds = [], []
    for fold, model in ensemble.models.items():
        part = volumes.subset([name for name in held_out(folds, fold) if labels.get(name, UNKNOWN) != UNKNOWN])
        logger.info("fold %d: %d held-out subjects, %d subsets each", fold, len(part), len(chosen))
        for index, subject in enumerate(part.subjects):
            truth.append(labels[subject])
            thresholds.append(ensemble.decisions[fold].threshold)
            volume_BCZYX = part[index][0].unsqueeze(0).to(ensemble.device)  # each contrast is normalised separately
            for subset in chosen:
                reduced = volume_BCZYX.clone()
                reduced[:, [at for at, name in enumerate(ensemble.contrasts) if name not in subset]] = 0
                predicted[subset].append(probabilities(model, reduced, ensemble.decisions[fold])[0, 1].item())
    rows = []
    for subset in chosen:
        scores = classification_metrics(truth, predicted[subset], np.array(thresholds))
        rows.append({"contrasts": list(subset), "n": len(truth), **{name: scores[name] for name in METRICS}})
    return rows


def write_contrast_table(folder: Path, rows: list[dict[str, Any]], notice: str) -> None:
    """Write FOLDER/contrasts.json and FOLDER/contrasts.csv."""
    write_json(folder / CONTRASTS, {"notice": notice, "rows": without_nan(rows)})
    with atomic_write(folder / CONTRASTS_TABLE, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["contrasts", "n", *METRICS])
        writer.writerows([" ".join(row["contrasts"]), row["n"], *(f"{row[m]:.4f}" for m in METRICS)] for row in rows)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    run = args.run or newest_run(kind="finetune")
    ensemble = open_ensemble(run, torch.device(choose_device(args.device)))
    rows = contrast_rows(ensemble)
    notice = (PHANTOM_NOTICE if is_phantom(ensemble.config, ensemble.data_root) else "") + NOTICE
    write_contrast_table(args.out or run, rows, notice)
    for row in rows:
        scores = "  ".join(f"{name} {row[name]:.3f}" for name in METRICS)
        logger.info("%-22s n %d  %s", " ".join(row["contrasts"]), row["n"], scores)
    logger.info("%s", args.out or run)


if __name__ == "__main__":
    cli.run(main)
