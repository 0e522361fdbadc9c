import pytest

from util import cli


def test_unknown_options_name_the_nearest(capsys):
    parser = cli.Parser()
    parser.add_argument("--mask_ratio", type=float, help="part removed")
    with pytest.raises(SystemExit):
        parser.parse_args(["--mask_ration", "0.5"])
    assert 'did you mean "--mask_ratio"?' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parser.parse_args(["--mask", "0.5"])  # no silent abbreviations


@pytest.mark.parametrize(("error", "code"), [(ValueError("fix --this"), 2), (FileNotFoundError("gone"), 2)])
def test_errors_for_users_are_one_line(capsys, monkeypatch, error, code):
    monkeypatch.delenv("MAMBA_MAE_TRACEBACK", raising=False)

    def main():
        raise error

    with pytest.raises(SystemExit) as stopped:
        cli.run(main)
    assert stopped.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"
    monkeypatch.setenv("MAMBA_MAE_TRACEBACK", "1")
    with pytest.raises(type(error)):
        cli.run(main)


def test_our_own_mistakes_keep_their_traceback():
    def main():
        raise AssertionError("bug")

    with pytest.raises(AssertionError, match="bug"):
        cli.run(main)


def test_an_interruption_is_one_word(capsys, monkeypatch):
    monkeypatch.delenv("MAMBA_MAE_TRACEBACK", raising=False)

    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        cli.run(main)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_nearest():
    assert cli.nearest("flairr", ["t1", "flair"]) == '; did you mean "flair"?'
    assert cli.nearest("xyz", ["t1"]) == ""


def test_help_shows_a_default_once_and_no_empty_one():
    parser = cli.Parser(prog="x")
    parser.add_argument("--out", help="folder; default: the run")
    parser.add_argument("--flag", action="store_true", help="a flag")
    parser.add_argument("--count", default=0, help="a count")
    parser.add_argument("--names", nargs="*", default=["a", "b"], help="some names")
    parser.add_argument("--none", nargs="*", default=[], help="no names")
    text = " ".join(parser.format_help().split())
    for words in ("folder; default: the run --flag", "a flag --count", "a count (default: 0)", "names (default: a b)"):
        assert words in text, text
    assert text.endswith("no names")
