"""manifest.csv: one row per prepared subject, to check its files and to map results back to the patient's space."""

import csv
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from util.data.folder import CONTRASTS, segmentation_path, volume_path
from util.data.subject_names import name_problem
from util.files.atomic import atomic_write

NAME = "manifest.csv"
MAX_BYTES = 64 * 2**20  # a row takes about 2 KB, so this is 30,000 subjects


@dataclass(frozen=True)
class ManifestRow:
    """How one subject was prepared. Affines map a NIfTI index (x, y, z, 1) to world mm; shapes and crop are (x, y,
    z)."""

    subject: str
    sources: dict[str, str]
    """The raw file of each contrast, and of "seg" if there is one."""
    original_shape: list[int]
    """Shape of the raw file, before reorientation."""
    original_affine: list[list[float]]
    orientation: str
    """Axis codes of the raw file, for instance "LPS"; prepared volumes are always "RAS"."""
    crop: list[list[int]]
    """[start, stop) per axis of the canonical grid."""
    affine: list[list[float]]
    """Affine of the prepared volume."""
    window: dict[str, list[float]]
    """The intensities of each contrast that became 1 and 255."""
    contrasts: list[str]
    checksum: dict[str, str]
    """SHA-256 of every prepared .npy file, by its path relative to the folder."""
    warnings: list[str]
    settings: dict[str, Any]

    @property
    def prepared_affine(self) -> np.ndarray:
        """`affine` as a float64 array (4, 4)."""
        return np.array(self.affine, dtype=np.float64)


FIELDS = [field.name for field in dataclasses.fields(ManifestRow)]
PLAIN = {"subject", "orientation"}  # columns of plain text; every other cell is JSON


def write_manifest(root: Path, rows: Mapping[str, ManifestRow]) -> None:
    """Replace ROOT/manifest.csv, rows sorted by subject."""
    with atomic_write(root / NAME, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for subject in sorted(rows):
            cells = ((name, getattr(rows[subject], name)) for name in FIELDS)
            writer.writerow([value if name in PLAIN else json.dumps(value) for name, value in cells])


def read_manifest(root: Path) -> dict[str, ManifestRow]:
    """The rows by subject; {} if there is no manifest. Raises ValueError with the row at fault and the fix.

    A row must not name a file outside `root` or of another subject, also not through a link.
    """
    path = root / NAME
    if not path.exists():
        return {}
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is larger than {MAX_BYTES >> 20} MiB; remove it and prepare again")
    rows: dict[str, ManifestRow] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in FIELDS if name not in (reader.fieldnames or [])]:
                raise ValueError(f"{path} has no column {', '.join(missing)}; remove the file and prepare again")
            for cells in reader:
                row = _row(cells, path, reader.line_num)
                if row.subject in rows:
                    raise ValueError(f'{path} lists subject "{row.subject}" twice; remove one row')
                rows[row.subject] = row
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ValueError(f"{path} is not a readable csv file ({error}); remove it and prepare again") from error
    _check_links(root, rows)
    return rows


def _check(row: ManifestRow) -> None:
    """Raise ValueError for a row with a value of another type, or with a file that is not its subject's own."""
    for field in dataclasses.fields(ManifestRow):
        kind = dict if str(field.type).startswith("dict") else list if str(field.type).startswith("list") else str
        if not isinstance(getattr(row, field.name), kind):
            raise ValueError(f"{field.name} is not a {kind.__name__}")
    if problem := name_problem(row.subject):
        raise ValueError(problem)
    own = [volume_path(Path(), row.subject, contrast) for contrast in CONTRASTS]
    own.append(segmentation_path(Path(), row.subject))
    if foreign := set(row.checksum) - {path.as_posix() for path in own}:
        raise ValueError(f"{min(foreign)[:100]!r} is no file of subject {row.subject!r}")
    if not all(isinstance(source, str) for source in row.sources.values()):
        raise ValueError("sources are not file names")
    if not all(isinstance(number, int) for number in (*row.original_shape, *(n for side in row.crop for n in side))):
        raise ValueError("original_shape or crop are not whole numbers")
    for affine in (row.prepared_affine, np.array(row.original_affine, dtype=np.float64)):
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ValueError("the affine is not 4 x 4 finite numbers")


def _check_links(root: Path, rows: Mapping[str, ManifestRow]) -> None:
    """Raise ValueError for a link to a file outside the folder: prepare_data.py writes none, so it is not trusted."""
    files = [root / name for row in rows.values() for name in row.checksum]
    linked_folders = {folder for folder in {path.parent for path in files} if folder.is_symlink()}
    inside = root.resolve()
    for path in files:
        if (path.parent in linked_folders or path.is_symlink()) and not path.resolve().is_relative_to(inside):
            raise ValueError(f"{path} is a link that leaves {root}; copy the file there, or prepare the subject again")


def _row(cells: Mapping[str, str], path: Path, line: int) -> ManifestRow:
    try:
        values: dict[str, Any] = {name: cells[name] if name in PLAIN else json.loads(cells[name]) for name in FIELDS}
        row = ManifestRow(**values)
        _check(row)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:  # json's error is a ValueError
        raise ValueError(f"{path}, line {line}: {error}; remove that row and prepare the subject again") from error
    return row
