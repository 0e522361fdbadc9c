import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from ops import ssd_scan_fn
from ops.chunked import ssd
from tests.helpers.ops_cases import assert_close, exact, forward_backward
from tests.helpers.ssd_cases import SSD_CASES, SSDCase

reference_ssd = functools.partial(ssd_scan_fn, backend="reference")
chunked_ssd = functools.partial(ssd_scan_fn, backend="chunked")


def both(case: SSDCase, dtype: torch.dtype = torch.float64) -> tuple[dict, dict]:
    """(chunked, specification): outputs and gradients; the specification always in float64."""
    tensors = case.tensors(dtype)
    expected = forward_backward(reference_ssd, exact(tensors), **case.options)
    return forward_backward(chunked_ssd, tensors, **case.options), expected


@pytest.mark.parametrize("case", SSD_CASES, ids=str)
def test_values_and_gradients_in_double(case: SSDCase):
    actual, expected = both(case)
    assert_close(actual, expected, rtol=1e-10)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_lower_precision(dtype: torch.dtype, rtol: float, reverse: bool):
    """Only inputs and outputs are rounded in bfloat16: the state is float32."""
    actual, expected = both(SSDCase(length=200, heads=4, groups=2, headdim=8, states=16, reverse=reverse), dtype)
    assert all(x.dtype == dtype for x in actual.values())
    assert_close(actual, expected, rtol=rtol, dtype=False)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    case=st.builds(
        SSDCase,
        batch=st.integers(0, 3),
        length=st.integers(1, 90),
        heads=st.sampled_from([2, 4, 6]),
        headdim=st.integers(1, 3),
        groups=st.sampled_from([1, 2]),
        states=st.integers(1, 4),
        D=st.booleans(),
        bias=st.booleans(),
        softplus=st.booleans(),
        reverse=st.booleans(),
    ),
    chunk=st.sampled_from([1, 7, 16, 64]),
    block=st.sampled_from([1, 3000, ssd.BLOCK_ELEMENTS]),
)
def test_any_shape_chunk_and_block(case: SSDCase, chunk: int, block: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssd, "CHUNK", chunk)
        patch.setattr(ssd, "BLOCK_ELEMENTS", block)
        actual, expected = both(case)
    assert_close(actual, expected, rtol=1e-10)


@pytest.mark.parametrize("reverse", [False, True])
def test_gradcheck(reverse: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ssd, "CHUNK", 2)
    monkeypatch.setattr(ssd, "BLOCK_ELEMENTS", 1)
    case = SSDCase(batch=1, length=5, heads=2, headdim=2, states=2, reverse=reverse)
    scan = functools.partial(chunked_ssd, **case.options)
    assert torch.autograd.gradcheck(scan, tuple(case.tensors().values()))


def test_reverse_is_the_flipped_scan_of_flipped_inputs():
    tensors = SSDCase(length=150, groups=2).tensors()
    flipped = {name: t.flip(1) if t.dim() > 1 else t for name, t in tensors.items()}
    there = chunked_ssd(**tensors, dt_softplus=True, reverse=True)
    back = chunked_ssd(**flipped, dt_softplus=True).flip(1)
    torch.testing.assert_close(there, back, rtol=1e-12, atol=1e-12)


def test_an_empty_sequence_gives_an_empty_one():
    tensors = SSDCase(length=0).tensors()
    for scan in (reference_ssd, chunked_ssd):
        assert scan(**tensors).shape == (2, 0, 4, 3)


def test_segment_sums():
    rate, inf = torch.tensor([1.0, 2.0, 4.0]), math.inf
    assert ssd.segment_sums(rate, False).tolist() == [[0, -inf, -inf], [2, 0, -inf], [6, 4, 0]]
    assert ssd.segment_sums(rate, True).tolist() == [[0, 1, 3], [-inf, 0, 2], [-inf, -inf, 0]]


