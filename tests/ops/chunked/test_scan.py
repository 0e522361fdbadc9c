import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from ops import selective_scan_fn
from ops.chunked import scan as chunked
from tests.helpers.ops_cases import SCAN_CASES, ScanCase, assert_close, exact, forward_backward, reference_scan

chunked_scan = functools.partial(selective_scan_fn, backend="chunked")


def both(case: ScanCase, dtype: torch.dtype = torch.float64, **options) -> tuple[dict, dict]:
    """(chunked, reference): outputs, last state and gradients; the reference always in float64."""
    options = {"delta_softplus": case.softplus, "reverse": case.reverse, "return_last_state": True, **options}
    tensors = case.tensors(dtype)
    expected = forward_backward(reference_scan, exact(tensors), **options)
    return forward_backward(chunked_scan, tensors, **options), expected


@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
def test_values_and_gradients_in_double(case: ScanCase):
    actual, expected = both(case)
    assert_close(actual, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "case", [ScanCase(length=257, dim=48, states=16), ScanCase(length=100, groups=2, reverse=True)], ids=str
)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 2e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_lower_precision(case: ScanCase, dtype: torch.dtype, rtol: float):
    actual, expected = both(case, dtype)
    assert actual["out"].dtype == dtype
    assert actual["extra"].dtype == torch.float32
    assert all(x.dtype == dtype for name, x in actual.items() if name.startswith("d"))
    assert_close(actual, expected, rtol=rtol, dtype=False)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    case=st.builds(
        ScanCase,
        batch=st.integers(0, 3),
        dim=st.sampled_from([6, 12]),
        length=st.integers(1, 140),
        states=st.integers(1, 5),
        groups=st.sampled_from([0, 1, 2, 3]),
        constant_B=st.booleans(),
        constant_C=st.booleans(),
        D=st.booleans(),
        z=st.booleans(),
        bias=st.booleans(),
        softplus=st.booleans(),
        reverse=st.booleans(),
    ),
    block=st.sampled_from([1, 40, 500, chunked.BLOCK_ELEMENTS]),
)
def test_any_shape_and_any_block_size(case: ScanCase, block: int):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked, "BLOCK_ELEMENTS", block)  # small blocks cut the batch and shorten the chunks
        actual, expected = both(case)
    assert_close(actual, expected, rtol=1e-10)


@pytest.mark.parametrize("case", [ScanCase(batch=1, dim=2, length=5, states=2, reverse=r) for r in (False, True)])
def test_gradcheck(case: ScanCase, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chunked, "MAX_STEPS", 2)
    scan = functools.partial(chunked_scan, delta_softplus=True, reverse=case.reverse)
    assert torch.autograd.gradcheck(scan, tuple(case.tensors().values()))


def test_reverse_is_the_flipped_scan_of_flipped_inputs():
    tensors = ScanCase(length=90).tensors()
    flipped = {k: x.flip(-1) if k in ("u", "delta", "z", "B", "C") else x for k, x in tensors.items()}
    there = chunked_scan(**tensors, delta_softplus=True, reverse=True)
    back = chunked_scan(**flipped, delta_softplus=True).flip(-1)
    torch.testing.assert_close(there, back, rtol=1e-12, atol=1e-12)


def test_outputs_and_gradients_are_channel_last():
    tensors = ScanCase(dim=8, length=70).tensors()
    results = forward_backward(chunked_scan, tensors, delta_softplus=True)
    for name in ("out", "du", "ddelta", "dz", "dB", "dC"):
        assert results[name].transpose(1, 2).is_contiguous(), name


def test_strides_of_the_inputs_do_not_matter():
    tensors = ScanCase(dim=8, length=70).tensors()
    expected = chunked_scan(**tensors, delta_softplus=True)
    contiguous = {k: x.contiguous() for k, x in tensors.items()}
    torch.testing.assert_close(chunked_scan(**contiguous, delta_softplus=True), expected)
    strided = dict(tensors, u=torch.stack([tensors["u"]] * 2, dim=-1).flatten(2)[..., ::2])
    torch.testing.assert_close(chunked_scan(**strided, delta_softplus=True), expected)


