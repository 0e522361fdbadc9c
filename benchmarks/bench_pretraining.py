"""The benefit of pre-training, scan order and masking on phantoms: a table with mean and spread over seeds.

python -m benchmarks.bench_pretraining --work /tmp/pretraining           the table of the README
python -m benchmarks.bench_pretraining --rows corrected ar --seeds 1     some rows; finished runs are not repeated

Every row runs the programs that users run, main_pretrain.py, probe.py and main_cr_finetune.py, with the same number of
updates. `ROWS` lists what each row changes.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.measuring.commandline import begin, parse
from models import MaskedAutoencoder3D, create_model
from util import cli, ranges
from util.checkpoint.loading import load_weights
from util.data.dataset import PreparedVolumes
from util.run_folder import RESULTS, checkpoint_path
from util.runs import last_checkpoint, read_config

logger = logging.getLogger(__name__)
ROOT = Path(__file__).resolve().parent.parent
SIDE, SPACING, HELD_OUT = 80, 2, 10
WIDTHS = ["embed_dim=96", "depth=4"]
DECODER = ["decoder_embed_dim=48", "decoder_depth=2"]


@dataclass(frozen=True)
class Row:
    """One way of pre-training."""

    title: str
    family: str = "vim"
    """vim or vit."""
    pretrained: bool = True
    pretrain: tuple[str, ...] = ()
    """Options of main_pretrain.py."""
    both: tuple[str, ...] = ()
    """Options of both trainings."""
    fields: tuple[str, ...] = ()
    """Model fields."""

    @property
    def is_mae(self) -> bool:
        return self.pretrained and "ar" not in self.pretrain


ROWS = {
    "none": Row("no pre-training", pretrained=False),
    "corrected": Row("masked autoencoder, 0.75 removed (the default)"),
    "mask50": Row("0.5 removed", pretrain=("--mask_ratio", "0.5")),
    "mask25": Row("0.25 removed", pretrain=("--mask_ratio", "0.25")),
    "paper": Row("fidelity of the published code", both=("--fidelity", "paper")),
    "hilbert": Row("Hilbert order", both=("--scan_order", "hilbert")),
    "ar": Row("autoregressive", pretrain=("--objective", "ar")),
    "vit": Row("ViT of the same width", family="vit", fields=("num_heads=3", "decoder_num_heads=3")),
}


@dataclass
class Scores:
    """One number per seed of a row: AUCs, and the held-out reconstruction loss relative to predicting patch means."""

    reconstruction: list[float] = field(default_factory=list)
    probe: list[float] = field(default_factory=list)
    finetuned: list[float] = field(default_factory=list)


def options_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--work", type=Path, default=Path("runs/bench_pretraining"), help="folder of data and runs, which are kept"
    )
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS), help="rows to run; default all")
    parser.add_argument("--seeds", type=ranges.positive, default=3)
    parser.add_argument("--patch", type=ranges.positive, default=8, help="side of a patch, voxels")
    parser.add_argument("--unlabelled", type=ranges.positive, default=40, help="studies to pre-train on")
    parser.add_argument("--labelled", type=ranges.positive, default=80, help="studies with labels")
    parser.add_argument("--pretrain_epochs", type=ranges.positive, default=20)
    parser.add_argument("--finetune_epochs", type=ranges.positive, default=6)
    parser.add_argument("--k_fold", type=ranges.positive, default=3)
    parser.add_argument(
        "--marker_strength", type=float, default=0.85, help="how visible the labels are in the phantoms"
    )


def run(done: Path, *command: object) -> None:
    """Run one program of the project, unless its last file `done` exists."""
    if done.exists():
        return
    words = [sys.executable, *map(str, command)]
    logger.info("%s", " ".join(words[1:]))
    environment = {**os.environ, "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(words[1:])} failed:\n{result.stderr[-2000:]}")


def prepare(args: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Prepared folders: studies for pre-training, studies held out from it, studies with labels."""
    raw, folders = args.work / "raw", []
    for name, layout, count, seed in (
        ("unlabelled", "brats", args.unlabelled, 11),
        ("heldout", "brats", HELD_OUT, 12),
        ("labelled", "egd", args.labelled, 13),
    ):
        prepared, sheet = args.work / name, raw / name / layout / "Genetic_and_Histological_labels.xlsx"
        run(
            prepared / "manifest.csv", "prepare_data.py", "phantom", raw / name, "--layout", layout, "--subjects",
            count, "--seed", seed, "--spacing", SPACING, "--marker_strength", args.marker_strength, "--workers", 2,
        )  # fmt: skip
        labels = ["--labels", sheet] if layout == "egd" else []
        run(
            prepared / "manifest.csv", "prepare_data.py", layout, raw / name / layout, prepared, "--size", SIDE,
            "--workers", 2, *labels,
        )  # fmt: skip
        folders.append(prepared)
    return folders[0], folders[1], folders[2]


def model_options(row: Row, patch: int, decoder: bool) -> list[str]:
    fields = [*WIDTHS, *(DECODER if decoder else ()), *row.fields]
    name = f"mae_3d_{row.family}_tiny_patch8" if decoder else f"{row.family}_3d_tiny_patch8"
    return ["--model", name, "--input_size", str(SIDE), "--model_kwargs", f"patch_size={patch}", *fields, *row.both]


