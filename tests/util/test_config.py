"""config.ini: quotes are removed, and every error names the key to fix."""

from pathlib import Path

import pytest

from util.config import read_base_path


def write_ini(folder: Path, text: str) -> Path:
    path = folder / "config.ini"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("quote", ['"', "'", "", "“"])
def test_quotes_are_removed(tmp_path, quote):
    (tmp_path / "my data").mkdir()
    closing = "”" if quote == "“" else quote
    ini = write_ini(tmp_path, f"[brats_160]\nBASE_PATH = {quote}{tmp_path / 'my data'}{closing}\n")
    assert read_base_path(ini) == tmp_path / "my data"


def test_relative_path_starts_at_the_ini_file(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    ini = write_ini(tmp_path, "[brats_160]\nTEST_BASE_PATH = data\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_base_path("../config.ini", key="TEST_BASE_PATH").resolve() == ini.parent / "data"


@pytest.mark.parametrize("name", ["50%", "%(TEST_BASE_PATH)s", "${HOME}", "$HOME", "%%"])
def test_nothing_is_interpolated(tmp_path, name):
    (tmp_path / name).mkdir()
    ini = write_ini(tmp_path, f"[brats_160]\nTEST_BASE_PATH = elsewhere\nBASE_PATH = {name}\n")
    assert read_base_path(ini) == tmp_path / name


@pytest.mark.parametrize("value", ["x" * 10_000, "~nobody-of-this-name/data"])
def test_impossible_path_is_explained(tmp_path, value):
    with pytest.raises(ValueError, match=r"BASE_PATH in \[brats_160\] of .* is not a path: .*; correct BASE_PATH"):
        read_base_path(write_ini(tmp_path, f"[brats_160]\nBASE_PATH = {value}\n"))


def test_size_is_bounded(tmp_path):
    with pytest.raises(ValueError, match="is larger than 64 KiB; it should hold a few paths"):
        read_base_path(write_ini(tmp_path, "[brats_160]\n" + "# filler\n" * 10_000))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[brats160]\nBASE_PATH = .\n", r'no section \[brats_160\]; did you mean "brats160"\?'),
        ("[brats_160]\nBASEPATH = .\n", r'no BASE_PATH in \[brats_160\]; did you mean "BASEPATH"\?'),
        ("[brats_160]\nBASE_PATH = nowhere\n", r"BASE_PATH in .*nowhere, which is not a folder"),
        ('[brats_160]\nBASE_PATH = ""\n', r"BASE_PATH in .* is empty"),
        ("BASE_PATH = .\n", r"not a readable ini file.*expected \[brats_160\]"),
    ],
)
def test_errors_name_section_and_key(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_base_path(write_ini(tmp_path, text))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"config\.ini is missing"):
        read_base_path(tmp_path / "config.ini")


def test_repository_config_has_both_keys():
    ini = Path(__file__).parents[2] / "config.ini"
    for key in ("BASE_PATH", "TEST_BASE_PATH"):
        try:
            read_base_path(ini, key=key)
        except ValueError as error:  # the demo's folders exist only after `make demo`
            assert "is not a folder" in str(error)  # noqa: PT017
