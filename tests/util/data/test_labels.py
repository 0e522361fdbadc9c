"""Labels are found by column name; an invalid sheet is refused with sheet, row and fix."""

from pathlib import Path

import openpyxl
import pytest

from util.data.labels import column_names, read_columns, read_labels

HEADER = ["Subject", "IDH", "1p19q", "Grade"]


def sheet(folder: Path, *rows: list, header: list = HEADER) -> Path:
    workbook = openpyxl.Workbook()
    worksheet = workbook.worksheets[0]
    for row in [header, *rows]:
        worksheet.append(row)
    workbook.save(folder / "labels.xlsx")
    return folder / "labels.xlsx"


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_columns_are_found_by_name(tmp_path, order):
    rows = [["A", 1, 0, 4], ["B", 0, -1, 2]]
    path = sheet(tmp_path, *[[row[i] for i in order] for row in rows], header=[HEADER[i] for i in order])
    assert read_labels(path, "IDH") == {"A": 1, "B": 0}
    assert read_labels(path, "1p19q") == {"A": 0, "B": -1}
    assert read_labels(path, "Grade") == {"A": 2, "B": 0}


def test_numbers_typed_as_text_or_float_and_blank_rows(tmp_path):
    path = sheet(tmp_path, [1001.0, "1", 0, 4], [None, None, None, None], [" B ", 0.0, "-1", "2"])
    assert read_labels(path, "IDH") == {"1001": 1, "B": 0}


@pytest.mark.parametrize("cell", [2, 0.5, "mutant", None, "", True])
def test_unexpected_value_names_sheet_row_and_column(tmp_path, cell):
    path = sheet(tmp_path, ["A", 1, 0, 4], ["B", cell, 0, 4])
    with pytest.raises(ValueError, match=r"labels\.xlsx, row 3, column IDH: .* not one of 0, 1.*-1 if unknown"):
        read_labels(path, "IDH")
    assert read_labels(path, "1p19q") == {"A": 0, "B": 0}  # another column's fault is not ours


def test_missing_column_names_the_columns_there_are(tmp_path):
    path = sheet(tmp_path, ["A", 1], header=["Subject", "idh"])
    with pytest.raises(ValueError, match=r'no column "IDH" in row 1, which holds Subject, idh'):
        read_labels(path, "IDH")
    with pytest.raises(ValueError, match='no column "Subject"'):
        read_labels(sheet(tmp_path, ["A", 1], header=["Patient", "IDH"]), "IDH")


def test_missing_subject_is_named_with_the_nearest(tmp_path):
    path = sheet(tmp_path, ["EGD-0001", 1, 0, 4])
    with pytest.raises(ValueError, match=r'"EGD-001"; did you mean "EGD-0001"\?; add a row.*IDH = -1'):
        read_labels(path, "IDH", subjects=["EGD-0001", "EGD-001"])


def test_duplicate_subject_names_both_rows(tmp_path):
    path = sheet(tmp_path, ["A", 1, 0, 4], ["B", 1, 0, 4], ["A", 0, 0, 4])
    with pytest.raises(ValueError, match=r'rows 2 and 4: subject "A" twice'):
        read_labels(path, "IDH")


def test_row_without_subject_is_named(tmp_path):
    with pytest.raises(ValueError, match="row 2: no Subject"):
        read_labels(sheet(tmp_path, [None, 1, 0, 4]), "IDH")


def test_column_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match='column "IDH" appears 2 times'):
        read_labels(sheet(tmp_path, ["A", 1, 0], header=["Subject", "IDH", "IDH"]), "IDH")


def test_unreadable_sheet(tmp_path):
    with pytest.raises(ValueError, match=r"labels\.xlsx is missing"):
        read_labels(tmp_path / "labels.xlsx", "IDH")
    (tmp_path / "labels.xlsx").write_text("Subject,IDH\nA,1\n")
    with pytest.raises(ValueError, match=r"not a readable \.xlsx"):
        read_labels(tmp_path / "labels.xlsx", "IDH")


def test_label_type_is_checked(tmp_path):
    with pytest.raises(ValueError, match="choose one of IDH, 1p19q, Grade"):
        read_labels(sheet(tmp_path, ["A", 1, 0, 4]), "MGMT")  # pyright: ignore[reportArgumentType]


def test_other_columns_are_read_as_text(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["Subject", "Site", "Age"])
    for row in (["a", "North", 61], ["b", None, -1], [1001, "South ", 40.5]):
        book.active.append(row)
    book.save(tmp_path / "s.xlsx")
    found = read_columns(tmp_path / "s.xlsx", ["Site", "Age"])
    assert found == {
        "Site": {"a": "North", "b": "", "1001": "South"},
        "Age": {"a": "61", "b": "", "1001": "40.5"},
    }
    assert column_names(tmp_path / "s.xlsx") == ["Subject", "Site", "Age"]
    with pytest.raises(ValueError, match=r'has no column "Sight".*did you mean "Site"'):
        read_columns(tmp_path / "s.xlsx", ["Sight"])
