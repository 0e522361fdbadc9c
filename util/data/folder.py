"""The prepared folder: the files of each subject, and which subjects it has.

    ROOT/t1/NAME_t1.npy  ROOT/t2/NAME_t2.npy  ROOT/t1ce/NAME_t1ce.npy  ROOT/flair/NAME_flair.npy   uint8 (Z, Y, X)
    ROOT/seg_mask/NAME_seg.npy                                                                   optional
    ROOT/manifest.csv                                                                            optional
    ROOT/Genetic_and_Histological_labels.xlsx                                                    EGD only

This is the layout of the paper's README, so that a folder made by hand loads too.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from util.data.subject_names import name_problem

CONTRASTS = ("t1", "t2", "t1ce", "flair")  # the order of the channels
LABEL_SHEET = "Genetic_and_Histological_labels.xlsx"
PHANTOM = "Phantom"  # prefix of the names of simulated subjects


def volume_path(root: Path, subject: str, contrast: str) -> Path:
    return root / contrast / f"{subject}_{contrast}.npy"


def segmentation_path(root: Path, subject: str) -> Path:
    return root / "seg_mask" / f"{subject}_seg.npy"


class BadVolume(ValueError):
    """A prepared volume that cannot be used; the message names the file and the fix."""


def find_subjects(root: Path, contrasts: Sequence[str] = CONTRASTS, *, complete: bool = True) -> list[str]:
    """Sorted names of the subjects of a prepared folder, from the file names in the folders of `contrasts`.

    Raises ValueError if `root` is no prepared folder, if a file has another kind of name and, with `complete`, if a
    subject lacks a contrast.
    """
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; give a folder written by prepare_data.py")
    per_contrast = {contrast: _names_in(root / contrast, contrast) for contrast in contrasts}
    names_of_all = set().union(*per_contrast.values())
    if not names_of_all:
        raise ValueError(f"{root} has no volumes; prepare_data.py fills such a folder")
    for subject in sorted(names_of_all) if complete else ():
        for contrast, names in per_contrast.items():
            if subject not in names:
                raise BadVolume(
                    f'subject "{subject}" has no {contrast}: {volume_path(root, subject, contrast)} is missing; '
                    "prepare that subject again or remove its other files"
                )
    return sorted(names_of_all)


def read_header(path: Path) -> tuple[int, int, int]:
    """The shape (Z, Y, X) of a prepared volume, from its header. Raises BadVolume unless it is a 3-D uint8 .npy
    file."""
    volume = open_volume(path)
    return volume.shape


def open_volume(path: Path) -> np.memmap:
    """A prepared volume, uint8 (Z, Y, X), memory-mapped: values are read on access."""
    try:
        volume = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise BadVolume(f"{path} is missing; prepare that subject again") from None
    except Exception as error:  # numpy parses the header as Python: a damaged byte raises nearly anything
        raise BadVolume(f"{path} is not a readable .npy file ({error}); prepare that subject again") from error
    if not isinstance(volume, np.memmap) or volume.dtype != np.uint8 or volume.ndim != 3:
        content = f"{volume.dtype} {volume.shape}" if isinstance(volume, np.ndarray) else type(volume).__name__
        raise BadVolume(f"{path} holds {content}, not a 3-D uint8 volume; write it with prepare_data.py")
    return volume


def read_volume(path: Path, size: tuple[int, int, int]) -> np.ndarray:
    """The values of a prepared volume of `size`, uint8 (Z, Y, X). Raises BadVolume if it has another size or is cut
    off.

    The file is read, not mapped: if a mapped file is truncated, the operating system ends the process.
    """
    mapped = open_volume(path)
    if mapped.shape != size:
        raise BadVolume(f"{path} is {mapped.shape} voxels, expected {size}; prepare all subjects with one --size")
    try:
        values = np.fromfile(path, np.uint8, mapped.size, offset=mapped.offset)
    except OSError as error:
        raise BadVolume(f"{path} cannot be read ({error}); prepare that subject again") from error
    if values.size < mapped.size:
        raise BadVolume(f"{path} lacks {mapped.size - values.size} bytes at its end; prepare that subject again")
    return values.reshape(size, order="C" if mapped.flags.c_contiguous else "F")


def _names_in(folder: Path, contrast: str) -> set[str]:
    if not folder.is_dir():
        raise ValueError(f"{folder} is missing: a prepared folder has one folder per contrast; run prepare_data.py")
    suffix = f"_{contrast}"
    names = set()
    for path in folder.glob("*.npy"):
        if not path.stem.endswith(suffix) or path.stem == suffix:
            raise ValueError(f"{path} should be named NAME{suffix}.npy; rename or remove it")
        name = path.stem.removesuffix(suffix)
        if problem := name_problem(name):
            raise ValueError(f"{folder}: {problem}")
        names.add(name)
    return names
