import pytest

from util.protocol.folds_csv import read_folds_csv

LABELS = {"a": 0, "b": 1, "c": 0, "d": 1}


def write(path, rows, header="subject,fold"):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_rows_say_where_a_subject_is_tested(tmp_path):
    path = write(tmp_path / "f.csv", ["a,0", "b,0", "c,1", "d,1", "stranger,1"])
    assert read_folds_csv(path, LABELS, 2) == [
        {"train": ["c", "d"], "test": ["a", "b"]},
        {"train": ["a", "b"], "test": ["c", "d"]},
    ]


def test_repeats_follow_each_other(tmp_path):
    rows = ["a,0,0", "b,0,0", "c,1,0", "d,1,0", "a,0,1", "d,0,1", "c,1,1", "b,1,1"]
    folds = read_folds_csv(write(tmp_path / "f.csv", rows, "subject,fold,repeat"), LABELS, 2)
    assert [fold["test"] for fold in folds] == [["a", "b"], ["c", "d"], ["a", "d"], ["b", "c"]]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["a,0"], "name,fold", "no column subject"),
        (["a,x"], "subject,fold", r'line 2, column "fold": "x" is not a whole number'),
        (["a,2"], "subject,fold", "line 2: fold 2, repeat 0; with --k_fold 2 folds are 0 to 1"),
        (["a,0", "a,1"], "subject,fold", 'line 3: subject "a" is listed twice'),
        (["a,0", "b,0", "c,1"], "subject,fold", r"differ in 1 subjects, e.g. \['d'\]"),
        (["a,0", "b,0", "c,0", "d,0"], "subject,fold", "no subject of known label in fold 1"),
        (["a,0", "c,0", "b,1", "d,1"], "subject,fold", "fold 0 leaves one class to train on"),
        (["a,0,0", "b,0,2", "c,1,2", "d,1,2"], "subject,fold,repeat", r"repeats \[0, 2\]; count them from 0"),
    ],
)
def test_bad_files_are_named(tmp_path, rows, header, message):
    with pytest.raises(ValueError, match=message):
        read_folds_csv(write(tmp_path / "f.csv", rows, header), LABELS, 2)


def test_folds_and_repeats_counted_from_one_give_a_warning(tmp_path, caplog):
    rows = ["a;1;1", "b;1,0;1", "c;2;1", "d;2;1"]
    with caplog.at_level("WARNING", "util.protocol.folds_csv"):
        folds = read_folds_csv(write(tmp_path / "f.csv", rows, "Subject;FOLD;Repeat"), LABELS, 2)
    assert [fold["test"] for fold in folds] == [["a", "b"], ["c", "d"]]
    assert "counts folds from 1" in caplog.text
    assert "counts repeats from 1" in caplog.text


def test_names_that_excel_turned_into_numbers_are_matched(tmp_path, caplog):
    labels = {"0007": 0, "0008": 1, "0011": 0, "0012": 1}
    with caplog.at_level("WARNING", "util.files.text_table"):
        folds = read_folds_csv(write(tmp_path / "f.csv", ["7,0", "8,0", "11,1", "12.0,1"]), labels, 2)
    assert folds[0]["test"] == ["0007", "0008"]
    assert '4 name(s) lack their leading zeros, such as "7" for "0007"' in caplog.text


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--folds_csv .*nowhere.csv does not exist"):
        read_folds_csv(tmp_path / "nowhere.csv", LABELS, 2)
