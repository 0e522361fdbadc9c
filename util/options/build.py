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
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from util.cli import Parser

T = TypeVar("T")
OptionsT = TypeVar("OptionsT")
Check = Callable[[str], Any]


@dataclass(frozen=True)
class Option:
    """One option as the parser and the documentation need it.

    check: turns text into the value, or raises with the reason. choices: the allowed values, empty for any. takes_many:
    whether it takes several values. off: further flags that set a bool to False.
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

    @property
    def flag(self) -> str:
        return f"--{self.name}"

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return self.check is bool


def option(
    default: T, help: str, *, check: Check | None = None, metavar: str | None = None, off: tuple[str, ...] = ()
) -> T:
    """A field of a group; see `Option`. check: instead of the type of the annotation."""
    return field(default=default, metadata={"help": help, "check": check, "metavar": metavar, "off": off})


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
    given = vars(build_parser(program, description).parse_args(argv))
    groups = {}
    for group, defaults in _groups(program):
        groups[group] = type(defaults)(**{one.name: _frozen(given[one.name]) for one in fields(defaults)})
    return program(**groups)


def as_json(options: Any) -> dict[str, Any]:
    """All options of a program in one flat dictionary of JSON values, as config.json keeps them."""
    return plain_values({name: value for group in vars(options).values() for name, value in vars(group).items()})


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
