"""Running what others wrote, from a source tree and unchanged: on a CPU, and without the kernels it would compile."""

import contextlib
import importlib
import importlib.util
import io
import linecache
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch.overrides import TorchFunctionMode

from tests.verification.options import Case
from tests.verification.tally import Skipped


class OnCpu(TorchFunctionMode):
    """Tensors asked for on "cuda" are made on the CPU, so that tests written for a GPU run as they stand."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def stand_in(name: str, **members: Any) -> ModuleType:
    """A module that holds `members` only."""
    module = ModuleType(name)
    vars(module).update(members)
    return module


@contextlib.contextmanager
def importable(packages: Mapping[str, Path], stand_ins: tuple[ModuleType, ...] = ()) -> Iterator[None]:
    """Within the block, packages can be imported from their folders without their __init__, and stand-ins as they are.

    Whatever of the same names was imported before comes back afterwards.
    """
    own = {name.split(".")[0] for name in packages} | {module.__name__.split(".")[0] for module in stand_ins}
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] in own}
    for name in before:
        del sys.modules[name]
    for name, folder in packages.items():
        sys.modules[name] = stand_in(name, __path__=[str(folder)])
    sys.modules.update({module.__name__: module for module in stand_ins})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs
            yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update(before)


def load(path: Path, name: str | None = None) -> ModuleType:
    """The module of a file, which others import as `name`.

    Skipped if the tree has no such file or the file needs what is not installed.
    """
    if not path.is_file():
        raise Skipped(f"{path} is missing: is --source the root of the right source tree?")
    spec = importlib.util.spec_from_file_location(name or f"verified_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if name is not None:
        sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise Skipped(f"{path} needs what is not installed: {error}") from error
    return module


@dataclass(frozen=True)
class Outcome:
    """Of one of their tests: whether it passed; else the line that stopped it, and its local variables there."""

    passed: bool
    line: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)


def run_test(test: Callable[..., None], case: Case) -> Outcome:
    """Call a test as pytest would with these parameters. What it skips or an error of ours counts as not passed."""
    try:
        with OnCpu(), contextlib.redirect_stdout(io.StringIO()):
            test(**case)
    except (AssertionError, ValueError, RuntimeError, pytest.skip.Exception) as error:
        step = error.__traceback__
        while step is not None and step.tb_frame.f_code is not test.__code__:
            step = step.tb_next
        if step is None:  # raised before the test's first line
            return Outcome(False, repr(error))
        line = linecache.getline(step.tb_frame.f_code.co_filename, step.tb_lineno).strip()
        message = "" if isinstance(error, AssertionError) else f" {type(error).__name__}: {error}"
        return Outcome(False, line + message, dict(step.tb_frame.f_locals))
    return Outcome(True)


def named(case: Case) -> str:
    return ", ".join(f"{key}={str(value).removeprefix('torch.')}" for key, value in case.items())


def installed(name: str) -> ModuleType:
    """A module of a package that requirements-verify.txt names. Skipped where it is absent."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # theirs
            return importlib.import_module(name)
    except ImportError as error:
        raise Skipped(f"{name.split('.')[0]} is not installed: pip install -r requirements-verify.txt") from error
