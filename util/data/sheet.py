"""Read the rows of an Excel sheet within bounds: an .xlsx file is a zip archive of XML, and both can expand to
gigabytes."""

import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import openpyxl

MAX_BYTES = 32 * 2**20
"""Bytes of all parts after decompression. The published sheet of 774 subjects has some tens of KB. openpyxl keeps the
strings of a sheet in memory, so this bounds memory to a few times as much."""
MAX_ROWS = 50_000  # blank rows included; cohorts have thousands, and 50,000 rows are read in seconds
MAX_COLUMNS = 200
_DOCTYPE = b"<!DOCTYPE"  # declares entities, which can expand to gigabytes; Excel writes none


def read_rows(path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield MAX_COLUMNS cells of every row of the first sheet, from row 1 on, blank rows included.

    A formula gives the value that Excel stored; nothing is calculated here. A file that has not changed is parsed once
    per process. Raises ValueError with the file and the fix.
    """
    if not path.is_file():
        raise ValueError(f"label sheet {path} is missing; copy the Excel file there")
    state = path.stat()
    for row in _parsed(path.resolve(), path, state.st_mtime_ns, state.st_size):
        yield row + (None,) * (MAX_COLUMNS - len(row))


def text_of(cell: Any) -> str:
    """A cell as text; Excel's 1001.0 for a typed 1001 becomes "1001"."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return "" if cell is None else str(cell).strip()


class _Refused(ValueError):
    """An error with our own message, which is not wrapped again."""


@functools.lru_cache(maxsize=2)
def _parsed(resolved: Path, path: Path, changed_ns: int, size: int) -> tuple[tuple[Any, ...], ...]:
    """The rows of a file in this state, without the empty cells at their ends. path: the file's name in messages."""
    try:
        workbook = openpyxl.load_workbook(_trusted_copy(path), read_only=True, data_only=True, keep_links=False)
    except _Refused:
        raise
    except Exception as error:  # a damaged part surfaces as nearly any type in zipfile, the XML parser, openpyxl
        raise _unreadable(path, error) from error
    try:
        return tuple(map(_without_empty_end, _rows(workbook, path)))
    finally:
        workbook.close()


def _without_empty_end(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return row[: max((place for place, cell in enumerate(row, start=1) if cell is not None), default=0)]


def _rows(workbook: Any, path: Path) -> Iterator[tuple[Any, ...]]:
    try:
        sheet = workbook.worksheets[0]
        sheet.reset_dimensions()  # the size that the file states is not trusted
        rows = sheet.iter_rows(max_col=MAX_COLUMNS, values_only=True)
        for number, row in enumerate(rows, start=1):
            if number > MAX_ROWS:
                raise _Refused(
                    f"{path} has more than {MAX_ROWS:,} rows; delete the empty ones below the table, or split the sheet"
                )
            yield row
    except _Refused:
        raise
    except Exception as error:  # a damaged part surfaces as nearly any type in zipfile, the XML parser, openpyxl
        raise _unreadable(path, error) from error


def _trusted_copy(path: Path) -> io.BytesIO:
    """An uncompressed copy of the archive in memory, with the stated sizes enforced: openpyxl reads parts whole."""
    copy = io.BytesIO()
    with ZipFile(path) as archive, ZipFile(copy, "w") as trusted:
        parts = archive.infolist()
        if (total := sum(part.file_size for part in parts)) > MAX_BYTES:
            raise _Refused(
                f"{path} unpacks to {total / 2**20:.0f} MiB, more than the limit of {MAX_BYTES >> 20} MiB; copy the "
                "columns that are needed to a new file"
            )
        for part in {part.filename: part for part in parts}.values():
            with archive.open(part) as file:
                content = file.read(part.file_size + 1)  # without a number zipfile would read beyond the stated size
            if _DOCTYPE in content.replace(b"\0", b""):  # in UTF-16 every other byte is 0
                raise _Refused(f"{path} declares XML entities in {part.filename}; save it from Excel again")
            trusted.writestr(part.filename, content)
    return copy


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(f"{path} is not a readable .xlsx file ({reason}); save it from Excel again")
