"""Tables as text, as people have them: one tolerant reader for every CSV that a person may hand over or save again.

Excel and its kin change a CSV without a word: a byte-order mark, UTF-16 or the local code page, `;` or tabs between
cells, decimal commas, blanks and capitals in the header, empty lines at the end, 7 for 0007 and 0.0 for 0. All of that
is read. What had to be guessed is said in one log line; what cannot be known is a ValueError that names file, line and
column.
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
FALLBACK = "cp1252"  # what Excel on Windows writes where a file is not UTF-8
NUMERIC_NAME = re.compile(r"0*(\d+)(?:[.,]0*)?")


@dataclass(frozen=True)
class Row:
    """Cells of one line by column name, stripped; columns that the file lacks are absent."""

    cells: Mapping[str, str]
    line: int
    source: str

    def text(self, column: str, default: str = "") -> str:
        return self.cells.get(column, default)

    def number(self, column: str, default: float | None = None) -> float:
        """A finite number; `default` where the cell is empty or absent. ValueError otherwise."""
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
        """A whole number, also written as 3.0; `default` where the cell is empty or absent. ValueError otherwise."""
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
        """The error for a cell that is not `wanted`; raise it."""
        text = self.text(column)
        found = f'"{text[:40]}"' if text else "an empty cell"
        return ValueError(f'{self.source}, line {self.line}, column "{column}": {found} is not {wanted}')


def read_table(
    path: Path, required: Sequence[str], optional: Sequence[str] = (), *, flag: str = "", max_bytes: int = MAX_BYTES
) -> Iterator[Row]:
    """The rows of a CSV, TSV or semicolon-separated file whose first line names the columns.

    Columns are found whatever their order, case and blanks; others are passed over. flag: what messages name before the
    path, such as "--folds_csv ". ValueError names the file and line at fault and the fix.
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
    """Names that a table may spell another way: exact ones first, then 7 or 7.0 for 0007 where only one name fits."""

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
        (found,) = fitting
        self.respelt[name] = found
        return found

    def say(self) -> None:
        """Log what was matched by its number."""
        if self.respelt:
            written, meant = next(iter(self.respelt.items()))
            logger.warning(
                '%s: %d name(s) lack their leading zeros, such as "%s" for "%s"; matched by number',
                self.source, len(self.respelt), written, meant,
            )  # fmt: skip


def _decode(content: bytes, source: str) -> str:
    encoding = next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), None)
    if encoding is None:
        even, odd = content[:200:2].count(0), content[1:200:2].count(0)  # ASCII in UTF-16 has 0 in every other byte
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
    if lacking := [name for name in required if name not in places]:
        found = ", ".join(f'"{name[:40]}"' for name in header[:20] if name) or "nothing"
        raise ValueError(
            f"{source} has no column {', '.join(lacking)}; its first line must name them and holds {found}"
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
