"""Tables as sheets of an Excel file: numbers stay numbers, text never becomes a formula."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openpyxl import Workbook
from openpyxl.styles import Font

from util.atomic import atomic_write
from util.results import without_nan

WIDEST = 60  # characters


def write_workbook(path: Path, sheets: Mapping[str, Sequence[Sequence[Any]]]) -> None:
    """One sheet per table, first row bold and kept in view. NaN and None are empty cells."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for number, row in enumerate(rows, start=1):
            for column, value in enumerate(row, start=1):
                cell = sheet.cell(number, column, without_nan(value))
                if isinstance(value, str):
                    cell.data_type = "s"  # a name that starts with = is a name, no formula
                elif isinstance(value, float):
                    cell.number_format = "0.000"
        for cell in sheet[1]:
            cell.font = Font(bold=True)
        sheet.freeze_panes = "A2"
        for cells in sheet.columns:
            longest = max(len(str(cell.value)) if isinstance(cell.value, str) else 8 for cell in cells)
            sheet.column_dimensions[cells[0].column_letter].width = min(longest, WIDEST) + 2
    with atomic_write(path) as file:
        book.save(file)
