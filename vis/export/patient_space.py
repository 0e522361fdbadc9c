"""From the prepared grid back to the patient's own: grid, orientation and affine of the files that were prepared."""

from dataclasses import dataclass
from pathlib import Path

import nibabel.orientations as orientations
import numpy as np
from scipy.ndimage import affine_transform

from util.data.manifest import ManifestRow, read_manifest

RAS = np.array([[0, 1], [1, 1], [2, 1]])  # nibabel's code of the canonical orientation


@dataclass(frozen=True)
class PatientSpace:
    """Where a subject's prepared grid lies in the original one. Arrays of NIfTI are (X, Y, Z) there, ours (Z, Y, X)."""

    shape: tuple[int, int, int]
    """As stored, in the file's own orientation."""
    affine: np.ndarray
    """(4, 4) of the stored file: index to world mm."""
    crop: tuple[tuple[int, int], ...]
    """[start, stop) per axis of the canonical grid; what lies outside was never seen by a model."""
    prepared_affine: np.ndarray
    """(4, 4) from index (x, y, z) of the prepared volume to world mm."""

    @classmethod
    def of(cls, row: ManifestRow) -> "PatientSpace":
        """As the manifest tells. ValueError where it does not."""
        if len(row.original_shape) < 3 or len(row.crop) != 3:
            raise ValueError(f"the manifest does not say where {row.subject} came from; prepare the subject again")
        x, y, z = row.original_shape[:3]  # a fourth dimension, where there is one, has length 1
        crop = tuple((start, stop) for start, stop in row.crop)
        return cls((x, y, z), np.array(row.original_affine, dtype=np.float64), crop, row.prepared_affine)

    def to_patient(self, volume_ZYX: np.ndarray, *, order: int = 1) -> np.ndarray:
        """(Z, Y, X) on the prepared grid -> (X, Y, Z) on the original one, 0 outside the crop.

        order: 1 interpolates linearly (maps, float32), 0 takes the nearest voxel (masks, in their own type). Values of
        the outermost prepared voxels reach to the edge of the crop, at most half a prepared voxel further.
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
        """(X, Y, Z) sides after the stored axes were put in canonical order."""
        sides = [0, 0, 0]
        for side, (axis, _) in zip(self.shape, stored, strict=True):
            sides[int(axis)] = side
        return tuple(sides)


def patient_spaces(root: Path) -> dict[str, PatientSpace]:
    """Of every subject of a prepared folder; empty for a folder made by hand, which says nothing of the originals.

    ValueError names a subject whose row does not lead back.
    """
    return {subject: PatientSpace.of(row) for subject, row in read_manifest(root).items()}
