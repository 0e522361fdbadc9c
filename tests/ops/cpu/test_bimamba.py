import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ops import Direction, bimamba_fn
from ops.cpu import bimamba as cpu_bimamba
from tests.helpers.ops_cases import (
    assert_close,
    assert_repeats,
    exact,
    forward_backward,
    mixer_tensors,
    on_directions,
    require_kernels,
    threads,
)

fused = functools.partial(on_directions(bimamba_fn), backend="cpu")
plain = functools.partial(on_directions(bimamba_fn), backend="reference")
JOINT_BYTES = (cpu_bimamba.JOINT_BYTES, 0)
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    require_kernels()


@pytest.mark.parametrize("joint_bytes", JOINT_BYTES)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "sizes",
    [{}, {"length": 1}, {"length": 33, "inner": 40}, {"batch": 1, "length": 70, "inner": 64, "states": 16},
     {"width": 16, "states": 1}],
    ids=str,
)  # fmt: skip
def test_values_and_gradients_in_float32(sizes: dict[str, int], count: int, joint_bytes: int, monkeypatch: Patch):
    monkeypatch.setattr(cpu_bimamba, "JOINT_BYTES", joint_bytes)
    tensors = mixer_tensors(**sizes)
    with threads(count):
        actual = forward_backward(fused, tensors)
    assert_close(actual, forward_backward(plain, exact(tensors)), rtol=1e-5, dtype=False)


@pytest.mark.parametrize("joint_bytes", JOINT_BYTES)
def test_bfloat16_input_with_float32_parameters(joint_bytes: int, monkeypatch: Patch):
    monkeypatch.setattr(cpu_bimamba, "JOINT_BYTES", joint_bytes)
    tensors = mixer_tensors(length=70, inner=64, states=16)
    tensors["xz"] = tensors["xz"].detach().bfloat16().requires_grad_()
    actual = forward_backward(fused, tensors)
    assert actual["out"].dtype == torch.bfloat16
    assert all(actual[f"d{name}"].dtype == x.dtype for name, x in tensors.items())
    assert_close(
        actual, forward_backward(plain, exact(tensors)), rtol=3e-2, dtype=False
    )  # two successive roundings of 2^-8


def test_only_input_projections_and_states_are_saved():
    tensors, saved = mixer_tensors(batch=1, length=160, inner=64, states=16), []

    def pack(x: torch.Tensor) -> torch.Tensor:
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        fused(**tensors)
    projected, states, xz = 2 * 160 * (2 + 2 * 16), 2 * 9 * 16 * 64, 160 * 2 * 64  # states before 9 of 10 chunks
    assert sorted(size for size in saved if size >= projected) == [projected, states, xz]
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        saved.clear()
        fused(**tensors)
    assert not saved


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_operator_keeps_pytorchs_contract():
    xz, *parameters, out_weight = mixer_tensors(length=18).values()
    weights = cpu_bimamba.stack_weights(
        Direction(*parameters[:7]), Direction(*parameters[7:]), out_weight, torch.float32
    )
    torch.library.opcheck(torch.ops.mamba_mae.bimamba.default, (xz, *weights, True))


def test_autocast_and_checkpointing():
    tensors = mixer_tensors()
    expected = forward_backward(fused, tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(forward_backward(fused, tensors), expected, rtol=1e-7)  # float32 in, float32 throughout
    saved = forward_backward(lambda **t: checkpoint(fused, use_reentrant=False, **t), tensors)
    assert_close(saved, expected, rtol=1e-7)


def test_results_are_bit_identical():
    tensors = mixer_tensors(length=50, inner=80, states=16)
    assert_repeats(fused, tensors)


def test_second_derivatives_are_refused():
    tensors = mixer_tensors()
    (dxz,) = torch.autograd.grad((fused(**tensors) ** 2).sum(), tensors["xz"], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        dxz.sum().backward()


def test_under_torch_compile():
    tensors = mixer_tensors(length=20)
    compiled = torch.compile(lambda **t: 2 * fused(**t), backend="aot_eager", fullgraph=True)
    assert_close(forward_backward(compiled, tensors), forward_backward(lambda **t: 2 * fused(**t), tensors), rtol=1e-6)
