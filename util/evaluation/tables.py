"""Tables as text, and as sheets of an Excel file with real numbers and without formulas."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from openpyxl.styles import Font

from util.files.atomic import atomic_write

MAX_WIDTH = 60  # characters of a column


def write_workbook(path: Path, sheets: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """Write an Excel file with one sheet per table. The first row is bold and frozen; NaN and None are empty cells."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for number, row in enumerate(rows, start=1):
            for column, value in enumerate(row, start=1):
                cell = sheet.cell(number, column, without_nan(value))
                if isinstance(value, str):
                    cell.data_type = "s"  # so that a text that starts with = is no formula
                elif isinstance(value, float):
                    cell.number_format = "0.000"
        for cell in sheet[1]:
            cell.font = Font(bold=True)
        sheet.freeze_panes = "A2"
        for cells in sheet.columns:
            longest = max(len(str(cell.value)) if isinstance(cell.value, str) else 8 for cell in cells)
            sheet.column_dimensions[cells[0].column_letter].width = min(longest, MAX_WIDTH) + 2
    with atomic_write(path) as file:
        book.save(file)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of text, the first column left-aligned and the others right-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def format_cell(cell: Any) -> str:
    """A cell as text: numbers with three decimals, n/a for NaN, "" for None."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        return "n/a" if math.isnan(cell) else f"{cell:z.3f}"
    return str(cell)


def without_nan(value: Any) -> Any:
    """The value with None for every NaN, also inside lists and dictionaries, because JSON and Excel have no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def format_p(p: float | None) -> str:
    """A p value with four decimals; n/a if the test is not defined."""
    if p is None or p != p:
        return "n/a"
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"
