"""Molecular and histological labels from the Excel sheet, found by column name; no volume is opened."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import openpyxl
from openpyxl.utils.exceptions import InvalidFileException

from util.cli import nearest

LabelType = Literal["IDH", "1p19q", "Grade"]
UNKNOWN = -1
# What the sheet may hold -> class index. IDH: 1 = mutant. 1p19q: 1 = co-deleted. Grade: WHO grade.
CLASSES: dict[str, dict[int, int]] = {
    "IDH": {0: 0, 1: 1},
    "1p19q": {0: 0, 1: 1},
    "Grade": {2: 0, 3: 1, 4: 2},
}


def read_labels(path: Path | str, label_type: LabelType, subjects: Iterable[str] = ()) -> dict[str, int]:
    """Class index per subject of the sheet; -1 = unknown, kept so that the caller can exclude and count.

    IDH and 1p19q give 0 or 1; Grade gives 0, 1, 2 for WHO grade 2, 3, 4.
    subjects: names that must be in the sheet. ValueError names sheet, row, column and the fix.
    """
    path = Path(path)
    if label_type not in CLASSES:
        raise ValueError(f'label type "{label_type}" is unknown; choose one of {", ".join(get_args(LabelType))}')
    rows = _read_rows(path)
    header = [_text(cell) for cell in rows[0]] if rows else []
    subject_column = _column(header, "Subject", path)
    label_column = _column(header, label_type, path)
    labels: dict[str, int] = {}
    row_of: dict[str, int] = {}
    for number, row in enumerate(rows[1:], start=2):
        subject = _text(row[subject_column])
        if not subject:
            if any(_text(cell) for cell in row):
                raise ValueError(f"{path}, row {number}: no Subject; fill it in or delete the row")
            continue
        if subject in row_of:
            raise ValueError(f'{path}, rows {row_of[subject]} and {number}: subject "{subject}" twice; keep one')
        row_of[subject] = number
        labels[subject] = _label(row[label_column], label_type, f"{path}, row {number}, column {label_type}")
    if missing := [name for name in subjects if name not in labels]:
        raise ValueError(
            f'{path} has no row for {len(missing)} subject(s), the first is "{missing[0]}"'
            f"{nearest(missing[0], labels)}; add a row for each, {label_type} = -1 if unknown"
        )
    return labels


def read_columns(path: Path | str, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """{column: {subject: text}}; "" where the cell is empty or -1. ValueError for a column that is not there."""
    path = Path(path)
    rows = _read_rows(path)
    header = [_text(cell) for cell in rows[0]] if rows else []
    subject_column = _column(header, "Subject", path)
    found = {}
    for name in names:
        column = _column(header, name, path)
        texts = {_text(row[subject_column]): _text(row[column]) for row in rows[1:]}
        found[name] = {subject: "" if text == str(UNKNOWN) else text for subject, text in texts.items() if subject}
    return found


def column_names(path: Path | str) -> list[str]:
    """What the sheet's first row holds."""
    rows = _read_rows(Path(path))
    return [_text(cell) for cell in rows[0]] if rows else []


def _read_rows(path: Path) -> list[Sequence[Any]]:
    """Cells of the first sheet, row by row, all of the same length."""
    if not path.is_file():
        raise ValueError(f"label sheet {path} is missing; copy the Excel file there")
    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except (BadZipFile, InvalidFileException, KeyError, OSError, ValueError) as error:
        raise ValueError(f"{path} is not a readable .xlsx file ({error}); save it from Excel again") from error
    try:
        rows = [tuple(row) for row in workbook.worksheets[0].iter_rows(values_only=True)]
    finally:
        workbook.close()
    width = max((len(row) for row in rows), default=0)
    return [row + (None,) * (width - len(row)) for row in rows]


def _column(header: list[str], name: str, path: Path) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise ValueError(f'{path}, row 1: column "{name}" appears {header.count(name)} times; keep one')
    found = ", ".join(cell for cell in header if cell) or "nothing"
    raise ValueError(
        f'{path} has no column "{name}" in row 1, which holds {found}{nearest(name, header)}; name the column {name}'
    )


def _label(cell: Any, label_type: str, place: str) -> int:
    allowed = CLASSES[label_type]
    try:
        value = float(_text(cell))
    except ValueError:
        value = float("nan")
    if value == UNKNOWN:
        return UNKNOWN
    if value not in allowed:
        choices = ", ".join(str(known) for known in allowed)
        raise ValueError(f"{place}: {cell!r} is not one of {choices}; write one of them, or -1 if unknown")
    return allowed[int(value)]


def _text(cell: Any) -> str:
    """A cell as text; Excel's 1001.0 for a typed 1001 becomes "1001"."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell).strip()