class LargestAllocation(TorchDispatchMode):
    """Records the largest number of elements of a new tensor."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, torch.Tensor) and x._base is None:
                self.elements = max(self.elements, x.numel())
        return result


@pytest.mark.parametrize("case", [ScanCase(batch=2, dim=64, length=3000, states=16, groups=2),
                                  ScanCase(batch=2, dim=64, length=3000, states=16, constant_B=True)])  # fmt: skip
def test_the_state_of_the_sequence_is_never_stored(case: ScanCase):
    inputs = case.tensors(torch.float32).values()
    with (
        torch.no_grad(),
        LargestAllocation() as largest,
    ):  # kernels are called directly: inside an operator, this mode does not see allocations
        out, _, starts = chunked._forward(*inputs, True, False, True)
        chunked._backward(torch.ones_like(out), *inputs, starts, True, False)
    whole_state = case.batch * case.dim * case.length * case.states
    sequence = case.batch * case.dim * case.length
    assert largest.elements < whole_state / 10
    assert largest.elements <= max(3 * chunked.BLOCK_ELEMENTS, sequence)


def test_nothing_is_kept_without_gradients():
    inputs = ScanCase(batch=1, dim=64, length=640, states=16).tensors().values()
    with torch.no_grad(), LargestAllocation() as largest:
        chunked._forward(*inputs, True, False, False)
    assert largest.elements <= 2 * chunked.MAX_STEPS * 64 * 16


def test_what_the_backward_pass_needs_is_not_returned_without_gradients():
    tensors = {k: x.detach() for k, x in ScanCase(batch=1, dim=8, length=640, states=128).tensors().items()}
    with LargestAllocation() as largest:
        out = chunked_scan(**tensors)
    assert largest.elements == out.numel()


@pytest.mark.parametrize(
    "case", [ScanCase(batch=40, dim=4, length=8, states=2), ScanCase(batch=1, dim=20, length=64, states=5)], ids=str
)
def test_a_large_batch_and_a_large_state_are_worked_on_in_parts(case: ScanCase, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chunked, "BLOCK_ELEMENTS", 1000)
    with torch.no_grad(), LargestAllocation() as largest:
        chunked._forward(*case.tensors().values(), True, False, False)
    assert largest.elements <= 2 * 1000  # decays and states


def test_delta_has_no_softplus_by_default():
    tensors = ScanCase(softplus=False).tensors()
    torch.testing.assert_close(chunked_scan(**tensors), reference_scan(**tensors))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
@pytest.mark.parametrize(
    "case",
    [
        ScanCase(batch=3, dim=6, length=70, states=5),
        ScanCase(batch=3, dim=6, length=70, states=5, groups=2, D=False, z=False, bias=False),
        ScanCase(batch=3, dim=6, length=70, states=5, constant_B=True, constant_C=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("keep", [False, True])
def test_operators_keep_pytorchs_contract(case: ScanCase, keep: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chunked, "BLOCK_ELEMENTS", 100)  # the state is kept before every third position
    tensors = tuple(None if x is None else x.detach() for x in case.tensors(torch.float32).values())
    only = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.mamba_mae.chunked_scan.default, (*tensors, True, False, keep), test_utils=only)
    out, _, starts = torch.ops.mamba_mae.chunked_scan(*tensors, True, False, True)
    backward = torch.ops.mamba_mae.chunked_scan_backward.default
    torch.library.opcheck(backward, (torch.randn_like(out), *tensors, starts, True, False), test_utils=only)


def test_large_steps_stay_finite():
    case = ScanCase(length=200, dim=4, states=4, delta_scale=1e4, A_scale=1e4)
    results = forward_backward(chunked_scan, case.tensors(torch.float32), delta_softplus=True)
    assert all(torch.isfinite(x).all() for x in results.values())


def test_autocast_does_not_touch_the_precision():
    case = ScanCase(length=70)
    plain = forward_backward(chunked_scan, case.tensors(torch.float32), delta_softplus=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = forward_backward(chunked_scan, case.tensors(torch.float32), delta_softplus=True)
    assert_close(cast, plain, rtol=1e-7)


def test_under_activation_checkpointing():
    tensors = ScanCase(length=70).tensors()

    def checkpointed(**tensors):
        scan = functools.partial(chunked_scan, delta_softplus=True)
        return checkpoint(scan, *tensors.values(), use_reentrant=False)

    plain = forward_backward(chunked_scan, tensors, delta_softplus=True)
    assert_close(forward_backward(checkpointed, tensors), plain, rtol=1e-12)


def test_second_derivatives_are_refused():
    tensors = ScanCase().tensors()
    out = chunked_scan(**tensors, delta_softplus=True)
    (du,) = torch.autograd.grad((out**2).sum(), tensors["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives of mamba_mae::chunked"):
        du.sum().backward()


def test_gradient_of_some_inputs_only():
    tensors = {k: x.detach() for k, x in ScanCase().tensors().items()}
    tensors["B"].requires_grad_()
    full = forward_backward(chunked_scan, ScanCase().tensors(), delta_softplus=True)
    chunked_scan(**tensors, delta_softplus=True).backward(torch.ones_like(tensors["u"]))
    assert tensors["B"].grad is not None
    assert full["dB"].shape == tensors["B"].grad.shape
    assert tensors["u"].grad is None
