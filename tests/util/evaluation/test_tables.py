import math

import openpyxl

from util.evaluation.tables import aligned, format_p, without_nan, write_workbook


def test_numbers_are_numbers_and_text_is_text(tmp_path):
    rows = [["name", "n", "auc"], ["=1+1", 3, 0.51234], ["b", None, math.nan]]
    write_workbook(tmp_path / "w.xlsx", {"summary": rows, "empty": [["only a header"]]})
    book = openpyxl.load_workbook(tmp_path / "w.xlsx")
    assert book.sheetnames == ["summary", "empty"]
    sheet = book["summary"]
    assert [[cell.value for cell in row] for row in sheet] == [
        ["name", "n", "auc"], ["=1+1", 3, 0.51234], ["b", None, None],
    ]  # fmt: skip
    assert (sheet["A2"].data_type, sheet["C2"].data_type, sheet["C2"].number_format) == ("s", "n", "0.000")
    assert sheet["A1"].font.bold
    assert not sheet["A2"].font.bold
    assert sheet.freeze_panes == "A2"


def test_nan_becomes_none_everywhere():
    assert without_nan({"a": [float("nan"), 1.0, {"b": float("nan")}]}) == {"a": [None, 1.0, {"b": None}]}


def test_columns_line_up():
    assert aligned([["a", "bbb"], ["cc", "1"]]) == ["a   bbb", "cc    1"]


def test_small_p_values_are_bounded():
    assert [format_p(p) for p in (None, float("nan"), 0.00001, 0.0312)] == ["n/a", "n/a", "< 0.0001", "0.0312"]
