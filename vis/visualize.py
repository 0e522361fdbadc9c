"""Write reconstructions and latent maps of a pre-trained model, masked or autoregressive.

    python vis/visualize.py                                     the newest pre-training run, two subjects
    python vis/visualize.py --run runs/pretrain --subjects 5 --map max norm pca --upsample trilinear

Files of each subject, in RUN/vis/SUBJECT: reconstruction (.npy, .nii.gz per contrast, .png), ratios.png (several mask
ratios), latent maps (.npy, .nii.gz, .png).
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __package__ in (None, ""):  # started as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from torch import Tensor
from tqdm import tqdm

from models import MaskedAutoencoder3D, PatchPredictor
from util import cli, ranges
from util.inference.open_run import OpenRun, choose_subjects, open_run
from util.inference.study import Study
from util.run_folder import MAPS
from util.runs import newest_run
from vis.drawing.figures import reconstruction_figure
from vis.drawing.mosaics import ratio_figure
from vis.drawing.reconstruction import reconstruct
from vis.drawing.style import save_png
from vis.drawing.wording import task_words
from vis.export.map_files import MapWriter, output_folder, requested_spaces, subject_file, write_array
from vis.export.nifti import write_nifti
from vis.maps.latent import latent_map
from vis.maps.masked_encoder import visible_tokens
from vis.maps.registry import MapOptions, compute_maps
from vis.options import add_map_options

logger = logging.getLogger(__name__)
RATIOS = (0.25, 0.5, 0.75, 0.9)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Reconstructions and latent maps of a pre-trained model.")
    add_map_options(parser)
    parser.add_argument(
        "--mask_ratio", type=ranges.Real(0, 1), help="share of patches to remove; default: as in training"
    )
    parser.add_argument("--seed", type=ranges.seed, default=0, help="seed of the mask")
    parser.add_argument(
        "--rounds",
        type=ranges.Whole(0, 10_000),
        default=0,
        help="0: maps of the encoder with all patches visible; N: mean over random masks that show each patch at least "
        "N times",
    )
    ratios = " ".join(map(str, RATIOS))
    parser.add_argument(
        "--ratios",
        type=ranges.Real(0, 1),
        nargs="*",
        metavar="R",
        help=f"mask ratios of a figure of reconstructions; no value: no figure; default for an autoencoder: {ratios}",
    )
    return parser.parse_args(argv)


def write_reconstruction(opened: OpenRun, study: Study, folder: Path, *, mask_ratio: float | None, seed: int) -> None:
    """Write the output of the decoder as .npy (C, Z, Y, X); input, reconstruction and mask as NIfTI; a figure."""
    model = opened.model
    assert isinstance(model, PatchPredictor)
    subject, affine = study.subject, opened.data.affine(study.subject)
    result = reconstruct(model, opened.batch(study), mask_ratio=mask_ratio, seed=seed)
    write_array(subject_file(folder, subject, "prediction.npy"), result.prediction[0])
    pasted_CZYX, removed_ZYX = result.pasted[0].cpu().numpy(), result.removed_ZYX[0].cpu().numpy()
    for contrast, original_ZYX, pasted_ZYX in zip(study.contrasts, study.volume_CZYX, pasted_CZYX, strict=True):
        write_nifti(subject_file(folder, subject, f"{contrast}_input.nii.gz"), original_ZYX, affine)
        write_nifti(subject_file(folder, subject, f"{contrast}_reconstruction.nii.gz"), pasted_ZYX, affine)
    write_nifti(subject_file(folder, subject, "removed.nii.gz"), removed_ZYX.astype(np.float32), affine)
    subtitle = f"{task_words(mask_ratio)} · loss {result.loss:.3f} · {opened.checkpoint.stem}"
    figure = reconstruction_figure(study, result.prediction[0].cpu().numpy(), removed_ZYX, subtitle=subtitle)
    save_png(subject_file(folder, subject, "reconstruction.png"), figure)


def write_ratios(opened: OpenRun, study: Study, folder: Path, *, ratios: Sequence[float], seed: int) -> None:
    """Draw reconstructions by mask ratio. The masks of a seed are nested: a larger ratio removes more patches."""
    model = opened.model
    assert isinstance(model, PatchPredictor)
    reconstructions = {}
    for ratio in ratios:
        result = reconstruct(model, opened.batch(study), mask_ratio=ratio, seed=seed)
        reconstructions[ratio] = (result.pasted[0].cpu().numpy(), result.removed_ZYX[0].cpu().numpy(), result.loss)
    subtitle = f"Left of each pair: visible patches, right: reconstruction · {opened.checkpoint.stem}"
    figure = ratio_figure(study, reconstructions, subtitle=subtitle)
    save_png(subject_file(folder, study.subject, "ratios.png"), figure)


def choose_ratios(run: Path, mask_ratio: float | None, wanted: Sequence[float] | None, tokens: int) -> Sequence[float]:
    """The checked values of --ratios, or its default. Empty for an autoregressive run."""
    if wanted is None:
        return () if mask_ratio is None else RATIOS
    if mask_ratio is None and wanted:
        raise ValueError(f"--ratios: the run {run} is autoregressive and removes no patches; drop the flag")
    for ratio in wanted:
        if not 0 < ratio < 1 or not 1 <= int(tokens * (1 - ratio)) < tokens:
            raise ValueError(
                f"--ratios {ratio}: choose a value between 0 and 1 for which some of the {tokens} patches stay visible"
            )
    return wanted


def choose_mask_ratio(run: Path, recorded: float | None, wanted: float | None) -> float | None:
    """The value of --mask_ratio, else the ratio of training. None for an autoregressive run."""
    if recorded is None and wanted is not None:
        raise ValueError(
            f"--mask_ratio {wanted}: the run {run} is autoregressive and removes no patches; drop the flag"
        )
    return recorded if wanted is None else wanted


def encoder_maps(
    opened: OpenRun, study: Study, names: Sequence[str], block: int, mask_ratio: float | None, rounds: int, seed: int
) -> tuple[dict[str, Tensor], str]:
    """Maps (z, y, x) by name, and a description of the input: all patches visible, or random masks (rounds > 0)."""
    model, volume_BCZYX = opened.model, opened.batch(study)
    assert isinstance(model, PatchPredictor)
    if rounds == 0:
        spatial = compute_maps(model, volume_BCZYX, names, MapOptions(block=block))
        return {name: each.values_Bzyx[0] for name, each in spatial.items()}, "all patches visible"
    if mask_ratio is None or not isinstance(model, MaskedAutoencoder3D):
        raise ValueError(f"--rounds {rounds} averages over masks, but the run is autoregressive: drop the flag")
    if block not in (-1, model.config.depth - 1):
        raise ValueError(f"--rounds {rounds} uses the final tokens of the encoder: drop --block {block}")
    maps = {name: latent_map(name) for name in names}
    if unsupported := [name for name, latent in maps.items() if latent.before_norm]:
        raise ValueError(
            f"--map {unsupported[0]} needs tokens before the final norm, which --rounds does not give: drop one of them"
        )
    visible = visible_tokens(model, volume_BCZYX, mask_ratio=mask_ratio, rounds=rounds, seed=seed)
    fewest, most = int(visible.seen_L.min()), int(visible.seen_L.max())
    text = f"mean over {visible.masks} random masks, each patch visible in {fewest} to {most}"
    if not visible.error_B.isnan():
        text += f", standard error of a token {visible.error_B.item():.0%} of its norm"
    return {name: latent(visible.tokens_BLE, model.grid)[0].float() for name, latent in maps.items()}, text


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    run = args.run or newest_run(kind="pretrain")
    opened = open_run(
        run, "pretrain", checkpoint=args.checkpoint, data=args.data, device=args.device, fidelity=args.fidelity
    )
    subjects = choose_subjects(args.subjects, opened.data.subjects)
    mask_ratio = choose_mask_ratio(run, opened.config["mask_ratio"], args.mask_ratio)
    ratios = choose_ratios(run, mask_ratio, args.ratios, opened.model.config.tokens)
    folder = output_folder(args.out, run, MAPS)
    spaces = requested_spaces(opened.data.root, args.space)
    writer = MapWriter(folder, args.upsample, spaces, args.mosaic, args.viewer)
    for subject in tqdm(subjects, desc="subjects", disable=not sys.stderr.isatty()):
        study = opened.study(subject)
        write_reconstruction(opened, study, folder, mask_ratio=mask_ratio, seed=args.seed)
        if ratios:
            write_ratios(opened, study, folder, ratios=ratios, seed=args.seed)
        maps, visibility = encoder_maps(opened, study, args.map, args.block, mask_ratio, args.rounds, args.seed)
        subtitle = f"Latent map of the pre-trained encoder · {visibility} · {opened.checkpoint.stem}"
        writer.write(study, opened.data.affine(subject), maps, subtitle=subtitle)
    logger.info("%d subject(s) written to %s", len(subjects), folder)


if __name__ == "__main__":
    cli.run(main)
