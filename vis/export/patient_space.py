"""Resampling from the prepared grid to patient space: grid, orientation and affine of the original files."""

from dataclasses import dataclass
from pathlib import Path

import nibabel.orientations as orientations
import numpy as np
from scipy.ndimage import affine_transform

from util.data.manifest import ManifestRow, read_manifest
from util.data.prepare.study import Prepared

RAS = np.array([[0, 1], [1, 1], [2, 1]])  # nibabel's code for the canonical orientation


@dataclass(frozen=True)
class PatientSpace:
    """The original grid of a subject, and the position of the prepared grid in it.

    Arrays in patient space are (X, Y, Z), as in NIfTI files. Arrays on the prepared grid are (Z, Y, X).
    """

    shape: tuple[int, int, int]
    """(X, Y, Z) as stored, in the orientation of the file."""
    affine: np.ndarray
    """(4, 4) of the stored file, from index to world mm."""
    crop: tuple[tuple[int, int], ...]
    """[start, stop) per axis of the canonical grid. Preparation removed the voxels outside."""
    prepared_affine: np.ndarray
    """(4, 4) from index (x, y, z) of the prepared volume to world mm."""

    @classmethod
    def of(cls, row: ManifestRow) -> "PatientSpace":
        """The patient space that a row of the manifest records. ValueError if the row does not record it."""
        if len(row.original_shape) < 3 or len(row.crop) != 3:
            raise ValueError(
                f"the manifest does not record the original grid of {row.subject}; prepare the subject again"
            )
        x, y, z = row.original_shape[:3]  # if there is a fourth dimension, its length is 1
        crop = tuple((start, stop) for start, stop in row.crop)
        return cls((x, y, z), np.array(row.original_affine, dtype=np.float64), crop, row.prepared_affine)

    @classmethod
    def of_prepared(cls, prepared: Prepared) -> "PatientSpace":
        """The patient space of a study that was just prepared."""
        x, y, z = prepared.source.stored_shape[:3]
        return cls((x, y, z), prepared.source.stored_affine, tuple(prepared.crop), prepared.affine)

    def to_patient(self, volume_ZYX: np.ndarray, *, order: int = 1) -> np.ndarray:
        """Resample (Z, Y, X) on the prepared grid to (X, Y, Z) in patient space. Voxels outside the crop are 0.

        order: 1 for linear interpolation (maps, float32), 0 for the nearest voxel (masks, with their own type). The
        values of the outermost prepared voxels are repeated up to the edge of the crop, by at most half a voxel.
        """
        stored = orientations.io_orientation(self.affine)
        canonical_affine = self.affine @ orientations.inv_ornt_aff(stored, self.shape)
        canonical = np.zeros(self._canonical_shape(stored), np.float32 if order else volume_ZYX.dtype)
        starts = np.array([start for start, _ in self.crop])
        sides = [stop - start for start, stop in self.crop]
        to_prepared = np.linalg.inv(self.prepared_affine) @ canonical_affine
        matrix, offset = to_prepared[:3, :3], to_prepared[:3, :3] @ starts + to_prepared[:3, 3]
        values = volume_ZYX.transpose(2, 1, 0)
        inside = tuple(slice(start, stop) for start, stop in self.crop)
        canonical[inside] = affine_transform(
            values.astype(canonical.dtype), matrix, offset, output_shape=tuple(sides), order=order, mode="nearest"
        )
        back = orientations.ornt_transform(RAS, stored)
        return np.ascontiguousarray(orientations.apply_orientation(canonical, back))

    def _canonical_shape(self, stored: np.ndarray) -> tuple[int, ...]:
        """(X, Y, Z) shape after reordering the stored axes to canonical order."""
        sides = [0, 0, 0]
        for side, (axis, _) in zip(self.shape, stored, strict=True):
            sides[int(axis)] = side
        return tuple(sides)


def patient_spaces(root: Path) -> dict[str, PatientSpace]:
    """The patient space of every subject of a prepared folder. Empty for a folder without a manifest.

    ValueError names a subject whose row does not record its original grid.
    """
    return {subject: PatientSpace.of(row) for subject, row in read_manifest(root).items()}
