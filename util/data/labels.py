"""Molecular and histological labels from the label sheet (Excel). Columns are found by name."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from util.cli import nearest
from util.data.sheet import MAX_COLUMNS, read_rows, text_of
from util.data.subject_names import name_problem

LabelType = Literal["IDH", "1p19q", "Grade"]
UNKNOWN = -1
# Value in the sheet -> class index. IDH: 1 = mutant. 1p19q: 1 = co-deleted. Grade: WHO grade.
CLASSES: dict[str, dict[int, int]] = {
    "IDH": {0: 0, 1: 1},
    "1p19q": {0: 0, 1: 1},
    "Grade": {2: 0, 3: 1, 4: 2},
}
LISTED = 20  # column names that an error lists


def read_labels(path: Path | str, label_type: LabelType, subjects: Iterable[str] = ()) -> dict[str, int]:
    """Class index of every subject of the sheet; -1 means unknown, and the caller leaves those out.

    IDH and 1p19q give 0 or 1; Grade gives 0, 1, 2 for WHO grade 2, 3, 4. subjects: names that must be in the sheet.
    Raises ValueError with sheet, row, column and the fix.
    """
    path = Path(path)
    if label_type not in CLASSES:
        raise ValueError(f'label type "{label_type}" is unknown; choose one of {", ".join(get_args(LabelType))}')
    rows = read_rows(path)
    header = [text_of(cell) for cell in next(rows, ())]
    subject_column = _column(header, "Subject", path)
    label_column = _column(header, label_type, path)
    labels: dict[str, int] = {}
    row_of: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        subject = text_of(row[subject_column])
        if not subject:
            if row.count(None) < len(row) and any(text_of(cell) for cell in row):
                raise ValueError(f"{path}, row {number}: no Subject; fill it in or delete the row")
            continue
        if problem := name_problem(subject):
            raise ValueError(f"{path}, row {number}: {problem}")
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
    """{column: {subject: text}} of the columns `names`; "" for an empty cell or -1. ValueError for a missing column."""
    path = Path(path)
    rows = read_rows(path)
    header = [text_of(cell) for cell in next(rows, ())]
    places = {name: _column(header, name, path) for name in names}
    subject_column = _column(header, "Subject", path)
    columns: dict[str, dict[str, str]] = {name: {} for name in names}
    for row in rows:
        if subject := text_of(row[subject_column]):
            for name, column in places.items():
                text = text_of(row[column])
                columns[name][subject] = "" if text == str(UNKNOWN) else text
    return columns


def column_names(path: Path | str) -> list[str]:
    """The column names in the sheet's first row, without empty cells."""
    return [name for cell in next(read_rows(Path(path)), ()) if (name := text_of(cell))]


def _column(header: Sequence[str], name: str, path: Path) -> int:
    if header.count(name) == 1:
        return header.index(name)
    if name in header:
        raise ValueError(f'{path}, row 1: column "{name}" appears {header.count(name)} times; keep one')
    filled = [cell[:40] for cell in header if cell]
    listed = ", ".join(filled[:LISTED]) or "nothing"
    more = f" and {len(filled) - LISTED} more" if len(filled) > LISTED else ""
    raise ValueError(
        f'{path} has no column "{name}" in row 1, which holds {listed}{more}{nearest(name, filled)}; '
        f"name the column {name}, among the first {MAX_COLUMNS}"
    )


def _label(cell: Any, label_type: str, place: str) -> int:
    allowed = CLASSES[label_type]
    text = text_of(cell)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value == UNKNOWN:
        return UNKNOWN
    if value not in allowed:
        choices = ", ".join(str(known) for known in allowed)
        content = f'"{text[:40]}"' if text else "an empty cell, or a formula that Excel has not calculated,"
        raise ValueError(f"{place}: {content} is not one of {choices}; write one of them, or -1 if unknown")
    return allowed[int(value)]
