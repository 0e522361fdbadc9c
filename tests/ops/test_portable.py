"""The halving scans against the specification: any length, strong and weak decays, gradients, long sequences."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F

import ops
from ops import portable
from tests.helpers.ops_cases import (
    SCAN_CASES,
    ScanCase,
    assert_close,
    exact,
    forward_backward,
    mixer_tensors,
    on_directions,
    reference_scan,
)
from tests.helpers.ssd_cases import SSD_CASES, SSDCase

portable_scan = functools.partial(ops.selective_scan_fn, backend="portable")
portable_ssd = functools.partial(ops.ssd_scan_fn, backend="portable")


@pytest.mark.parametrize("case", [case for case in SCAN_CASES if case.length > 1], ids=str)
def test_values_and_gradients_in_double(case: ScanCase):
    options = {"delta_softplus": case.softplus, "reverse": case.reverse, "return_last_state": True}
    tensors = case.tensors()
    actual = forward_backward(portable_scan, tensors, **options)
    assert_close(actual, forward_backward(reference_scan, tensors, **options), rtol=1e-10)


@pytest.mark.parametrize("case", SSD_CASES, ids=str)
def test_mamba2s_scan_in_double(case: SSDCase):
    tensors = case.tensors()
    actual = forward_backward(portable_ssd, tensors, **case.options)
    assert_close(actual, forward_backward(ops.ssd_scan_fn, tensors, **case.options, backend="reference"), rtol=1e-10)


@pytest.mark.parametrize("length", [1000, 8000])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e4])
def test_long_sequences_in_single(length: int, strength: float):
    """Decays that keep nearly all of the state, some of it, and none."""
    tensors = ScanCase(batch=1, dim=4, length=length, states=4, A_scale=strength).tensors(torch.float32)
    actual = portable_scan(**tensors, delta_softplus=True)
    expected = reference_scan(**exact(tensors), delta_softplus=True)
    assert_close({"out": actual}, {"out": expected}, rtol=1e-5, dtype=False)
    heads = SSDCase(batch=1, length=length, heads=2, A_scale=strength).tensors(torch.float32)
    actual = portable_ssd(**heads, dt_softplus=True, reverse=True)
    expected = ops.ssd_scan_fn(**exact(heads), dt_softplus=True, reverse=True, backend="chunked")
    assert_close({"out": actual}, {"out": expected}, rtol=1e-5, dtype=False)


def test_decays_of_zero_and_one():
    rate, b = torch.tensor([[1.0, 1, 0, 1, 1]]).log(), torch.tensor([[1.0, 2, 4, 8, 16]])
    assert portable.recurrence(rate, b).tolist() == [[1, 3, 4, 12, 28]]
    assert portable.recurrence(rate, b, reverse=True).tolist() == [[7, 6, 4, 24, 16]]


def nodes(program: torch.export.ExportedProgram) -> list[torch.fx.Node]:
    """The nodes of the graph and of its submodules, into which torch.export cuts it where autocast changes."""
    graphs = [part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    return [node for part in graphs for node in part.graph.nodes]


def operators(length: int) -> int:
    scan = functools.partial(portable_scan, delta_softplus=True)
    tensors = {name: x.detach() for name, x in ScanCase(length=length).tensors(torch.float32).items()}
    module = torch.nn.Module()
    module.forward = lambda *inputs: scan(*inputs)
    return len(nodes(torch.export.export(module, tuple(tensors.values()))))


def test_the_graph_grows_with_the_logarithm_of_the_length():
    few, many = operators(64), operators(1024)
    assert 0 < many - few <= 4 * 25
    assert many < 300
    assert math.isclose((many - few) / 4, (operators(256) - few) / 2)


def test_no_operator_of_ours_is_called_inside_the_context():
    tensors = {name: x.detach() for name, x in mixer_tensors(length=5).items()}
    volume = torch.randn(1, 2, 4, 4, 4)
    ids, hidden, weight, bias = torch.tensor([[1, 0]]), torch.randn(1, 2, 3), torch.randn(16, 3), torch.randn(16)
    back = torch.eye(3, 4)[None]

    class Everything(torch.nn.Module):
        def forward(self, volume, hidden, xz):
            mixed = on_directions(ops.bimamba_fn)(**{**tensors, "xz": xz})
            rows = ops.gather_patches_fn(volume, ids, 2)
            normed, _ = ops.add_norm_fn(hidden, None, None, torch.ones(3), 1e-5)
            loss = ops.linear_patch_error_fn(hidden, weight, bias, volume, ids, 2, True)
            error = ops.patch_error_fn(F.linear(hidden, weight, bias), volume, ids, 2, True)
            return mixed, rows, normed, loss, error, ops.resample_affine_fn(volume, back)

    with torch.no_grad():
        given = volume, hidden, tensors["xz"]
        outputs = Everything()(*given)
        with ops.portable_operators():
            graph = torch.export.export(Everything(), given)
        assert not [node for node in nodes(graph) if "mamba_mae" in str(node.target)]
        for actual, expected in zip(graph.module()(*given), outputs):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
        assert "mamba_mae" in str(torch.export.export(Everything(), given).graph)