def test_a_small_step_behind_a_huge_one_is_not_lost():
    """A difference of running sums in float32 would lose the later steps of 0.1 after one of 1e8."""
    case = SSDCase(batch=1, length=8, heads=1, D=False, bias=False, softplus=False)
    tensors = case.tensors(torch.float32)
    with torch.no_grad():
        tensors["dt"].fill_(0.1)
        tensors["dt"][0, 0], tensors["A"][0] = 1e8, -1.0
    expected = reference_ssd(**exact(tensors))
    torch.testing.assert_close(chunked_ssd(**tensors)[:, 1:].double(), expected[:, 1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_large_steps_stay_finite(reverse: bool):
    case = SSDCase(length=200, dt_scale=1e4, A_scale=1e4, reverse=reverse)
    results = forward_backward(chunked_ssd, case.tensors(torch.float32), **case.options)
    assert all(torch.isfinite(x).all() for x in results.values())


def test_64000_tokens():
    """The longest sequence of the paper. 32-bit offsets of other kernels overflow (state-spaces/mamba issue 1015)."""
    case = SSDCase(batch=1, length=64_000, heads=2, headdim=2, states=2, dt_scale=0.1)
    tensors = {name: t.detach() for name, t in case.tensors(torch.float32).items()}
    expected = reference_ssd(**{name: t.double() for name, t in tensors.items()}, dt_softplus=True)
    actual = chunked_ssd(**tensors, dt_softplus=True)
    assert_close({"out": actual}, {"out": expected}, rtol=2e-5, dtype=False)


def test_memory_is_that_of_a_block(monkeypatch: pytest.MonkeyPatch):
    """The forward pass keeps only its input and one state per block."""
    monkeypatch.setattr(ssd, "BLOCK_ELEMENTS", 4 * 64 * 64)
    kept = []
    tensors = SSDCase(batch=1, length=640, states=5).tensors(torch.float32)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        chunked_ssd(**tensors, dt_softplus=True)
    assert kept[-1] == (10, 1, 1, 5, 4, 3)
    assert len(kept) == 1 + len(tensors)


@pytest.mark.parametrize(("batch", "heads", "positions"), [(1, 2, 64 * 256), (16, 8, 64 * 4), (512, 64, 64)])
def test_a_block_has_as_many_decays_as_allowed(batch: int, heads: int, positions: int):
    x = torch.empty(batch, 64_000, heads, 1, device="meta")
    assert ssd._block_length(x) == positions
    assert positions * ssd.CHUNK * batch * heads == ssd.BLOCK_ELEMENTS or positions == 64


def test_states_are_not_kept_without_gradients():
    tensors = {name: t.detach() for name, t in SSDCase(batch=1, length=640, states=5).tensors().items()}
    assert torch.ops.mamba_mae.chunked_ssd(*tensors.values(), True, False, False)[1].numel() == 0
    results = []

    class Results(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            results.append(func(*args, **(kwargs or {})))
            return results[-1]

    with Results():
        chunked_ssd(**tensors)
    assert results[0][1].numel() == 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
@pytest.mark.parametrize(
    "case", [SSDCase(batch=3, length=70, groups=2), SSDCase(batch=3, length=70, D=False, bias=False)], ids=str
)
@pytest.mark.parametrize("keep", [False, True])
def test_operators_keep_pytorchs_contract(case: SSDCase, keep: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ssd, "BLOCK_ELEMENTS", 1)  # a state for every chunk
    tensors = tuple(None if x is None else x.detach() for x in case.tensors(torch.float32).values())
    only = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.mamba_mae.chunked_ssd.default, (*tensors, True, False, keep), test_utils=only)
    out, starts = torch.ops.mamba_mae.chunked_ssd(*tensors, True, False, True)
    backward = torch.ops.mamba_mae.chunked_ssd_backward.default
    torch.library.opcheck(backward, (torch.randn_like(out), *tensors, starts, True, False), test_utils=only)


def test_autocast_does_not_touch_the_precision():
    case = SSDCase(length=70)
    plain = forward_backward(chunked_ssd, case.tensors(torch.float32), **case.options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = forward_backward(chunked_ssd, case.tensors(torch.float32), **case.options)
    assert_close(cast, plain, rtol=1e-7)


def test_under_activation_checkpointing():
    tensors = SSDCase(length=70).tensors()

    def checkpointed(**tensors):
        scan = functools.partial(chunked_ssd, dt_softplus=True)
        return checkpoint(scan, *tensors.values(), use_reentrant=False)

    plain = forward_backward(chunked_ssd, tensors, dt_softplus=True)
    assert_close(forward_backward(checkpointed, tensors), plain, rtol=1e-12)


def test_gradient_of_some_inputs_only():
    full = forward_backward(chunked_ssd, SSDCase().tensors(), dt_softplus=True)
    tensors = {name: t.detach() for name, t in SSDCase().tensors().items()}
    tensors["B"].requires_grad_()
    some = forward_backward(chunked_ssd, tensors, dt_softplus=True)
    assert some.keys() == {"out", "dB"}
    torch.testing.assert_close(some["dB"], full["dB"])


def test_second_derivatives_are_refused():
    tensors = SSDCase().tensors()
    out = chunked_ssd(**tensors, dt_softplus=True)
    (dx,) = torch.autograd.grad((out**2).sum(), tensors["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of mamba_mae::chunked"):
        dx.sum().backward()
