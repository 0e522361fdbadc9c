"""Command-line options that several programs of vis/ share."""

from pathlib import Path
from typing import get_args

from models.config import Fidelity
from util import ranges
from util.cli import RUN_FROM, Parser
from vis.maps.latent import MAPS
from vis.maps.registry import CLASS_SPECIFIC, map_name
from vis.maps.token_grid import Upsampling


def add_device(parser: Parser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")


def add_block(parser: Parser) -> None:
    parser.add_argument(
        "--block",
        type=ranges.Whole(-10_000, 10_000),
        default=-1,
        help="block after which maps are computed, from 0; -1: last",
    )


def add_class_specific_options(parser: Parser, *, window: int) -> None:
    """Settings of the maps that explain a class. window: the default of --window."""
    parser.add_argument("--steps", type=ranges.Whole(1, 100_000), default=16, help="steps of integrated gradients")
    parser.add_argument(
        "--window", type=ranges.Whole(1, 4096), default=window, help="side of an occlusion window, in patches"
    )
    parser.add_argument("--batch_size", type=ranges.Whole(1, 10_000), default=8, help="volumes per forward pass")


def add_map_options(parser: Parser, *, classes: bool = False) -> None:
    """Options of visualize.py and visualize_finetuned.py. classes: the model is a classifier."""
    kinds = (*MAPS, "directions", *(CLASS_SPECIFIC if classes else ()))
    map_help = f"maps to write: {', '.join(kinds)} or feature-K; max is the map of the paper"
    parser.add_argument("--run", type=Path, help=f"{RUN_FROM}; default: the newest of its kind")
    parser.add_argument("--checkpoint", type=Path, help="checkpoint-N.pth; default: the last of the run")
    parser.add_argument("--data", type=Path, help="prepared folder; default: the training data of the run")
    parser.add_argument("--subjects", nargs="+", default=["2"], metavar="NAME", help="names of subjects, or a number")
    parser.add_argument("--map", nargs="+", type=map_name, default=["max"], metavar="NAME", help=map_help)
    parser.add_argument("--upsample", choices=get_args(Upsampling), default="nearest", help="from tokens to voxels")
    parser.add_argument(
        "--fidelity", choices=get_args(Fidelity), help="fidelity of the computation; default: that of the run"
    )
    add_block(parser)
    parser.add_argument(
        "--space",
        choices=("patient", "prepared"),
        default="patient",
        help="patient: also write NIfTI files on the grid of the original files, if the manifest records it",
    )
    parser.add_argument("--mosaic", action="store_true", help="also draw slices through the whole brain for each map")
    parser.add_argument("--viewer", action="store_true", help="also write an offline HTML viewer for each subject")
    if classes:
        parser.add_argument(
            "--target", type=ranges.Whole(0, 1000), help="class that maps explain, from 0; default: the predicted class"
        )
        add_class_specific_options(parser, window=1)
    parser.add_argument("--out", type=Path, help="output folder; default: RUN/vis")
    add_device(parser)
