"""What visualize.py and visualize_finetuned.py have in common: their options and the files of a latent map."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from models.config import Fidelity
from util.atomic import atomic_write
from util.cli import Parser
from vis.display import Study
from vis.figures import map_figure
from vis.maps import MAPS, Upsampling, upsample
from vis.nifti import write_nifti
from vis.style import save_png

logger = logging.getLogger(__name__)


def add_options(parser: Parser) -> None:
    """Options of both programs."""
    parser.add_argument("--run", type=Path, help="run folder; default the newest of its kind")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint-N.pth; default the run's last")
    parser.add_argument("--data", type=Path, help="prepared folder; default the one that the run was trained on")
    parser.add_argument("--subjects", nargs="+", default=["2"], metavar="NAME", help="names, or how many")
    parser.add_argument("--map", nargs="+", choices=tuple(MAPS), default=["max"], help="max is the paper's")
    parser.add_argument("--upsample", choices=get_args(Upsampling), default="nearest", help="tokens to voxels")
    parser.add_argument(
        "--fidelity", choices=get_args(Fidelity), help="compute as this fidelity; default the one of the run"
    )
    parser.add_argument("--out", type=Path, help="where files go; default RUN/vis")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def write_map(
    folder: Path, study: Study, affine: np.ndarray, name: str, map_zyx: Tensor, *, upsampling: Upsampling, subtitle: str
) -> None:
    """SUBJECT_map-NAME .npy on the token grid (z, y, x), .nii.gz and .png on voxels."""
    size = (study.volume_CZYX.shape[1], study.volume_CZYX.shape[2], study.volume_CZYX.shape[3])
    map_ZYX = upsample(map_zyx.unsqueeze(0), size, upsampling)[0].cpu().numpy()
    stem = file_stem(folder, study.subject, f"map-{name}")
    write_array(stem.with_name(stem.name + ".npy"), map_zyx)
    write_nifti(stem.with_name(stem.name + ".nii.gz"), map_ZYX, affine)
    save_png(stem.with_name(stem.name + ".png"), map_figure(study, map_ZYX, name, subtitle=subtitle))


def file_stem(folder: Path, subject: str, what: str) -> Path:
    """FOLDER/SUBJECT/SUBJECT_WHAT, to be followed by a suffix."""
    return folder / subject / f"{subject}_{what}"


def write_array(path: Path, tensor: Tensor) -> None:
    """A tensor as float32 .npy, whole or not at all."""
    with atomic_write(path) as file:
        np.save(file, tensor.detach().to("cpu", torch.float32).numpy(), allow_pickle=False)


def say_written(folder: Path, subjects: Sequence[str]) -> None:
    logger.info("%d subject(s) written to %s", len(subjects), folder)