def held_out_loss(run_folder: Path, data: Path) -> float:
    """Reconstruction loss on held-out studies, divided by the loss of predicting each patch's mean."""
    config = read_config(run_folder)
    model = create_model(config["model"]["name"], **config["model"]["fields"])
    assert isinstance(model, MaskedAutoencoder3D)
    load_weights(model, last_checkpoint(run_folder))
    model.eval()
    generator = torch.Generator().manual_seed(0)
    losses, baseline = [], []
    with torch.no_grad():
        for index in range(len(volumes := PreparedVolumes(data))):
            volume = volumes[index][0].unsqueeze(0)
            noise = torch.rand(1, model.config.tokens, generator=generator)
            out = model(volume, config["mask_ratio"], noise, return_pred=False)
            patches = model.targets(model.patchify(volume))[out.removed.bool()]
            losses.append(float(out.loss))
            baseline.append(float((patches - patches.mean(-1, keepdim=True)).square().mean()))
    return statistics.fmean(losses) / statistics.fmean(baseline)


def measure(name: str, seed: int, args: argparse.Namespace, folders: Sequence[Path], scores: Scores) -> None:
    """Pre-train, probe and fine-tune one row with one seed, and add the figures to `scores`."""
    row, (unlabelled, heldout, labelled) = ROWS[name], folders
    folder = args.work / f"patch{args.patch}" / f"{name}-{seed}"
    training = ["--batch_size", "2", "--num_workers", "0", "--no_augment", "--drop_path", "0", "--precision", "bf16",
                "--lr", "2e-3", "--seed", str(seed), "--resume", "auto"]  # fmt: skip
    last = checkpoint_path(folder / "pretrain", args.pretrain_epochs - 1)
    if row.pretrained:
        run(
            last, "main_pretrain.py", *model_options(row, args.patch, True), *training, "--data", unlabelled,
            "--epochs", args.pretrain_epochs, "--warmup_epochs", 1, "--picture_freq", 0, *row.pretrain,
            "--output_dir", folder / "pretrain",
        )  # fmt: skip
    start = ["--finetune", last] if row.pretrained else []
    run(
        folder / "finetune" / RESULTS, "main_cr_finetune.py", *model_options(row, args.patch, False), *training,
        "--data", labelled, "--label_type", "IDH", "--k_fold", args.k_fold, "--epochs", args.finetune_epochs,
        "--warmup_epochs", 0.5, "--use_scheduler", "--eval_freq", args.finetune_epochs, *start,
        "--output_dir", folder / "finetune",
    )  # fmt: skip
    probed = last if row.pretrained else args.work / f"patch{args.patch}" / f"corrected-{seed}" / "pretrain" / last.name
    entries = [probed] if row.pretrained else [probed, "random"]
    run(
        folder / "probe" / RESULTS, "probe.py", "--checkpoints", *entries, "--data", labelled, "--folds_from",
        folder / "finetune", "--seed", seed, "--output_dir", folder / "probe",
    )  # fmt: skip
    probes = json.loads((folder / "probe" / RESULTS).read_text())["rows"]
    scores.probe.append([r["pooled"]["auc"] for r in probes if r["probe"] == "logistic"][-1])
    scores.finetuned.append(json.loads((folder / "finetune" / RESULTS).read_text())["pooled"]["auc"])
    if row.is_mae:
        scores.reconstruction.append(held_out_loss(folder / "pretrain", heldout))


def spread(values: Sequence[float]) -> str:
    """Mean (lowest-highest)."""
    return f"{statistics.fmean(values):.3f} ({min(values):.3f}-{max(values):.3f})" if values else ""


def main(argv: list[str] | None = None) -> None:
    options = begin(parse("pretraining", "The benefit of pre-training, scan order and masking", argv, options_of))
    args, report = options.args, options.report
    folders = prepare(args)
    report.section(
        "Rows",
        f"Phantoms at {SIDE}^3, marker strength {args.marker_strength}: {args.unlabelled} studies to pre-train on for "
        f"{args.pretrain_epochs} epochs, {args.labelled} simulated with labels (some unknown and left out), "
        f"{args.k_fold} folds, {args.finetune_epochs} epochs of fine-tuning; patch {args.patch}, 96 channels, 4 blocks,"
        " bf16. Rows have the same options except what their title names. Mean (lowest-highest) over seeds. "
        f"Reconstruction: loss on {HELD_OUT} held-out studies divided by that of predicting each patch's mean, at the "
        "row's own ratio. AUC of IDH pooled over held-out subjects: logistic regression on frozen features (mean of "
        "tokens), and fine-tuned.",
    )
    names = sorted(args.rows, key=lambda name: name == "none")  # last, because its probe needs the model of another row
    scores = {name: Scores() for name in names}
    rows: list[list[object]] = [[ROWS[name].title, "", "", "", 0] for name in names]
    report.table(["pre-training", "reconstruction", "probe AUC", "fine-tuned AUC", "seeds"], rows)
    for seed in range(args.seeds):
        for row, name in zip(rows, names, strict=True):
            own = scores[name]
            measure(name, seed, args, folders, own)
            row[1:] = [*map(spread, (own.reconstruction, own.probe, own.finetuned)), seed + 1]
            report.write()
            logger.info("%s", row)
    options.finish()


if __name__ == "__main__":
    cli.run(main)
