"""Commands as the documentation prints them: which program they start, with which words."""

import importlib.util
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from commands import PROGRAMS as COMMANDS
from tests.helpers.pages import ROOT

LAUNCHERS = (["torchrun"], ["python", "-m", "torch.distributed.launch"])


def script(path: str) -> Any:
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPTIONS = script("docs/write_options.py")
PROGRAMS: tuple[str, ...] = tuple(OPTIONS.PROGRAMS)


class Call(NamedTuple):
    """A program of ours with its words. launched: by torchrun or the like, whose own words are left out."""

    program: str
    words: list[str]
    launched: bool

    def parse(self) -> Any:
        """The options; SystemExit where the program does not accept them."""
        return OPTIONS.parse_of(self.program)(self.words)

    @property
    def main(self) -> Callable[[list[str]], Any]:
        return importlib.import_module(OPTIONS.PROGRAMS[self.program]).main


def call_of(command: str) -> Call | None:
    """What a command line starts; None where it is no program of ours."""
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    folder = ""
    if words[:1] == ["cd"]:
        folder, words = f"{words[1]}/", words[3:]
    words = words[1:] if words[:1] == ["srun"] else words
    if words[:1] == ["mamba-mae"] and words[1] in COMMANDS:
        module = COMMANDS[words[1]][0]
        return Call(next(name for name in PROGRAMS if OPTIONS.PROGRAMS[name] == module), words[2:], False)
    launched = any(words[: len(launcher)] == launcher for launcher in LAUNCHERS)
    for index, word in enumerate(words):
        name = folder + word
        is_module = words[index - 1 : index] == ["-m"]
        if name in PROGRAMS and (name.endswith(".py") or is_module):
            return Call(name, words[index + 1 :], launched)
    return None
