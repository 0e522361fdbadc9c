"""The tests of mamba_ssm, run with our selective scan: values, last state and all gradients.

The grid has all parameter values in tests/ops/test_selective_scan.py, including commented ones, for real A.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ops import selective_scan_fn
from tests.verification.errors import Errors
from tests.verification.options import Case, Options
from tests.verification.peers import importable, load, named, run_test, stand_in
from tests.verification.tally import Skipped, Tally

GRID = {
    "itype": [torch.float32, torch.float16, torch.bfloat16],
    "seqlen": [8, 16, 32, 64, 128, 256, 372, 512, 784, 1024, 1134, 2048, 4096],
    "return_last_state": [False, True],
    "has_delta_bias": [False, True],
    "delta_softplus": [False, True],
    "has_z": [False, True],
    "has_D": [False, True],
    "varBC_groups": [1, 2],
    "is_variable_C": [False, True],
    "is_variable_B": [False, True],
    "wtype": [torch.float32],
}
LEAVES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def run(options: Options, scan: Callable[..., Any] = selective_scan_fn) -> Tally:
    """scan: the function under test."""
    if options.source is None:
        raise Skipped("--source of state-spaces/mamba is not given")
    layer_norm = stand_in("mamba_ssm.ops.triton.layer_norm", _layer_norm_fwd=None)  # for the fused block, not called
    tally, errors = Tally(), Errors()
    with importable({"mamba_ssm": options.source / "mamba_ssm"}, (layer_norm,)):
        module = load(options.source / "tests/ops/test_selective_scan.py")
        vars(module)["selective_scan_fn"] = scan
        for case in options.chosen(GRID, _applies):
            outcome = run_test(module.test_selective_scan, case)
            tally.count(f"{named(case)}: {outcome.line}", outcome.passed)
            if missed := re.search(r"(\w+)\.grad,", outcome.line):
                tally.excused += _is_nearer_to_float64(errors, missed.group(1), case, outcome.variables)
    tally.notes += errors.notes(missed=len(tally.missed))
    return tally


def _applies(case: Case) -> bool:
    return case["varBC_groups"] == 1 or (case["is_variable_B"] and case["is_variable_C"])  # their test skips the others


def _is_nearer_to_float64(errors: Errors, name: str, case: Case, variables: Mapping[str, Any]) -> bool:
    """Whether our gradient, which differs from their reference, has the smaller error relative to float64."""
    given: dict[str, Tensor | None] = {leaf: variables[leaf] for leaf in LEAVES}
    exact = {leaf: None if x is None else x.detach().double().requires_grad_() for leaf, x in given.items()}
    out = selective_scan_fn(**exact, delta_softplus=case["delta_softplus"], backend="reference")  # pyright: ignore[reportArgumentType]
    out = out if case["return_last_state"] else out[0]  # their test unpacks a single output along the batch
    out.backward(variables["g"].double())
    true = exact[name]
    assert true is not None
    ours, theirs = variables[name].grad, variables[f"{name}_ref"].grad
    return errors.add(case["itype"], ours, theirs, true.grad)
