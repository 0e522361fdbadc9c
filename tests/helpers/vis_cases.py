"""Tiny prepared folders and run folders for the tests of vis/, in the layout of the real programs."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from matplotlib.text import Text
from torch import nn

from models import create_model
from util.data.folder import CONTRASTS, segmentation_path, volume_path
from util.data.manifest import ManifestRow, write_manifest
from util.protocol.folds import save_folds

SIZE = (16, 24, 16)
AFFINE = np.array([[2.0, 0.1, 0, -10], [-0.1, 2.0, 0, -20], [0, 0, 2.5, -30], [0, 0, 0, 1]])
# The original file: flipped left to right, 3 more voxels of air at the low end of y, voxels of the same size.
ORIGINAL_SHAPE, ORIGINAL_CROP = [16, 27, 16], [[0, 16], [3, 27], [0, 16]]
TO_PREPARED = np.array([[-1.0, 0, 0, 15], [0, 1, 0, -3], [0, 0, 1, 0], [0, 0, 0, 1]])
ENCODER = {"img_size": SIZE, "embed_dim": 24, "depth": 2}
DECODER = {"decoder_embed_dim": 24, "decoder_depth": 1}


def tiny_mae(**fields):
    torch.manual_seed(0)
    return create_model("mae_3d_vim_tiny_patch8", **{**ENCODER, **DECODER, **fields})


def tiny_ar(**fields):
    torch.manual_seed(0)
    return create_model("ar_3d_vim_tiny_patch8", **{**ENCODER, **DECODER, **fields})


def tiny_classifier(**fields):
    torch.manual_seed(1)
    return create_model("vim_3d_tiny_patch8", **{**ENCODER, **fields})


def write_prepared(root: Path, subjects: list[str], *, size=SIZE, affine=AFFINE) -> Path:
    """Write uint8 volumes (a box of tissue with a bright tumour, surrounded by air), masks and a manifest."""
    for seed, subject in enumerate(subjects):
        generator = np.random.default_rng(seed)
        tumour = np.zeros(size, np.uint8)
        tumour[5:9, 6:11, 8:12] = 1
        for contrast in CONTRASTS:
            volume = np.zeros(size, np.uint8)
            volume[2:-2, 3:-3, 2:-2] = generator.integers(40, 160, np.subtract(size, (4, 6, 4)))
            volume[tumour > 0] = 230
            save(volume_path(root, subject, contrast), volume)
        save(segmentation_path(root, subject), tumour)
    write_manifest(root, {subject: manifest_row(subject, affine) for subject in subjects})
    return root


def save(path: Path, volume: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, volume)


def manifest_row(subject: str, affine: np.ndarray) -> ManifestRow:
    return ManifestRow(
        subject=subject,
        sources={},
        original_shape=ORIGINAL_SHAPE,
        original_affine=(affine @ TO_PREPARED).tolist(),
        orientation="LAS",
        crop=ORIGINAL_CROP,
        affine=affine.tolist(),
        window={},
        contrasts=list(CONTRASTS),
        checksum={},
        warnings=[],
        settings={},
    )


def write_run(folder: Path, kind: str, name: str, model: nn.Module, data: Path, **config) -> dict:
    """Write config.json of a run, as the training programs do."""
    content = {
        "kind": kind,
        "model": {"name": name, "fields": asdict(model.config)},
        "data": {"root": str(data), "normalize": "zscore", "contrasts": list(CONTRASTS)},
        "command": [f"main_{kind}.py", "--model", name],
        "git": "abc123", "versions": {"torch": "2.14.1"}, "machine": "x86_64 Linux",
        "args": {}, **config,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))
    return content


def save_weights(path: Path, model: nn.Module) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict(), "epoch": 0}, path)


def write_metrics(folder: Path, rows: list[dict]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_pretrain_run(folder: Path, data: Path, **fields) -> Path:
    """Write two checkpoints with different weights; losses 0.9 and 0.4, baseline 0.8."""
    mae = tiny_mae(**fields)
    write_run(folder, "pretrain", "mae_3d_vim_tiny_patch8", mae, data, mask_ratio=0.5)
    save_weights(folder / "checkpoint-1.pth", mae)
    with torch.no_grad():
        mae.decoder_pred.bias.add_(1)
        mae.norm_f.weight.mul_(2)
    save_weights(folder / "checkpoint-0.pth", mae)
    losses = [0.9, 0.4]
    write_metrics(folder, [{"epoch": i, "train_loss": loss, "baseline_loss": 0.8, "seconds": 60.0, "samples_per_s": 2.0}
                           for i, loss in enumerate(losses)])  # fmt: skip
    return folder


def write_autoregressive_run(folder: Path, data: Path, **fields) -> Path:
    """Write one checkpoint of an autoregressive model."""
    model = tiny_ar(**fields)
    write_run(folder, "pretrain", "ar_3d_vim_tiny_patch8", model, data, objective="ar", mask_ratio=None)
    save_weights(folder / "checkpoint-0.pth", model)
    write_metrics(folder, [{"epoch": 0, "train_loss": 0.9, "baseline_loss": 0.8}])
    return folder


def write_finetune_run(folder: Path, data: Path, subjects: list[str], *, finetune: Path | None = None) -> Path:
    """Write a run with two folds. Subjects alternate between folds and, in pairs, between classes."""
    classifier = tiny_classifier()
    write_run(folder, "finetune", "vim_3d_tiny_patch8", classifier, data, label_type="IDH", k_fold=2, n_unknown=3,
              finetune=str(finetune) if finetune else None)  # fmt: skip
    tests = [subjects[0::2], subjects[1::2]]
    folds = [{"train": tests[1 - fold], "test": tests[fold]} for fold in range(2)]
    save_folds(folder / "folds.json", folds, label_type="IDH", seed=0)
    rows = []
    for fold, members in enumerate(tests):
        with torch.no_grad():
            classifier.head.bias[1] += 1
        save_weights(folder / f"fold_{fold}" / "checkpoint-4.pth", classifier)
        write_metrics(folder / f"fold_{fold}", [
            {"epoch": i, "train_loss": 0.7 - 0.1 * i, "test_auc": 0.5 + 0.1 * i, "seconds": 30.0} for i in range(5)
        ])  # fmt: skip
        rows += [(name, fold, i % 2, 0.2 + 0.5 * (i % 2) + 0.01 * fold) for i, name in enumerate(members)]
    with (folder / "predictions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("subject", "fold", "label", "probability"), *rows])
    scores = {"accuracy": 1.0, "f1": 1.0, "auc": 0.875, "sensitivity": 1.0, "specificity": None}
    (folder / "results.json").write_text(json.dumps({
        "label_type": "IDH", "n": len(subjects), "n_unknown": 3, "missing_folds": [],
        "per_fold": [{"fold": fold, "n": len(tests[fold]), **scores} for fold in range(2)],
        "mean": scores, "sd": {**scores, "auc": 0.012}, "pooled": {**scores, "auc": 0.912},
    }))  # fmt: skip
    return folder


def texts(figure) -> list[str]:
    """All texts of a matplotlib figure."""
    return [found.get_text() for found in figure.findobj(Text) if found.get_text()]
