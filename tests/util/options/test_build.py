import ast
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_type_hints

import pytest

from util.options.build import as_json, build_parser, list_options, option, parse, plain_values
from util.options.finetune import FinetuneOptions
from util.options.pretrain import PretrainOptions
from util.ranges import positive

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Shared:
    rate: float | None = option(None, "how fast")
    how: Literal["slow", "fast"] = option("slow", "the way")
    sides: tuple[int, ...] = option((4,), "of a volume", check=positive, metavar="SIDE")
    names: tuple[str, ...] = option((), "of things")
    where: Path = option(Path("a"), "the place")  # noqa: RUF009
    quick: bool = option(False, "do less")
    memory: bool = option(True, "keep it", off=("--no_memory", "--no_memry"))


@dataclass(frozen=True)
class More(Shared):
    count: int = option(2, "how many")


@dataclass(frozen=True)
class Program:
    first: More = More(where=Path("b"))


def test_values_have_the_types_of_their_fields():
    words = ["--rate", "2", "--how", "fast", "--sides", "3", "5", "--names", "x", "--where", "c", "--quick",
             "--no_memory", "--count", "7"]  # fmt: skip
    assert parse(Program, words, "") == Program(More(2.0, "fast", (3, 5), ("x",), Path("c"), True, False, 7))
    assert parse(Program, ["--no_memry"], "").first.memory is False


def test_without_words_every_option_is_the_programs_default():
    assert parse(Program, [], "") == Program()
    assert parse(PretrainOptions, [], "") == PretrainOptions()
    assert parse(FinetuneOptions, [], "") == FinetuneOptions()


@pytest.mark.parametrize(
    "words", [["--how", "other"], ["--sides", "0"], ["--sides"], ["--count", "x"], ["--rat", "1"], ["--rate"]]
)
def test_wrong_words_end_the_program(words):
    with pytest.raises(SystemExit):
        parse(Program, words, "")


def test_config_json_holds_every_option_as_a_plain_value():
    assert as_json(Program()) == {
        "rate": None, "how": "slow", "sides": [4], "names": [], "where": "b", "quick": False, "memory": True,
        "count": 2,
    }  # fmt: skip
    assert plain_values({"path": Path("a"), "x": 1}) == {"path": "a", "x": 1}


@pytest.mark.parametrize("program", [PretrainOptions, FinetuneOptions])
def test_help_shows_every_option_its_default_and_no_group_that_the_program_lacks(program, monkeypatch):
    monkeypatch.setenv("COLUMNS", "10000")
    shown = build_parser(program, "").format_help()
    for one in list_options(program):
        assert f"{one.flag} " in shown
        assert one.help in shown
        if not one.is_switch and one.default not in (None, ()) and "default" not in one.help:
            default = " ".join(map(str, one.default)) if one.takes_many else one.default
            assert f"{one.help} (default: {default})" in shown
    assert "(default: None)" not in shown
    assert ("\nprotocol:\n" in shown) == (program is FinetuneOptions)


@pytest.mark.parametrize("program", [PretrainOptions, FinetuneOptions])
def test_every_option_has_a_name_of_its_own_and_a_default_of_its_type(program):
    options = list_options(program)
    assert len({one.name for one in options}) == len(options)
    for one in options:
        assert one.help, one.flag
        assert not one.choices or one.default in (*one.choices, None), one.flag
    for group in fields(program):
        hints = get_type_hints(type(group.default))
        for name, value in vars(group.default).items():
            if hints[name] in (int, float, str, bool, Path):
                assert isinstance(value, hints[name]), name


def takes_a_namespace(text):
    """Functions of a source that take the parsed words of a command line instead of what they use of them."""
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    return [f.name for f in functions for arg in (*f.args.args, *f.args.kwonlyargs)
            if arg.annotation is not None and "Namespace" in ast.unparse(arg.annotation)]  # fmt: skip


def test_parsed_words_stay_in_main():
    assert takes_a_namespace("def f(args: argparse.Namespace): ...") == ["f"]
    files = [*ROOT.glob("*.py"), *(path for name in ("models", "util", "vis") for path in (ROOT / name).rglob("*.py"))]
    found = {path.name: names for path in files if (names := takes_a_namespace(path.read_text(encoding="utf-8")))}
    assert found == {}
