"""Show what a pre-trained model, masked or autoregressive, reconstructs and where its latent features are high.

    python vis/visualize.py                                     the newest pre-training run, two subjects
    python vis/visualize.py --run runs/pretrain --subjects 5 --map max norm pca --upsample trilinear

Per subject, in RUN/vis/SUBJECT: reconstruction (.npy, .nii.gz per contrast, .png; ratios.png at
several mask ratios), latent maps (.npy, .nii.gz, .png).
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
from util import cli
from util.inference.open_run import Session, choose_subjects, open_run
from util.inference.study import Study
from util.run_folder import MAPS
from util.runs import newest_run
from vis.drawing.figures import reconstruction_figure
from vis.drawing.mosaics import ratio_figure
from vis.drawing.reconstruction import reconstruct
from vis.drawing.style import save_png
from vis.drawing.wording import task_words
from vis.export.map_files import add_options, file_stem, output_folder, say_written, spaces, write_array, write_map
from vis.export.nifti import write_nifti
from vis.export.viewer import write_viewer
from vis.maps.latent import latent_map
from vis.maps.masked_encoder import visible_tokens
from vis.maps.registry import MapOptions, compute_maps

logger = logging.getLogger(__name__)
RATIOS = (0.25, 0.5, 0.75, 0.9)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Reconstructions and latent maps of a pre-trained model.")
    add_options(parser)
    parser.add_argument("--mask_ratio", type=float, help="part of the patches that is removed; default as in training")
    parser.add_argument("--seed", type=int, default=0, help="which patches are removed")
    parser.add_argument(
        "--rounds",
        type=int,
        default=0,
        help="0: maps of an encoder that sees all patches; N: mean over random masks that show each N times or more",
    )
    parser.add_argument(
        "--ratios", type=float, nargs="*", metavar="R", help="a figure of reconstructions at these mask ratios, none "
        f"for no figure; default {' '.join(map(str, RATIOS))} for a masked run",
    )  # fmt: skip
    return parser.parse_args(argv)


def write_reconstruction(session: Session, study: Study, folder: Path, *, mask_ratio: float | None, seed: int) -> None:
    """The decoder's output as .npy (C, Z, Y, X), input, reconstruction and mask as NIfTI, a figure."""
    model = session.model
    assert isinstance(model, PatchPredictor)
    subject, affine = study.subject, session.data.affine(study.subject)
    result = reconstruct(model, session.batch(study), mask_ratio=mask_ratio, seed=seed)
    write_array(file_stem(folder, subject, "prediction.npy"), result.prediction[0])
    pasted_CZYX, removed_ZYX = result.pasted[0].cpu().numpy(), result.removed_ZYX[0].cpu().numpy()
    for contrast, original_ZYX, pasted_ZYX in zip(study.contrasts, study.volume_CZYX, pasted_CZYX, strict=True):
        write_nifti(file_stem(folder, subject, f"{contrast}_input.nii.gz"), original_ZYX, affine)
        write_nifti(file_stem(folder, subject, f"{contrast}_reconstruction.nii.gz"), pasted_ZYX, affine)
    write_nifti(file_stem(folder, subject, "removed.nii.gz"), removed_ZYX.astype(np.float32), affine)
    subtitle = f"{task_words(mask_ratio)} · loss {result.loss:.3f} · {session.checkpoint.stem}"
    figure = reconstruction_figure(study, result.prediction[0].cpu().numpy(), removed_ZYX, subtitle=subtitle)
    save_png(file_stem(folder, subject, "reconstruction.png"), figure)


def write_ratios(session: Session, study: Study, folder: Path, *, ratios: Sequence[float], seed: int) -> None:
    """A figure of reconstructions by mask ratio. The masks of a seed are nested: a larger ratio removes more."""
    model = session.model
    assert isinstance(model, PatchPredictor)
    attempts = {}
    for ratio in ratios:
        found = reconstruct(model, session.batch(study), mask_ratio=ratio, seed=seed)
        attempts[ratio] = (found.pasted[0].cpu().numpy(), found.removed_ZYX[0].cpu().numpy(), found.loss)
    subtitle = f"Of each pair: left what the encoder sees, right the reconstruction · {session.checkpoint.stem}"
    figure = ratio_figure(study, attempts, subtitle=subtitle)
    save_png(file_stem(folder, study.subject, "ratios.png"), figure)


