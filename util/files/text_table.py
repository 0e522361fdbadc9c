"""A tolerant reader of tables as text (CSV, TSV), for every such file that a user may edit.

Spreadsheet programs change a CSV file when they save it: a byte-order mark, UTF-16 or the local code page, `;` or tabs
between cells, decimal commas, blanks and capitals in the header, empty lines at the end, 7 for 0007 and 0.0 for 0. All
of these are read. A guess is logged; a value that is ambiguous raises ValueError with file, line and column.
"""

import csv
import io
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)
MAX_BYTES = 64 * 2**20
MAX_CELL = 1_000_000  # characters
DELIMITERS = (",", ";", "\t")
MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # at the start of a file
FALLBACK = "cp1252"  # the encoding of Excel on Windows for files that are not UTF-8
NUMERIC_NAME = re.compile(r"0*(\d+)(?:[.,]0*)?")


@dataclass(frozen=True)
class Row:
    """The cells of one line by column name, without surrounding blanks. Columns that the file lacks are absent."""

    cells: Mapping[str, str]
    line: int
    source: str

    def text(self, column: str, default: str = "") -> str:
        return self.cells.get(column, default)

    def number(self, column: str, default: float | None = None) -> float:
        """A finite number, or `default` if the cell is empty or absent. Raises ValueError for other text."""
        text = self.text(column)
        if not text and default is not None:
            return default
        try:
            value = float(text.replace(",", ".") if text.count(",") == 1 else text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or "_" in text:
            raise self.error(column, "a number")
        return value

    def integer(self, column: str, default: int | None = None) -> int:
        """A whole number, also written as 3.0, or `default` if the cell is empty or absent. Raises ValueError for other
        text."""
        text = self.text(column)
        if not text and default is not None:
            return default
        try:
            return int(text)
        except ValueError:
            pass
        try:
            value = self.number(column)
        except ValueError:
            value = math.nan
        if not value.is_integer() or abs(value) > 2**53:
            raise self.error(column, "a whole number")
        return int(value)

    def error(self, column: str, wanted: str) -> ValueError:
        """The error for a cell that is not `wanted`, for the caller to raise."""
        text = self.text(column)
        content = f'"{text[:40]}"' if text else "an empty cell"
        return ValueError(f'{self.source}, line {self.line}, column "{column}": {content} is not {wanted}')


def read_table(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), *, flag: str = "", max_bytes: int = MAX_BYTES
) -> Iterator[Row]:
    """The rows of a CSV, TSV or semicolon-separated file whose first line names the columns.

    Columns are matched in any order, without regard to case and blanks; other columns are ignored. flag: a prefix of
    the path in messages, such as "--folds_csv ". Raises ValueError with the file and line at fault and the fix.
    """
    source = f"{flag}{path}"
    if not path.is_file():
        raise ValueError(f"{source} is not a file")
    if path.stat().st_size > max_bytes:
        raise ValueError(f"{source} is larger than {max_bytes >> 20} MiB; split it, or remove what is not needed")
    text = _decode(path.read_bytes(), source)
    header_line = text.split("\n", 1)[0].rstrip("\r")
    wanted = [*required, *optional]
    delimiter = max(DELIMITERS, key=lambda mark: _known(header_line.split(mark), wanted))
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        places = _columns(next(reader, []), required, optional, source)
        yield from _rows(reader, places, source)
    except csv.Error as error:
        raise ValueError(f"{source}, line {reader.line_num}: {error}; save the table as CSV again") from error


class Names:
    """Known names, and other spellings of them in a table: 7 or 7.0 stands for 0007 if only one known name fits."""

    def __init__(self, known: Iterable[str], source: str) -> None:
        self.known, self.source = set(known), source
        self.by_number: dict[int, set[str]] = {}
        for name in self.known:
            if match := NUMERIC_NAME.fullmatch(name):
                self.by_number.setdefault(int(match[1]), set()).add(name)
        self.respelt: dict[str, str] = {}

    def find(self, name: str) -> str | None:
        """The known name that `name` stands for, or None."""
        if name in self.known:
            return name
        match = NUMERIC_NAME.fullmatch(name)
        fitting = self.by_number.get(int(match[1]), set()) if match else set()
        if len(fitting) != 1:
            return None
        (known_name,) = fitting
        self.respelt[name] = known_name
        return known_name

    def log_respelt(self) -> None:
        """Log the names that were matched by their number."""
        if self.respelt:
            written, meant = next(iter(self.respelt.items()))
            logger.warning(
                '%s: %d name(s) lack their leading zeros, such as "%s" for "%s"; matched by number',
                self.source, len(self.respelt), written, meant,
            )  # fmt: skip


def _decode(content: bytes, source: str) -> str:
    encoding = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), None)
    if encoding is None:
        even, odd = content[:200:2].count(0), content[1:200:2].count(0)  # in UTF-16 every other byte of ASCII text is 0
        is_wide = max(even, odd) > len(content[:200]) // 4
        encoding = "utf-8" if not is_wide else "utf-16-le" if odd > even else "utf-16-be"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise ValueError(f"{source} is not readable as {encoding} ({error}); save it as CSV UTF-8") from error
        text = content.decode(FALLBACK, errors="replace")
        logger.warning("%s is not UTF-8 and is read as %s; check umlauts, or save it as CSV UTF-8", source, FALLBACK)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{source}, line {line}: holds a NUL character; the file is damaged or no text")
    return text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")  # some programs write a second mark


def _key(name: str) -> str:
    return re.sub(r"[\s_\-]+", "_", name.strip().strip('"').strip().casefold())


def _known(names: Iterable[str], wanted: Sequence[str]) -> int:
    return len({_key(name) for name in names} & {_key(name) for name in wanted})


def _columns(header: Sequence[str], required: Sequence[str], optional: Sequence[str], source: str) -> dict[str, int]:
    keys = [_key(name) for name in header]
    places = {}
    for name in (*required, *optional):
        if (count := keys.count(_key(name))) > 1:
            raise ValueError(f'{source} has the column "{name}" {count} times; keep one')
        if count:
            places[name] = keys.index(_key(name))
    if missing := [name for name in required if name not in places]:
        listed = ", ".join(f'"{name[:40]}"' for name in header[:20] if name) or "nothing"
        raise ValueError(
            f"{source} has no column {', '.join(missing)}; its first line must name them and holds {listed}"
        )
    return places


def _rows(reader: Iterator[list[str]], places: Mapping[str, int], source: str) -> Iterator[Row]:
    width = max(places.values()) + 1
    for cells in reader:
        line = reader.line_num  # pyright: ignore[reportAttributeAccessIssue]
        if not any(cell.strip() for cell in cells):
            continue
        if longest := next((cell for cell in cells if len(cell) > MAX_CELL), None):
            raise ValueError(f"{source}, line {line}: a cell of {len(longest):,} characters; the file is damaged")
        cells = [*cells, *[""] * (width - len(cells))]
        yield Row({name: cells[place].strip() for name, place in places.items()}, line, source)
