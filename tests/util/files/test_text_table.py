"""Tables are read in any spelling that spreadsheet programs write; ambiguous content is an error with file, line and
column."""

import logging

import pytest

from util.files.text_table import MAX_CELL, Names, read_table

PLAIN = "subject,fold,probability\n0007,0,0.25\nb,1,0.5\n"
MEANT = [("0007", 0, 0.25), ("b", 1, 0.5)]


def rows_of(path, **options):
    table = read_table(path, ("subject", "fold"), ("probability", "repeat"), **options)
    return [(row.text("subject"), row.integer("fold"), row.number("probability", 0.0)) for row in table]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (PLAIN, "utf-8"),
        (PLAIN, "utf-8-sig"),
        (PLAIN.replace("\n", "\r\n"), "utf-8"),
        (PLAIN.replace("\n", "\r"), "utf-8"),
        (PLAIN, "utf-16"),
        (PLAIN, "utf-16-le"),
        (PLAIN, "utf-16-be"),
        (PLAIN.replace(",", ";").replace("0.", "0,"), "cp1252"),
        (PLAIN.replace(",", "\t").replace("0.", "0,"), "utf-16"),
        (PLAIN.replace(",", "\t"), "utf-8"),
        ('subject,fold,probability\n0007,0,"0,25"\nb,1,"0,5"\n', "utf-8"),
        ("PROBABILITY , Fold,\tSubject \n 0.25, 0.0 ,0007\n0.5,1.,b\n", "utf-8"),
        ('"subject","fold","note","probability"\n"0007","0","a, b","0.25"\n"b","1","","0.5"\n', "utf-8"),
        (PLAIN + "\n,,\n ; ,\n".replace(" ; ,", ",,"), "utf-8"),
        ("subject,fold,probability,,\n0007,0,0.25,,\nb,1,0.5\n", "utf-8"),
    ],
)
def test_every_spelling_of_a_table_reads_alike(tmp_path, text, encoding):
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert rows_of(tmp_path / "t.csv") == MEANT


def test_a_guessed_code_page_is_logged(tmp_path, caplog):
    (tmp_path / "t.csv").write_bytes("subject,fold\nMüller,0\n".encode("cp1252"))
    with caplog.at_level(logging.WARNING, "util.files.text_table"):
        assert rows_of(tmp_path / "t.csv") == [("Müller", 0, 0.0)]
    assert "t.csv is not UTF-8 and is read as cp1252" in caplog.text


def test_absent_cells_have_the_default(tmp_path):
    (tmp_path / "t.csv").write_text("subject,fold,repeat\na,1,\nb,2\n")
    table = list(read_table(tmp_path / "t.csv", ("subject", "fold"), ("repeat", "probability")))
    assert [row.integer("repeat", 3) for row in table] == [3, 3]
    assert [row.number("probability", 0.5) for row in table] == [0.5, 0.5]
    assert [row.line for row in table] == [2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"t\.csv has no column subject, fold; its first line must name them and holds nothing"),
        (b"name,fold\na,0\n", r'no column subject; .* holds "name", "fold"'),
        (b"subject,fold,Fold \na,0,1\n", r'the column "fold" 2 times'),
        (b"subject,fold\na,0\nb,x\n", r't\.csv, line 3, column "fold": "x" is not a whole number'),
        (b"subject,fold\na,0.5\n", r'line 2, column "fold": "0.5" is not a whole number'),
        (b"subject,fold\na,1e300\n", r'"1e300" is not a whole number'),
        (b"subject,fold\na,\n", r'line 2, column "fold": an empty cell is not a whole number'),
        (b"subject,fold,probability\na,0,nan\n", r'column "probability": "nan" is not a number'),
        (b"subject,fold,probability\na,0,1_0\n", r'"1_0" is not a number'),
        (b"subject,fold\na,0\0\n", r"line 2: holds a NUL character"),
        (b"subject,fold\n" + b"a" * (MAX_CELL + 1) + b",0\n", r"line 2: (a cell of|field larger than)"),
        (b"\xff\xfe\x00\xd8x", r"is not readable as utf-16"),
    ],
)
def test_ambiguous_content_is_an_error(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path / "t.csv")


def test_a_file_that_is_none_or_too_large_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--folds_csv .*gone\.csv is not a file"):
        rows_of(tmp_path / "gone.csv", flag="--folds_csv ")
    (tmp_path / "t.csv").write_text(PLAIN * 100)
    with pytest.raises(ValueError, match="larger than 0 MiB"):
        rows_of(tmp_path / "t.csv", max_bytes=1000)


def test_names_without_leading_zeros_are_matched_where_only_one_fits(caplog):
    names = Names(["0007", "0012", "12", "a"], "t.csv")
    assert [names.find(name) for name in ("0007", "7", "7.0", "12", "012", "a", "b")] == [
        "0007", "0007", "0007", "12", None, "a", None,
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING, "util.files.text_table"):
        names.log_respelt()
    assert 't.csv: 2 name(s) lack their leading zeros, such as "7" for "0007"' in caplog.text
