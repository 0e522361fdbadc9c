"""What visualize.py and visualize_finetuned.py have in common: their options and the files of a latent map."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from models.config import Fidelity
from util.cli import RUN_FROM, Parser, positive
from util.files.atomic import atomic_write
from util.hub.download import is_hub_name
from util.inference.study import Study
from vis.drawing.figures import map_figure, peak
from vis.drawing.mosaics import mosaic_figure
from vis.drawing.style import save_png
from vis.export.nifti import write_nifti
from vis.export.patient_space import PatientSpace, patient_spaces
from vis.maps.latent import MAPS, Upsampling, upsample
from vis.maps.registry import CLASS_SPECIFIC, map_name, method

logger = logging.getLogger(__name__)


def add_options(parser: Parser, *, classes: bool = False) -> None:
    """Options of both programs; with `classes` those of a model that has some, too."""
    kinds = (*MAPS, "directions", *(CLASS_SPECIFIC if classes else ()))
    map_help = f"{', '.join(kinds)} or feature-K; max is the paper's"
    parser.add_argument("--run", type=Path, help=f"{RUN_FROM}; default the newest of its kind")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint-N.pth; default the run's last")
    parser.add_argument("--data", type=Path, help="prepared folder; default the one that the run was trained on")
    parser.add_argument("--subjects", nargs="+", default=["2"], metavar="NAME", help="names, or how many")
    parser.add_argument("--map", nargs="+", type=map_name, default=["max"], metavar="NAME", help=map_help)
    parser.add_argument("--upsample", choices=get_args(Upsampling), default="nearest", help="tokens to voxels")
    parser.add_argument(
        "--fidelity", choices=get_args(Fidelity), help="compute as this fidelity; default the one of the run"
    )
    parser.add_argument("--block", type=int, default=-1, help="maps after this block, from 0; -1 is the last")
    parser.add_argument(
        "--space",
        choices=("patient", "prepared"),
        default="patient",
        help="patient: also NIfTI on the grid of the original files, where a manifest leads back to it",
    )
    parser.add_argument("--mosaic", action="store_true", help="also a figure of slices through the whole brain per map")
    parser.add_argument("--viewer", action="store_true", help="also one offline HTML per subject to look around in")
    if classes:
        parser.add_argument("--target", type=int, help="class that maps explain, from 0; default the predicted")
        parser.add_argument("--steps", type=positive, default=16, help="of integrated gradients")
        parser.add_argument("--window", type=positive, default=1, help="side in patches of what is occluded at once")
        parser.add_argument("--batch_size", type=positive, default=8, help="volumes computed at a time")
    parser.add_argument("--out", type=Path, help="where files go; default RUN/vis")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def write_map(
    folder: Path,
    study: Study,
    affine: np.ndarray,
    name: str,
    map_zyx: Tensor,
    *,
    upsampling: Upsampling,
    subtitle: str,
    space: PatientSpace | None = None,
    mosaic: bool = False,
) -> None:
    """SUBJECT_map-NAME .npy on the token grid (z, y, x), .nii.gz on prepared voxels, .png of planes through
    the tumour's centre and the map's peak.

    space: also SUBJECT_map-NAME_patient.nii.gz on the patient's own grid. mosaic: also a figure of the whole brain.
    """
    size = (study.volume_CZYX.shape[1], study.volume_CZYX.shape[2], study.volume_CZYX.shape[3])
    map_ZYX = upsample(map_zyx.unsqueeze(0), size, upsampling)[0].cpu().numpy()
    stem = file_stem(folder, study.subject, f"map-{name}")
    write_array(stem.with_name(stem.name + ".npy"), map_zyx)
    write_nifti(stem.with_name(stem.name + ".nii.gz"), map_ZYX, affine)
    if space is not None:
        volume_ZYX = space.to_patient(map_ZYX).transpose(2, 1, 0)
        write_nifti(stem.with_name(stem.name + "_patient.nii.gz"), volume_ZYX, space.affine)
    middle = "brain's middle" if study.segmentation_ZYX is None else "tumour's centre"
    centres = {middle: study.focus, "map's peak": peak(study, map_ZYX, method(name).signed)}
    figure = map_figure(study, map_ZYX, name, subtitle=subtitle, centres=centres)
    save_png(stem.with_name(stem.name + ".png"), figure)
    if mosaic:
        save_png(stem.with_name(stem.name + "_mosaic.png"), mosaic_figure(study, map_ZYX, name, subtitle=subtitle))


def spaces(root: Path, wanted: str) -> dict[str, PatientSpace]:
    """Where subjects' maps go besides the prepared grid: nowhere for --space prepared, or without a manifest."""
    if wanted == "prepared":
        return {}
    found = patient_spaces(root)
    if not found:
        logger.warning("%s has no manifest.csv: maps cannot be brought to the patients' own grids", root)
    return found


def output_folder(asked: Path | None, run: Path, *below: str) -> Path:
    """Where files go: what --out asks for, else a folder of the run. ValueError for a run that is on the hub."""
    if asked is None and is_hub_name(run):
        raise ValueError(f"--run {run} is no folder to write to: name one with --out")
    return run.joinpath(*below) if asked is None else asked


def file_stem(folder: Path, subject: str, what: str) -> Path:
    """FOLDER/SUBJECT/SUBJECT_WHAT, to be followed by a suffix."""
    return folder / subject / f"{subject}_{what}"


def write_array(path: Path, tensor: Tensor) -> None:
    """A tensor as float32 .npy, whole or not at all."""
    with atomic_write(path) as file:
        np.save(file, tensor.detach().to("cpu", torch.float32).numpy(), allow_pickle=False)


def say_written(folder: Path, subjects: Sequence[str]) -> None:
    logger.info("%d subject(s) written to %s", len(subjects), folder)
