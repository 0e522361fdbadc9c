"""Prepare raw NIfTI studies for training, and simulate phantom studies for demos and tests.

python prepare_data.py phantom demo/raw --subjects 40 --seed 0 --spacing 2
python prepare_data.py brats demo/raw/brats demo/brats_prepared --size 80 --workers 2
python prepare_data.py egd demo/raw/egd demo/egd_prepared --size 80 --labels demo/raw/egd/SHEET.xlsx
python prepare_data.py folder SRC DST --pattern "{subject}/anat/{subject}_{contrast}.nii.gz"
"""

import argparse
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from util import ranges
from util.cli import Parser, run, setup_logging
from util.data.folder import LABEL_SHEET
from util.data.labels import LabelType, read_labels
from util.data.prepare.cohort import prepare_cohort
from util.data.prepare.study import Settings
from util.data.raw.layouts import EXAMPLE_PATTERN, RawStudy, find_brats, find_by_pattern, find_egd
from util.data.raw.orientation import orientation_code
from util.data.raw.roles import given_names, names_option
from util.files.atomic import atomic_write

logger = logging.getLogger(__name__)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    default = Settings()

    common = Parser(add_help=False)
    common.add_argument("source", type=Path, metavar="SRC", help="folder of the raw studies")
    common.add_argument("destination", type=Path, metavar="DST", help="prepared folder, created if it is missing")
    common.add_argument(
        "--size",
        type=ranges.Whole(1, 4096),
        nargs="+",
        default=list(default.size),
        metavar="N",
        help="voxels of the prepared volume: one number, or Z Y X (default: 160)",
    )
    common.add_argument(
        "--percentiles",
        type=ranges.Real(0, 100),
        nargs=2,
        default=list(default.percentiles),
        metavar=("LOW", "HIGH"),
        help="brain intensities that become 1 and 255 (default: %(default)s)",
    )
    common.add_argument(
        "--margin",
        type=ranges.Whole(0, 4096),
        default=default.margin,
        help="original voxels kept around the brain (default: %(default)s)",
    )
    common.add_argument(
        "--names",
        type=names_option,
        nargs="+",
        action="extend",
        default=[],
        metavar="ROLE=NAME",
        help="what files call a contrast, seg or brain, beside the usual names: t1ce=T1POST for NAME_T1POST.nii.gz; "
        "* matches any part",
    )
    common.add_argument("--seg", metavar="NAME", help="same as --names seg=NAME; none: use no segmentation")
    common.add_argument("--brain_mask", metavar="NAME", help="same as --names brain=NAME; none: use no brain mask")
    common.add_argument(
        "--assume_orientation",
        type=orientation_code,
        metavar="CODE",
        help="directions of the axes of files whose header has no orientation, such as LPS; default: refuse them",
    )
    common.add_argument("--workers", type=ranges.threads, default=1, help="processes (default: %(default)s)")
    common.add_argument("--overwrite", action="store_true", help="prepare subjects again that are already prepared")

    commands.add_parser("brats", parents=[common], help="NAME/NAME_{t1,t1ce,t2,flair,seg}.nii.gz or -t1n, -t1c, ...")
    egd = commands.add_parser("egd", parents=[common], help="SUBJECT/1_T1/NIFTI/T1.nii.gz, ... and the label sheet")
    egd.add_argument(
        "--labels",
        type=Path,
        required=True,
        metavar="FILE.xlsx",
        help="Excel sheet with columns Subject, IDH, 1p19q, Grade; it is checked and copied to DST",
    )
    folder = commands.add_parser("folder", parents=[common], help="any other layout")
    folder.add_argument(
        "--pattern",
        required=True,
        help=f'file names below SRC, for instance "{EXAMPLE_PATTERN}"; '
        "{contrast} is t1, t2, t1ce, flair, seg or another usual name; * matches within a name",
    )

    phantom = commands.add_parser("phantom", help="simulated studies in the layouts of BraTS and EGD")
    phantom.add_argument("destination", type=Path, metavar="DST", help="gets the folders brats/ and egd/")
    phantom.add_argument(
        "--subjects", type=ranges.Whole(1, 10**6), default=40, help="subjects per layout (default: %(default)s)"
    )
    phantom.add_argument("--seed", type=ranges.seed, default=0, help="random seed (default: %(default)s)")
    phantom.add_argument(
        "--spacing", type=ranges.Real(0.5, 4), default=1.0, metavar="MM", help="voxel size (default: %(default)s)"
    )
    phantom.add_argument(
        "--marker_strength",
        type=ranges.Real(0, 1),
        default=1.0,
        metavar="S",
        help="how strongly tumours show their molecular class, from 0 (not at all) to 1 (default: %(default)s)",
    )
    phantom.add_argument("--layout", choices=("both", "brats", "egd"), default="both", help="(default: %(default)s)")
    phantom.add_argument("--workers", type=ranges.threads, default=1, help="processes (default: %(default)s)")
    phantom.add_argument("--overwrite", action="store_true", help="simulate again phantoms that exist")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0 if all subjects are prepared, 1 if some failed, which the log lists."""
    args = parse(argv)
    setup_logging()
    if args.command == "phantom":
        # imported here because it needs torch and nilearn, which workers of a preparation do without
        from util.data.phantom.cohort import write_phantoms

        layouts = ("brats", "egd") if args.layout == "both" else (args.layout,)
        write_phantoms(
            args.destination,
            layouts,
            subjects=args.subjects,
            seed=args.seed,
            spacing=args.spacing,
            marker_strength=args.marker_strength,
            workers=args.workers,
            overwrite=args.overwrite,
        )
        return 0
    settings = Settings(size=_size(args.size), percentiles=tuple(args.percentiles), margin=args.margin)
    masks = {"seg": args.seg, "brain": args.brain_mask}
    names = given_names([*args.names, *((role, name) for role, name in masks.items() if name)])
    if args.command == "brats":
        studies = find_brats(args.source, names)
    elif args.command == "egd":
        studies = find_egd(args.source, names)
        _check_labels(studies, args.labels)
    else:
        studies = find_by_pattern(args.source, args.pattern, names)
    for study in studies:
        study.assumed_orientation = args.assume_orientation
    failures = prepare_cohort(studies, args.destination, settings, workers=args.workers, overwrite=args.overwrite)
    if args.command == "egd":
        _copy(args.labels, args.destination / LABEL_SHEET)
    logger.info(
        "%d of %d subjects are prepared in %s; look at the pictures in %s",
        len(studies) - len(failures),
        len(studies),
        args.destination,
        args.destination / "qc",
    )
    for subject in sorted(failures):
        logger.error("failed: %s: %s", subject, failures[subject])
    return 1 if failures else 0


def _size(numbers: list[int]) -> tuple[int, int, int]:
    if len(numbers) not in (1, 3):
        raise ValueError(f"--size has {len(numbers)} numbers; give one, or three for Z Y X")
    size_z, size_y, size_x = numbers * 3 if len(numbers) == 1 else numbers
    return size_z, size_y, size_x


def _check_labels(studies: list[RawStudy], sheet: Path) -> None:
    """Check every label column of the sheet. A study without a row in it fails later, by itself."""
    listed: set[str] = set()
    for label_type in get_args(LabelType):
        listed.update(read_labels(sheet, label_type))
    for study in studies:
        if study.subject not in listed and study.problem is None:
            study.problem = f"{sheet} has no row for it; add one, with -1 for unknown labels"


def _copy(sheet: Path, destination: Path) -> None:
    if destination.exists() and destination.samefile(sheet):
        return
    with sheet.open("rb") as original, atomic_write(destination) as copy:
        shutil.copyfileobj(original, copy)


if __name__ == "__main__":
    run(main)
