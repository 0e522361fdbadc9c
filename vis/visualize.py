"""Show what a pre-trained model, masked or autoregressive, reconstructs and where its latent features are high.

    python vis/visualize.py                                     the newest pre-training run, two subjects
    python vis/visualize.py --run runs/pretrain --subjects 5 --map max norm pca --upsample trilinear

Per subject, in RUN/vis/SUBJECT: reconstruction (.npy, .nii.gz per contrast, .png), latent maps (.npy, .nii.gz, .png).
"""

import argparse
import logging
import sys
from pathlib import Path

if __package__ in (None, ""):  # started as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from tqdm import tqdm

from models import PatchPredictor
from util import cli
from util.runs import newest_run
from vis.display import Study
from vis.figures import reconstruction_figure
from vis.inference import latent_maps
from vis.nifti import write_nifti
from vis.outputs import add_options, file_stem, say_written, write_array, write_map
from vis.reconstruct import reconstruct
from vis.session import Session, choose_subjects, open_run
from vis.style import save_png
from vis.terms import task_words

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Reconstructions and latent maps of a pre-trained model.")
    add_options(parser)
    parser.add_argument("--mask_ratio", type=float, help="part of the patches that is removed; default as in training")
    parser.add_argument("--seed", type=int, default=0, help="which patches are removed")
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


def mask_ratio_of(run: Path, recorded: float | None, asked: float | None) -> float | None:
    """What --mask_ratio asks for, else what the run was trained with; None for an autoregressive run."""
    if recorded is None and asked is not None:
        raise ValueError(f"--mask_ratio {asked}: the run {run} is autoregressive and removes no patches; drop the flag")
    return recorded if asked is None else asked


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    run = args.run or newest_run(kind="pretrain")
    session = open_run(
        run, "pretrain", checkpoint=args.checkpoint, data=args.data, device=args.device, fidelity=args.fidelity
    )
    subjects = choose_subjects(args.subjects, session.data.subjects)
    mask_ratio = mask_ratio_of(run, session.config["mask_ratio"], args.mask_ratio)
    folder = args.out or run / "vis"
    for subject in tqdm(subjects, desc="subjects", disable=not sys.stderr.isatty()):
        study = session.study(subject)
        write_reconstruction(session, study, folder, mask_ratio=mask_ratio, seed=args.seed)
        maps = latent_maps(session.model, session.batch(study), args.map)
        for name, map_Bzyx in maps.items():
            subtitle = f"Latent map of the pre-trained encoder · {session.checkpoint.stem}"
            write_map(folder, study, session.data.affine(subject), name, map_Bzyx[0],
                      upsampling=args.upsample, subtitle=subtitle)  # fmt: skip
    say_written(folder, subjects)


if __name__ == "__main__":
    cli.run(main)
