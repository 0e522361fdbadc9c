"""The tests of causal_conv1d, run with our convolution: values, final states, all gradients, on the grid of the tests.

Not run: the tests of causal_conv1d_update and of varlen states, which we do not provide, and of race conditions on a
GPU.
"""

import inspect
from collections.abc import Callable
from typing import Any

from ops import causal_conv1d_fn
from tests.verification.options import Case, Options
from tests.verification.peers import importable, load, named, run_test, stand_in
from tests.verification.tally import Skipped, Tally

TESTS = ("test_causal_conv1d", "test_causal_conv1d_varlen", "test_causal_conv1d_varlen_padding")


def run(options: Options, convolution: Callable[..., Any] = causal_conv1d_fn) -> Tally:
    """convolution: the function under test."""
    if options.source is None:
        raise Skipped("--source of Dao-AILab/causal-conv1d is not given")
    kernels = stand_in(
        "causal_conv1d.cpp_functions",
        causal_conv1d_fwd_function=None,
        causal_conv1d_bwd_function=None,
        causal_conv1d_update_function=None,
    )
    states = stand_in(
        "causal_conv1d.causal_conv1d_varlen", causal_conv1d_varlen_states=None, causal_conv1d_varlen_states_ref=None
    )
    tally = Tally()
    with importable({"causal_conv1d": options.source / "causal_conv1d"}, (kernels, states)):
        module = load(options.source / "tests/test_causal_conv1d.py")
        vars(module)["causal_conv1d_fn"] = convolution
        for name in TESTS:
            test = getattr(module, name)
            for case in options.chosen(_marked_grid(test), _applies):
                outcome = run_test(test, case)
                tally.count(f"{name}: {named(case)}: {outcome.line}", outcome.passed)
    return tally


def _marked_grid(test: Callable[..., None]) -> dict[str, list[Any]]:
    """The values of the parametrize marks of a test, in the order of its arguments."""
    marks = {mark.args[0]: list(mark.args[1]) for mark in vars(test)["pytestmark"]}
    return {name: marks[name] for name in inspect.signature(test).parameters}


def _applies(case: Case) -> bool:
    """Their test skips states if channels are not the fastest axis in memory."""
    has_states = case.get("has_initial_states") or case.get("return_final_states")
    return case.get("channel_last", True) or not has_states