def ratios_of(run: Path, mask_ratio: float | None, asked: Sequence[float] | None, tokens: int) -> Sequence[float]:
    """What --ratios asks for, checked; none for an autoregressive run."""
    if asked is None:
        return () if mask_ratio is None else RATIOS
    if mask_ratio is None and asked:
        raise ValueError(f"--ratios: the run {run} is autoregressive and removes no patches; drop the flag")
    for ratio in asked:
        if not 0 < ratio < 1 or not 1 <= int(tokens * (1 - ratio)) < tokens:
            raise ValueError(f"--ratios {ratio}: choose between 0 and 1, so that some of {tokens} patches stay visible")
    return asked


def mask_ratio_of(run: Path, recorded: float | None, asked: float | None) -> float | None:
    """What --mask_ratio asks for, else what the run was trained with; None for an autoregressive run."""
    if recorded is None and asked is not None:
        raise ValueError(f"--mask_ratio {asked}: the run {run} is autoregressive and removes no patches; drop the flag")
    return recorded if asked is None else asked


def encoder_maps(
    session: Session, study: Study, names: Sequence[str], block: int, mask_ratio: float | None, rounds: int, seed: int
) -> tuple[dict[str, Tensor], str]:
    """Maps (z, y, x) by name and how they were made: of all tokens at once, or as the masked encoder saw them."""
    model, volume_BCZYX = session.model, session.batch(study)
    assert isinstance(model, PatchPredictor)
    if rounds == 0:
        found = compute_maps(model, volume_BCZYX, names, MapOptions(block=block))
        return {name: each.values_Bzyx[0] for name, each in found.items()}, "all patches visible"
    if mask_ratio is None or not isinstance(model, MaskedAutoencoder3D):
        raise ValueError(f"--rounds {rounds} averages over masks, which an autoregressive run has not: drop the flag")
    if block not in (-1, model.config.depth - 1):
        raise ValueError(f"--rounds {rounds} gives the encoder's final tokens: drop --block {block}")
    maps = {name: latent_map(name) for name in names}
    if needy := [name for name, found in maps.items() if found.before_norm]:
        raise ValueError(
            f"--map {needy[0]} wants tokens before the final norm, which --rounds has not: drop one of both"
        )
    found = visible_tokens(model, volume_BCZYX, mask_ratio=mask_ratio, rounds=rounds, seed=seed)
    how = (
        f"mean over {found.masks} random masks, each patch visible in {int(found.seen_L.min())} to "
        f"{int(found.seen_L.max())}"
    )
    if not found.error_B.isnan():
        how += f", standard error of a token {found.error_B.item():.0%} of its length"
    return {name: reduce(found.tokens_BLE, model.grid)[0].float() for name, reduce in maps.items()}, how


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    run = args.run or newest_run(kind="pretrain")
    session = open_run(
        run, "pretrain", checkpoint=args.checkpoint, data=args.data, device=args.device, fidelity=args.fidelity
    )
    subjects = choose_subjects(args.subjects, session.data.subjects)
    mask_ratio = mask_ratio_of(run, session.config["mask_ratio"], args.mask_ratio)
    ratios = ratios_of(run, mask_ratio, args.ratios, session.model.config.tokens)
    folder = output_folder(args.out, run, MAPS)
    patients = spaces(session.data.root, args.space)
    for subject in tqdm(subjects, desc="subjects", disable=not sys.stderr.isatty()):
        study = session.study(subject)
        write_reconstruction(session, study, folder, mask_ratio=mask_ratio, seed=args.seed)
        if ratios:
            write_ratios(session, study, folder, ratios=ratios, seed=args.seed)
        maps, how = encoder_maps(session, study, args.map, args.block, mask_ratio, args.rounds, args.seed)
        subtitle = f"Latent map of the pre-trained encoder · {how} · {session.checkpoint.stem}"
        for name, map_zyx in maps.items():
            write_map(folder, study, session.data.affine(subject), name, map_zyx, upsampling=args.upsample,
                      subtitle=subtitle, space=patients.get(subject), mosaic=args.mosaic)  # fmt: skip
        if args.viewer:
            path = file_stem(folder, subject, "viewer.html")
            write_viewer(path, study, session.data.affine(subject), maps, subtitle=subtitle)
    say_written(folder, subjects)


if __name__ == "__main__":
    cli.run(main)
