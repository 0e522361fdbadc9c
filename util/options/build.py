"""Command lines built from dataclasses: one typed field per option holds its default, help text and check.

A group of options is a frozen dataclass whose fields come from `option`. The options of a program are a frozen
dataclass whose fields are groups. The parser, config.json and the documentation all read these fields, so they cannot
disagree:

    @dataclass(frozen=True)
    class LoaderOptions:
        num_workers: int = option(2, "data-loading processes per rank")

    @dataclass(frozen=True)
    class Options:
        loader: LoaderOptions = LoaderOptions(num_workers=4)    # a program may set its own default

    options = parse(Options, ["--num_workers", "1"], "What the program does.")
    options.loader.num_workers                                  # 1, and pyright knows that it is an int

The annotation of a field says how text becomes its value: int, float, str and Path are called with it, a Literal lists
the choices, `| None` stands for an option that is not given, tuple[int, ...] takes several values, bool is a flag.
"""

import argparse
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from util.cli import Parser

NOT_GIVEN = object()  # in place of an option that the command line leaves out
T = TypeVar("T")
OptionsT = TypeVar("OptionsT")
Check = Callable[[str], Any]


@dataclass(frozen=True)
class Option:
    """One option as the parser and the documentation need it.

    check: turns text into the value, or raises with the reason. choices: the allowed values, empty for any. takes_many:
    whether it takes several values. off: further flags that set a bool to False. is_free: whether a run that goes on,
    or is scored again, may take another value than it was started with; all other options define the run. meaning:
    values of one meaning are the same choice.
    """

    name: str
    group: str
    default: Any
    help: str
    check: Check
    choices: tuple[Any, ...]
    metavar: str | None
    takes_many: bool
    off: tuple[str, ...]
    is_free: bool = False
    meaning: Callable[[Any], Any] | None = None

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return self.check is bool


def option(
    default: T,
    help: str,
    *,
    check: Check | None = None,
    metavar: str | None = None,
    off: tuple[str, ...] = (),
    free: bool = False,
    meaning: Callable[[Any], Any] | None = None,
) -> T:
    """A field of a group; see `Option`. check: instead of the type of the annotation."""
    facts = {"help": help, "check": check, "metavar": metavar, "off": off, "free": free, "meaning": meaning}
    return field(default=default, metadata=facts)


def list_options(program: type) -> list[Option]:
    """Every option of a program in the order of its groups, with the program's own defaults."""
    found = []
    for group, defaults in _groups(program):
        types_of = get_type_hints(type(defaults))
        for one in fields(defaults):
            value_type, takes_many = _value_type(types_of[one.name])
            choices = get_args(value_type) if get_origin(value_type) is Literal else ()
            found.append(
                Option(
                    name=one.name,
                    group=group,
                    default=getattr(defaults, one.name),
                    help=one.metadata["help"],
                    check=one.metadata["check"] or (str if choices else value_type),
                    choices=choices,
                    metavar=one.metadata["metavar"],
                    takes_many=takes_many,
                    off=one.metadata["off"],
                    is_free=one.metadata["free"],
                    meaning=one.metadata["meaning"],
                )
            )
    return found


def build_parser(program: type, description: str) -> Parser:
    """A parser with a titled section of --help for every group."""
    parser = Parser(description=description)
    sections: dict[str, argparse._ArgumentGroup] = {}
    for one in list_options(program):
        if one.group not in sections:
            sections[one.group] = parser.add_argument_group(one.group)
        _add(sections[one.group], one)
    return parser


def parse(program: type[OptionsT], argv: Sequence[str] | None, description: str) -> OptionsT:
    """The options that the words of a command line give; sys.argv for None."""
    return make(program, given_options(program, argv, description))


def given_options(program: type, argv: Sequence[str] | None, description: str) -> dict[str, Any]:
    """The values, by name, of those options only that the words of a command line give; sys.argv for None."""
    unset = argparse.Namespace(**{one.name: NOT_GIVEN for one in list_options(program)})
    found = vars(build_parser(program, description).parse_args(argv, unset))
    return {name: _frozen(value) for name, value in found.items() if value is not NOT_GIVEN}


def make(program: type[OptionsT], values: Mapping[str, Any]) -> OptionsT:
    """The options of a program with these values by name, the program's defaults for all others."""
    groups = {}
    for group, defaults in _groups(program):
        groups[group] = replace(
            defaults, **{one.name: values[one.name] for one in fields(defaults) if one.name in values}
        )
    return program(**groups)


def restored(program: type, stored: Mapping[str, Any]) -> dict[str, Any]:
    """`as_json` reversed: the value of every option, by name; a program's default where `stored` lacks it, as in files
    that are older than the option. ValueError, with the option, for a value that the command line would refuse."""
    return {one.name: _from_json(one, stored.get(one.name, one.default)) for one in list_options(program)}


def _from_json(one: Option, value: Any) -> Any:
    try:
        if value == one.default or (value is None and one.default is None):
            return one.default
        if one.is_switch:
            if not isinstance(value, bool):
                raise ValueError(f"{str(value)[:40]} is neither true nor false")
            return value
        if one.takes_many:
            if not isinstance(value, list | tuple):
                raise ValueError(f"{str(value)[:40]} is not a list")
            return tuple(one.check(str(part)) for part in value)
        if not isinstance(value, str | int | float | Path) or isinstance(value, bool):
            raise ValueError(f"{str(value)[:40]} is not a value of {one.flag}")
        found = one.check(str(value))
        if one.choices and found not in one.choices:
            raise ValueError(f'"{str(value)[:40]}" is none of {", ".join(map(str, one.choices))}')
        return found
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise ValueError(f"args.{one.name}: {error}") from error


def as_json(options: Any) -> dict[str, Any]:
    """All options of a program in one flat dictionary of JSON values, as config.json keeps them."""
    return plain_values(by_name(options))


def by_name(options: Any) -> dict[str, Any]:
    """The values of all options of a program in one flat dictionary."""
    return {name: value for group in vars(options).values() for name, value in vars(group).items()}


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options by name as JSON values."""
    return {name: _plain(value) for name, value in values.items()}


def _groups(program: type) -> list[tuple[str, Any]]:
    """The name of every group of a program, and the group with the program's defaults."""
    return [(group.name, group.default) for group in fields(program)]


def _value_type(annotation: Any) -> tuple[Any, bool]:
    """The type of one value of an annotation, and whether an option of it takes several."""
    if isinstance(annotation, types.UnionType) or get_origin(annotation) is not None:
        parts: Iterable[Any] = get_args(annotation)
        if get_origin(annotation) is tuple:
            return next(iter(parts)), True
        if get_origin(annotation) is not Literal:  # Type | None
            return next(part for part in parts if part is not types.NoneType), False
    return annotation, False


def _add(section: argparse._ArgumentGroup, one: Option) -> None:
    if one.is_switch:
        section.add_argument(one.flag, action="store_true", default=one.default, help=one.help)
        if one.off:
            section.add_argument(
                *one.off, action="store_false", dest=one.name, default=argparse.SUPPRESS, help=f"without {one.flag}"
            )
        return
    several: dict[str, Any] = {"nargs": "+" if one.default else "*"} if one.takes_many else {}
    section.add_argument(
        one.flag,
        type=one.check,
        default=list(one.default) if one.takes_many else one.default,
        choices=one.choices or None,
        metavar=one.metavar,
        help=one.help,
        **several,
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
