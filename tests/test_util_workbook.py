import math

import openpyxl

from util.workbook import write_workbook


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
