"""Write docs/options.md: every option of every program, as its own parser knows it.

    python docs/write_options.py

A test compares the page with the parsers; run this after an option has changed.
"""

import argparse
import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "options.md"
sys.path.insert(0, str(ROOT))

PROGRAMS = {  # as a command names it: the module whose `parse` reads its command line
    "prepare_data.py": "prepare_data",
    "main_pretrain.py": "main_pretrain",
    "main_cr_finetune.py": "main_cr_finetune",
    "probe.py": "probe",
    "compare.py": "compare",
    "predict.py": "predict",
    "vis/visualize.py": "vis.visualize",
    "vis/visualize_finetuned.py": "vis.visualize_finetuned",
    "vis/check_maps.py": "vis.check_maps",
    "vis/report.py": "vis.report",
    "vis.contrast_table": "vis.contrast_table",
    "util.checkpoint": "util.checkpoint.__main__",
}
HEADER = """# Options

Written by `docs/write_options.py` from the parsers of the programs; do not edit it by hand. `--help` of a program says
the same. Options cannot be abbreviated.
"""


class _Found(Exception):
    """Carries the parser out of a program that is about to use it."""


def parse_of(program: str) -> Callable[[list[str]], argparse.Namespace]:
    """The function of a program that turns its command line into options."""
    module = importlib.import_module(PROGRAMS[program])
    return getattr(module, "parse", None) or module.parse_args


def parser_of(program: str) -> argparse.ArgumentParser:
    def caught(self: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Found(self)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", caught):
        try:
            parse_of(program)([])
        except _Found as found:
            return found.args[0]
    raise AssertionError(f"{program} has no parser")


def page() -> str:
    return "\n".join([HEADER, *(section(program) for program in PROGRAMS)])


def section(program: str) -> str:
    """A program's heading, what it is for, and its options by group; of a program with sub-commands by sub-command."""
    parser = parser_of(program)
    command = f"python {program}" if program.endswith(".py") else f"python -m {program}"
    lines = [f"## {program.rpartition('/')[2]}", "", f"`{command}`: {_first_sentence(parser.description or '')}", ""]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command_parser in action.choices.items():
                lines += [f"### {command.split()[-1]} {name}", "", _text(helps.get(name, "")), ""]
                lines += groups(command_parser)
    return "\n".join(lines + groups(parser))


def groups(parser: argparse.ArgumentParser) -> list[str]:
    """Tables: what has no group of its own, arguments by position first, then a table for each group."""
    tables: dict[str, list[str]] = {"": []}
    for group in parser._action_groups:
        title = "" if group.title in ("positional arguments", "options") else group.title or ""
        tables.setdefault(title, []).extend(row(parser, action) for action in group._group_actions if is_shown(action))
    lines: list[str] = []
    for title, rows in tables.items():
        if rows:
            lines += [f"**{title}**", ""] if title else []
            lines += ["| option | default | |", "|---|---|---|", *rows, ""]
    return lines


def is_shown(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and not isinstance(
        action, argparse._HelpAction | argparse._SubParsersAction
    )


def row(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
    values = "" if action.nargs == 0 or not action.option_strings else f" `{_values(action)}`"
    return " | ".join((f"| {names}{values}", default(action), f"{_text(_help(parser, action))} |"))


def _values(action: argparse.Action) -> str:
    """What stands after an option: FILE, N [N ...], or its choices."""
    name = action.metavar or ("{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper())
    if isinstance(name, tuple):
        return " ".join(name)
    return {"+": f"{name} [{name} ...]", "*": f"[{name} ...]"}.get(str(action.nargs), str(name))


def default(action: argparse.Action) -> str:
    """A default that says something, as it is typed."""
    value = action.default
    if value is None or value is argparse.SUPPRESS or isinstance(value, bool) or value in ([], ""):
        return ""
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    words = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"`{words}`"


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """The help text without the default, which has a column of its own where the text does not give a reason."""
    text = re.sub(r"[;,]?\s*(\(default: )?(default:? )?%\(default\)s\)?", "", action.help or "")
    return text % {"prog": parser.prog, "default": action.default} if "%" in text else text


def _text(text: str) -> str:
    """On one line, safe in a table: no bar ends a cell, no angle bracket or brace means markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _first_sentence(text: str) -> str:
    return _text(re.split(r"(?<=[.:])\s|\n\n", text.strip())[0])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
