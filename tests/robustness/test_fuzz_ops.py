"""A short fuzz of the public functions of ops. `make sanitize` and tests/robustness/fuzz_ops.py run for longer."""

from typing import Any

import pytest
import torch
from torch import Tensor

import ops
from tests.robustness import fuzz_ops
from tests.robustness.fuzz_ops import TARGETS, Target, attempt, fuzz, main

CALLS = 40


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.function.__name__)
def test_calls_agree_with_the_reference_or_raise_valueerror(target: Target):
    outcomes = [attempt(target, seed) for seed in range(CALLS)]
    assert [wrong for _, wrong in outcomes if wrong] == []
    assert {outcome for outcome, _ in outcomes} == {"computed", "refused"}


def test_every_public_function_is_fuzzed():
    functions = {name for name in ops.__all__ if name.endswith("_fn")}
    assert functions == {target.function.__name__ for target in TARGETS}


def _wrong(value: Tensor, backend: str) -> Tensor:
    return value + (backend == "auto")


def _foreign(value: Tensor, backend: str) -> Tensor:
    raise RuntimeError("of a library")


def _refusing(value: Tensor, backend: str) -> Tensor:
    if backend == "auto":
        raise ValueError("value must be something else")
    return value


@pytest.mark.parametrize(
    ("function", "words"),
    [(_wrong, "finite values differ by 1"), (_foreign, "RuntimeError: of a library"), (_refusing, "only one of both")],
)
def test_what_is_wrong_is_found(function: Any, words: str):
    target = Target(function, lambda draw: {"value": torch.zeros(3), "other": 0})
    target = Target(lambda value, other, backend: function(value, backend), target.draw)
    _, findings = fuzz((target,), 0.2)
    assert any(words in finding for finding in findings)


def test_the_command_reports_findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(fuzz_ops, "fuzz", lambda *unused: ({"computed": 2, "refused": 1}, ["scan, seed 1: wrong"]))
    assert main(["--minutes", "1"]) == 1
    assert "scan, seed 1: wrong\n2 calls computed, 1 refused, 1 findings" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--minutes", "nan"])
