"""Phantom studies: simulated multi-contrast MRI as raw NIfTI files, in the folder layouts of BraTS and EGD.

They are for demos and tests and have no clinical meaning. Subject i depends on the seed, the layout and i alone.
"""

import gzip
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
import openpyxl

from util.data.folder import LABEL_SHEET, PHANTOM
from util.data.phantom.anatomy import brats_grid, random_anatomy
from util.data.phantom.signal import render_contrasts
from util.data.phantom.tumour import TumourClass, check_marker_strength, random_tumour
from util.files.atomic import atomic_write

Layout = Literal["brats", "egd"]
LAYOUTS: tuple[Layout, ...] = ("brats", "egd")
EGD_FILES = {
    "t1": "1_T1/NIFTI/T1",
    "t1ce": "2_T1GD/NIFTI/T1GD",
    "t2": "3_T2/NIFTI/T2",
    "flair": "4_FLAIR/NIFTI/FLAIR",
    "seg": "5_MASK/NIFTI/MASK",
}
# Of ten subjects 5 are IDH wild type, 2 mutant and 3 co-deleted, so that five folds work with about 40 subjects.
CYCLE: tuple[TumourClass, ...] = (
    "wildtype",
    "mutant",
    "wildtype",
    "codeleted",
    "wildtype",
    "mutant",
    "wildtype",
    "codeleted",
    "wildtype",
    "codeleted",
)
GRADES: dict[TumourClass, tuple[int, ...]] = {"wildtype": (4, 4, 4, 3), "mutant": (2, 3, 3, 4), "codeleted": (2, 2, 3)}
UNKNOWN_SHARE = {"IDH": 0.08, "1p19q": 0.2, "Grade": 0.1}


@dataclass(frozen=True)
class Phantom:
    """One simulated study: images and seg (X, Y, Z) on one grid, and its row of the label sheet (-1 = unknown)."""

    subject: str
    images: dict[str, np.ndarray]
    seg: np.ndarray
    affine: np.ndarray
    kind: TumourClass
    labels: dict[str, int]


def subject_name(layout: Layout, index: int) -> str:
    return f"{PHANTOM}{'BraTS' if layout == 'brats' else 'EGD'}-{index + 1:04d}"


def make_phantom(
    layout: Layout, index: int, *, seed: int, spacing: float = 1.0, marker_strength: float = 1.0
) -> Phantom:
    """Subject number `index` (from 0) of `layout`, on the BraTS grid at `spacing` mm.

    marker_strength: how strongly the tumour shows its molecular class, from 0 to 1. At 0 images and seg do not depend
    on the class.
    """
    if not 0.5 <= spacing <= 4:
        raise ValueError(f"--spacing is {spacing} mm; choose between 0.5 and 4")
    check_marker_strength(marker_strength)
    generator = np.random.default_rng([seed, LAYOUTS.index(layout), index])
    kind = _kind(index)
    labels = _draw_labels(generator, kind)
    anatomy = random_anatomy(generator, spacing)
    tumour = random_tumour(generator, anatomy, kind, spacing, marker_strength)
    images = render_contrasts(generator, anatomy, tumour, spacing)
    return Phantom(subject_name(layout, index), images, tumour.labels, brats_grid(spacing)[1], kind, labels)


def study_files(layout: Layout, index: int, folder: Path) -> dict[str, Path]:
    """The files of the four contrasts and "seg" of subject number `index` below `folder`."""
    name = subject_name(layout, index)
    if layout == "brats":
        return {role: folder / name / f"{name}_{role}.nii.gz" for role in EGD_FILES}
    return {role: folder / name / f"{file}.nii.gz" for role, file in EGD_FILES.items()}


def write_phantom(phantom: Phantom, layout: Layout, index: int, folder: Path) -> None:
    """Write the five NIfTI files of subject number `index` below `folder`."""
    for role, path in study_files(layout, index, folder).items():
        volume = phantom.seg if role == "seg" else phantom.images[role]
        image = nibabel.Nifti1Image(volume, phantom.affine)
        with atomic_write(path) as file:
            file.write(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def write_egd_labels(folder: Path, subjects: int, *, seed: int) -> None:
    """Write FOLDER/Genetic_and_Histological_labels.xlsx for the first `subjects` EGD phantoms, without simulating
    them."""
    workbook = openpyxl.Workbook()
    worksheet = workbook.worksheets[0]
    worksheet.append(["Subject", *UNKNOWN_SHARE])
    for index in range(subjects):
        labels = _draw_labels(np.random.default_rng([seed, LAYOUTS.index("egd"), index]), _kind(index))
        worksheet.append([subject_name("egd", index), *labels.values()])
    buffer = BytesIO()
    workbook.save(buffer)
    with atomic_write(folder / LABEL_SHEET) as file:
        file.write(buffer.getvalue())


def _kind(index: int) -> TumourClass:
    return CYCLE[index % len(CYCLE)]


def _draw_labels(generator: np.random.Generator, kind: TumourClass) -> dict[str, int]:
    """The labels of a `kind`, some replaced by -1. It always draws four numbers, so that images do not depend on
    them."""
    grade = int(generator.choice(GRADES[kind]))
    truth = {"IDH": int(kind != "wildtype"), "1p19q": int(kind == "codeleted"), "Grade": grade}
    return {column: -1 if generator.random() < UNKNOWN_SHARE[column] else value for column, value in truth.items()}
