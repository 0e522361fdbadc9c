"""Running the unchanged code of a peer from its source tree: on a CPU and without compiled kernels."""

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
    """Creates tensors on the CPU when "cuda" is requested, so that tests written for a GPU run unchanged."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") == "cuda":
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def stand_in(name: str, **members: Any) -> ModuleType:
    """A module with these members only, in place of one that is not available."""
    module = ModuleType(name)
    vars(module).update(members)
    return module


@contextlib.contextmanager
def importable(packages: Mapping[str, Path], stand_ins: tuple[ModuleType, ...] = ()) -> Iterator[None]:
    """Within the context, packages are imported from their folders without their __init__, and stand-ins as given.

    Modules of the same names that were imported before are restored at the end.
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
            warnings.simplefilter("ignore")  # warnings of the peer
            yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update(before)


def load(path: Path, name: str | None = None) -> ModuleType:
    """Load the module of a file, under the import name `name`.

    Skipped if the file does not exist or needs a package that is not installed.
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
        raise Skipped(f"{path} needs a package that is not installed: {error}") from error
    return module


@dataclass(frozen=True)
class Outcome:
    """The outcome of a test of a peer. If it failed: the failing line and the local variables at that line."""

    passed: bool
    line: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)


def run_test(test: Callable[..., None], case: Case) -> Outcome:
    """Call a test with these parameters, as pytest does. A skip or an error of our code counts as not passed."""
    try:
        with OnCpu(), contextlib.redirect_stdout(io.StringIO()):
            test(**case)
    except (AssertionError, ValueError, RuntimeError, pytest.skip.Exception) as error:
        step = error.__traceback__
        while step is not None and step.tb_frame.f_code is not test.__code__:
            step = step.tb_next
        if step is None:  # raised before the first line of the test
            return Outcome(False, repr(error))
        line = linecache.getline(step.tb_frame.f_code.co_filename, step.tb_lineno).strip()
        message = "" if isinstance(error, AssertionError) else f" {type(error).__name__}: {error}"
        return Outcome(False, line + message, dict(step.tb_frame.f_locals))
    return Outcome(True)


def named(case: Case) -> str:
    """The parameters of a case in words."""
    return ", ".join(f"{key}={str(value).removeprefix('torch.')}" for key, value in case.items())


def installed(name: str) -> ModuleType:
    """Import a module of a package from requirements-verify.txt. Skipped if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings of the peer
            return importlib.import_module(name)
    except ImportError as error:
        raise Skipped(f"{name.split('.')[0]} is not installed: pip install -r requirements-verify.txt") from error
