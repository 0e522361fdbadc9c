import functools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ops import causal_conv1d_fn
from tests.helpers.ops_cases import assert_close, exact, forward_backward, reference_conv

chunked_conv = functools.partial(causal_conv1d_fn, backend="chunked")


def leaves(batch: int = 2, dim: int = 5, length: int = 9, width: int = 4, states: bool = False,
           dtype: torch.dtype = torch.float64) -> dict[str, Any]:  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tensors = {"x": normal(batch, length, dim).transpose(1, 2), "weight": normal(dim, width), "bias": normal(dim)}
    if states:
        tensors["initial_states"] = normal(batch, dim, width - 1)
    return {name: x.requires_grad_() for name, x in tensors.items()}


def assert_same(tensors: dict[str, Any], rtol: float = 1e-12, **options) -> None:
    actual = forward_backward(chunked_conv, tensors, **options)
    expected = forward_backward(reference_conv, exact(tensors), **options)
    assert_close(actual, expected, rtol=rtol, dtype=False)
    for name, x in tensors.items():
        assert actual[f"d{name}"].dtype == x.dtype


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("activation", [None, "silu", "swish"])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 17])
@pytest.mark.parametrize("width", [1, 2, 4, 5])
def test_values_and_gradients(width: int, length: int, activation: str | None, reverse: bool):
    assert_same(leaves(length=length, width=width), activation=activation, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 9])
@pytest.mark.parametrize("states", [False, True])
def test_initial_and_final_states(length: int, states: bool, reverse: bool):
    tensors = leaves(length=length, states=states)
    assert_same(tensors, reverse=reverse, return_final_states=True, activation="silu")


@pytest.mark.parametrize("run", [chunked_conv, reference_conv])
@pytest.mark.parametrize("reverse", [False, True])
def test_states_join_two_halves(run, reverse: bool):
    tensors = {k: x.detach() for k, x in leaves(length=12).items()}
    x = tensors.pop("x")
    whole = run(x, **tensors, activation="silu", reverse=reverse)
    first, second = (slice(5, 12), slice(0, 5)) if reverse else (slice(0, 5), slice(5, 12))
    out, states = run(x[..., first], **tensors, activation="silu", return_final_states=True, reverse=reverse)
    rest = run(x[..., second], **tensors, activation="silu", initial_states=states, reverse=reverse)
    torch.testing.assert_close(torch.cat([rest, out] if reverse else [out, rest], dim=-1), whole)


@pytest.mark.parametrize("run", [chunked_conv, reference_conv])
def test_final_states_are_written_to_the_given_tensor(run):
    tensors = {k: x.detach() for k, x in leaves().items()}
    target = torch.full((2, 5, 3), torch.nan, dtype=torch.float64)
    _, states = run(**tensors, return_final_states=True, final_states_out=target)
    assert states is target
    torch.testing.assert_close(target, tensors["x"][..., -3:])


@pytest.mark.parametrize("reverse", [False, True])
def test_packed_sequences(reverse: bool):
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, -1], [-1, -1, 3, 3, 3, 3, 4, 4, 4]])
    assert_same(leaves(), seq_idx=seq_idx, activation="silu", reverse=reverse)
    x, weight, bias = leaves().values()
    out = chunked_conv(x, weight, bias, seq_idx=seq_idx, activation="silu", reverse=reverse)
    alone = chunked_conv(x[1:, :, 2:6], weight, bias, activation="silu", reverse=reverse)
    torch.testing.assert_close(out[1:, :, 2:6], alone)
    assert out[0, :, 8].eq(0).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_an_output_depends_on_its_own_side_only(reverse: bool):
    tensors = {k: x.detach() for k, x in leaves(length=12).items()}
    before = chunked_conv(**tensors, reverse=reverse)
    tensors["x"][..., 6] += 1
    changed = (chunked_conv(**tensors, reverse=reverse) != before).any(1)[0].nonzero().flatten().tolist()
    assert changed == ([3, 4, 5, 6] if reverse else [6, 7, 8, 9])


def test_agrees_with_pytorchs_convolution():
    x, weight, bias = leaves(length=30).values()
    expected = F.conv1d(x, weight[:, None], bias, padding=3, groups=5)[..., :30]
    torch.testing.assert_close(chunked_conv(x, weight, bias), expected)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_lower_precision(dtype: torch.dtype, rtol: float):
    assert_same(leaves(length=50, dtype=dtype), rtol=rtol, activation="silu")


def test_gradcheck():
    run = functools.partial(chunked_conv, activation="silu")
    assert torch.autograd.gradcheck(run, tuple(leaves(batch=1, dim=2, length=4).values()))


def test_batch_zero_no_bias_and_any_strides():
    assert_same(leaves(batch=0), activation="silu")
    tensors = leaves()
    del tensors["bias"]
    assert_same(tensors)
    tensors["x"] = tensors["x"].detach().contiguous().requires_grad_()
    assert_same(tensors)


def test_results_are_channel_last():
    results = forward_backward(chunked_conv, leaves(), activation="silu")
    assert results["out"].transpose(1, 2).is_contiguous()
    assert results["dx"].transpose(1, 2).is_contiguous()


def test_autocast_and_checkpointing():
    tensors = leaves(dtype=torch.float32)
    run = functools.partial(chunked_conv, activation="silu")
    plain = forward_backward(run, tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(forward_backward(run, tensors), plain, rtol=1e-7)
    saved = forward_backward(lambda **t: checkpoint(run, *t.values(), use_reentrant=False), tensors)
    assert_close(saved, plain, rtol=1e-7)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
@pytest.mark.parametrize("bias", [False, True])
def test_operators_keep_pytorchs_contract(bias: bool):
    x, weight, offset = (tensor.detach() for tensor in leaves(dtype=torch.float32).values())
    arguments = (x.transpose(1, 2), weight, offset if bias else None, None, True, False)
    only = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.mamba_mae.shifted_sum.default, arguments, test_utils=only)
    backward = torch.ops.mamba_mae.shifted_sum_backward.default
    torch.library.opcheck(backward, (torch.ones_like(arguments[0]), *arguments), test_utils=only)
