"""manifest.csv: one row per prepared subject, enough to check the files and to go back to the patient's space."""

import csv
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from util.atomic import atomic_write

NAME = "manifest.csv"


@dataclass(frozen=True)
class ManifestRow:
    """What was done to one subject. Affines map NIfTI index (x, y, z, 1) to world mm; shapes and crop are (x, y, z)."""

    subject: str
    sources: dict[str, str]
    """File per contrast, and "seg" if there is one."""
    original_shape: list[int]
    """As stored in the file, before it was brought to canonical orientation."""
    original_affine: list[list[float]]
    orientation: str
    """Axis codes of the file as stored, for instance "LPS"; prepared volumes are always "RAS"."""
    crop: list[list[int]]
    """[start, stop) per axis of the canonical grid."""
    affine: list[list[float]]
    """Of the prepared volume."""
    window: dict[str, list[float]]
    """Intensities per contrast that became 1 and 255."""
    contrasts: list[str]
    checksum: dict[str, str]
    """sha256 per prepared .npy file, path relative to the folder."""
    warnings: list[str]
    settings: dict[str, Any]

    @property
    def prepared_affine(self) -> np.ndarray:
        """(4, 4) float64."""
        return np.array(self.affine, dtype=np.float64)


FIELDS = [field.name for field in dataclasses.fields(ManifestRow)]
PLAIN = {"subject", "orientation"}  # text as it is; every other cell is JSON


def write_manifest(root: Path, rows: Mapping[str, ManifestRow]) -> None:
    """Replace ROOT/manifest.csv, rows sorted by subject."""
    with atomic_write(root / NAME, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for subject in sorted(rows):
            cells = ((name, getattr(rows[subject], name)) for name in FIELDS)
            writer.writerow([value if name in PLAIN else json.dumps(value) for name, value in cells])


def read_manifest(root: Path) -> dict[str, ManifestRow]:
    """Rows by subject; empty if there is no manifest. ValueError names the row that cannot be used and the fix."""
    path = root / NAME
    if not path.exists():
        return {}
    rows: dict[str, ManifestRow] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if lacking := [name for name in FIELDS if name not in (reader.fieldnames or [])]:
                raise ValueError(f"{path} has no column {', '.join(lacking)}; remove the file and prepare again")
            for cells in reader:
                row = _row(cells, path, reader.line_num)
                if row.subject in rows:
                    raise ValueError(f'{path} lists subject "{row.subject}" twice; remove one row')
                rows[row.subject] = row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a readable csv file ({error}); remove it and prepare again") from error
    return rows


def _row(cells: Mapping[str, str], path: Path, line: int) -> ManifestRow:
    try:
        values: dict[str, Any] = {name: cells[name] if name in PLAIN else json.loads(cells[name]) for name in FIELDS}
        row = ManifestRow(**values)
        if row.prepared_affine.shape != (4, 4):
            raise ValueError("the affine is not 4 x 4")
    except (TypeError, ValueError) as error:  # json's error is a ValueError
        raise ValueError(f"{path}, line {line}: {error}; remove that row and prepare the subject again") from error
    return row
