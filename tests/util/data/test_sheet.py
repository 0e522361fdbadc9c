"""An Excel sheet is read within bounds of memory and time, whatever it holds."""

import shutil
import zipfile
import zlib
from pathlib import Path

import openpyxl
import pytest

from tests.helpers.bounded import messages
from util.data.labels import column_names, read_labels
from util.data.sheet import MAX_COLUMNS, MAX_ROWS, read_rows, text_of

MIB_BEYOND_IMPORTS = 200
SHEET = "xl/worksheets/sheet1.xml"
TEXT = '<c r="{}" t="inlineStr"><is><t>{}</t></is></c>'
TABLE = f'<row r="1">{TEXT.format("A1", "Subject")}{TEXT.format("B1", "IDH")}</row>'


def write_sheet(path: Path, rows: list[list]) -> Path:
    workbook = openpyxl.Workbook()
    for row in rows:
        workbook.worksheets[0].append(row)
    workbook.save(path)
    return path


def with_xml(path: Path, rows: str, *, before: str = "", encoding: str = "utf-8", **parts: bytes) -> Path:
    """A workbook whose first sheet holds these rows as XML."""
    plain = write_sheet(path.with_suffix(".plain.xlsx"), [["Subject"]])
    head = f'<?xml version="1.0" encoding="{encoding}"?>{before}'
    sheet = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    xml = f"{head}{sheet}<sheetData>{rows}</sheetData></worksheet>"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, xml.encode(encoding) if name == SHEET else old.read(name))
        for name, content in parts.items():
            new.writestr(name, content)
    return path


def understated(path: Path, stated: int = 100) -> Path:
    """The same archive, saying that its largest part, of zeros, is small and whole."""
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    content = path.read_bytes()
    for true, false in ((largest.file_size, stated), (largest.CRC, zlib.crc32(bytes(stated)))):
        assert content.count(true.to_bytes(4, "little")) == 2
        content = content.replace(true.to_bytes(4, "little"), false.to_bytes(4, "little"))
    path.write_bytes(content)
    return path


def test_bombs_are_refused_in_little_memory(tmp_path):
    bomb = with_xml(tmp_path / "bomb.xlsx", TABLE, filler=bytes(200 * 2**20))
    rows = "".join(f'<row r="{number}"/>' for number in range(2, 1_000_002))
    entities = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    bombs = [
        bomb,
        understated(Path(shutil.copy(bomb, tmp_path / "liar.xlsx"))),
        with_xml(tmp_path / "million.xlsx", TABLE + rows),
        with_xml(tmp_path / "far.xlsx", TABLE + '<row r="1000000000000"/>'),
        with_xml(tmp_path / "wide.xlsx", TABLE + '<row><c r="ZZZ2"><v>1</v></c></row>' * 40_000),
        with_xml(tmp_path / "entities.xlsx", TABLE, before=entities),
        with_xml(tmp_path / "entities16.xlsx", TABLE, before=entities, encoding="utf-16"),
    ]
    said = messages(
        "from util.data.labels import column_names, read_labels",
        'read_labels(path, "IDH")',
        bombs,
        mib=MIB_BEYOND_IMPORTS,
    )
    assert "bomb.xlsx unpacks to 200 MiB, more than the limit of 32 MiB" in said["bomb.xlsx"]
    for name in ("million.xlsx", "far.xlsx"):
        assert f"{name} has more than 50,000 rows" in said[name]
    for name in ("entities.xlsx", "entities16.xlsx"):
        assert f"{name} declares XML entities" in said[name]
    assert said["wide.xlsx"] == "read"  # what lies beyond the last column that counts is not even kept
    assert said["liar.xlsx"] == "read"  # to the size it states


def test_rows_are_counted_whatever_the_file_says_of_its_size(tmp_path):
    rows = [["Subject", "IDH"], *([f"s{i}", 1] for i in range(20))]
    path = write_sheet(tmp_path / "a.xlsx", rows)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'<dimension ref="A1:B21"', b'<dimension ref="A1:B3"'))
    assert list(read_rows(tmp_path / "b.xlsx")) == list(read_rows(path))
    assert len(list(read_rows(path))) == 21
    assert MAX_ROWS > 10_000


def test_columns_up_to_the_bound_are_read(tmp_path):
    header = [f"c{i}" for i in range(MAX_COLUMNS - 2)] + ["Subject", "IDH", "Grade"]
    path = write_sheet(tmp_path / "a.xlsx", [header, [None] * (MAX_COLUMNS - 2) + ["A", 1, 4]])
    assert read_labels(path, "IDH") == {"A": 1}
    with pytest.raises(ValueError, match=r'no column "Grade" in row 1.* and 180 more.*among the first 200'):
        read_labels(path, "Grade")


def test_formulas_give_their_stored_value_or_are_named(tmp_path):
    cell = '<row r="2"><c r="A2" t="inlineStr"><is><t>A</t></is></c><c r="B2"><f>WEBSERVICE("x")</f>{}</c></row>'
    stored = with_xml(tmp_path / "a.xlsx", TABLE + cell.format("<v>1</v>"))
    assert read_labels(stored, "IDH") == {"A": 1}
    with pytest.raises(ValueError, match=r"row 2, column IDH: .*formula that Excel has not calculated, is not one of"):
        read_labels(with_xml(tmp_path / "b.xlsx", TABLE + cell.format("")), "IDH")


@pytest.mark.parametrize("name", ["=1+1", "a/b", "a\nb"])
def test_dangerous_subject_names_are_refused_with_their_row(tmp_path, name):
    workbook = openpyxl.Workbook()
    workbook.worksheets[0].append(["Subject", "IDH"])
    workbook.worksheets[0].append([None, 1])
    workbook.worksheets[0].cell(2, 1, name).data_type = "s"
    workbook.save(tmp_path / "a.xlsx")
    with pytest.raises(ValueError, match=r"a\.xlsx, row 2: the subject name .* rename the subject"):
        read_labels(tmp_path / "a.xlsx", "IDH")


def test_no_sheet_at_all(tmp_path):
    path = write_sheet(tmp_path / "a.xlsx", [["Subject"]])
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.xlsx", "w") as new:
        for name in set(old.namelist()) - {SHEET}:
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"b\.xlsx is not a readable \.xlsx file"):
        list(read_rows(tmp_path / "b.xlsx"))


def test_text_of_a_cell():
    assert [text_of(cell) for cell in (None, " a ", 1001.0, 0.5, 7)] == ["", "a", "1001", "0.5", "7"]


def test_a_sheet_is_parsed_once_until_it_changes(tmp_path, monkeypatch):
    opened = []
    load = openpyxl.load_workbook
    monkeypatch.setattr(openpyxl, "load_workbook", lambda *args, **kw: opened.append(1) or load(*args, **kw))
    path = write_sheet(tmp_path / "a.xlsx", [["Subject", "IDH"], ["A", 1]])
    assert read_labels(path, "IDH") == read_labels(path, "IDH") == {"A": 1}
    assert column_names(path) == ["Subject", "IDH"]
    assert len(opened) == 1
    write_sheet(path, [["Subject", "IDH"], ["A", 0], ["B", 1]])
    assert read_labels(path, "IDH") == {"A": 0, "B": 1}
    assert len(opened) == 2
