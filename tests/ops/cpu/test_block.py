import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.blocks.mixers import BiMamba
from models.blocks.trunk import Block
from ops import Direction, backends, bimamba_block_fn, bimamba_fn, dispatch
from ops.cpu import add_norm as cpu_add_norm
from ops.cpu import bimamba as cpu_bimamba
from ops.cpu import block as cpu_block
from ops.reference import add_norm
from tests.helpers.ops_cases import (
    assert_close,
    assert_repeats,
    assert_unchanged_by_others,
    exact,
    forward_backward,
    mixer_tensors,
    require_kernels,
    threads,
)

WIDTH = 12


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    require_kernels()


def case(length: int = 21, inner: int = 20, residual: bool = True, rotated: bool = True, dropped: bool = False,
         states: int = 5) -> dict[str, Any]:  # fmt: skip
    """Leaf tensors of a block of width 12, in the order of the function's arguments."""
    mixer = mixer_tensors(length=length, inner=inner, states=states)
    del mixer["xz"], mixer["out_weight"]
    return {
        "hidden": torch.randn(2, length, WIDTH).requires_grad_(),
        "residual": torch.randn(2, length, WIDTH).requires_grad_() if residual else None,
        "rotation": torch.polar(*torch.rand(2, 1, length, WIDTH // 2)) if rotated else None,
        "norm_weight": torch.randn(WIDTH).requires_grad_(),
        "scale": torch.tensor([0.0, 1.25]) if dropped else None,
        "in_weight": (torch.randn(2 * inner, WIDTH) / WIDTH**0.5).requires_grad_(),
        **mixer,
        "out_weight": torch.randn(WIDTH, inner).requires_grad_(),
    }


def fused(*, norm_weight: Tensor, scale: Tensor | None, in_weight: Tensor, out_weight: Tensor, hidden: Tensor,
          residual: Tensor | None, rotation: Tensor | None, **weights: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
    both = directions(weights)
    return bimamba_block_fn(hidden, residual, rotation, norm_weight, 1e-5, scale, in_weight, *both, out_weight)


def plain(*, norm_weight: Tensor, scale: Tensor | None, in_weight: Tensor, out_weight: Tensor, hidden: Tensor,
          residual: Tensor | None, rotation: Tensor | None, **weights: Tensor) -> tuple[Tensor, Tensor]:  # fmt: skip
    normed, total = add_norm.add_norm(hidden, residual, rotation, norm_weight, 1e-5, scale)
    return bimamba_fn(F.linear(normed, in_weight), *directions(weights), out_weight, backend="reference"), total


def directions(weights: dict[str, Tensor]) -> tuple[Direction, Direction]:
    parameters = tuple(weights.values())
    return Direction(*parameters[:7]), Direction(*parameters[7:])


@pytest.mark.parametrize("joint_bytes", [cpu_bimamba.JOINT_BYTES, 0])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"length": 1}, {"length": 70, "inner": 64, "states": 16}, {"residual": False, "rotated": False},
     {"dropped": True}],
    ids=str,
)  # fmt: skip
def test_values_and_gradients_in_float32(
    options: dict[str, Any], count: int, joint_bytes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cpu_bimamba, "JOINT_BYTES", joint_bytes)
    tensors = case(**options)
    assert cpu_block.takes(*(tensors[name] for name in ("hidden", "residual", "rotation", "in_weight")))
    with threads(count):
        actual = forward_backward(fused, tensors)
    assert_close(actual, forward_backward(plain, exact(tensors)), rtol=2e-5, dtype=False)


@pytest.mark.parametrize("dropped", [False, True])
def test_bfloat16_under_autocast(dropped: bool):
    tensors = case(length=70, inner=64, states=16, dropped=dropped)
    tensors["hidden"] = tensors["hidden"].detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = forward_backward(fused, tensors)
    assert actual["out"].dtype == torch.bfloat16
    assert actual["extra"].dtype == torch.float32
    assert all(actual[f"d{name}"].dtype == x.dtype for name, x in tensors.items() if f"d{name}" in actual)
    assert_close(actual, forward_backward(plain, exact(tensors)), rtol=6e-2, dtype=False)  # four roundings of 2^-8


def saved_sequences(tensors: dict[str, Any]) -> list[Tensor]:
    """The tensors as long as the sequence that a block keeps for the backward pass."""
    saved = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        fused(**tensors)
    return [x for x in saved if tensors["hidden"].shape[1] in x.shape]


def test_only_the_sum_and_the_rotation_are_kept():
    tensors = case(length=160, inner=64, states=16)
    rotation, total = torch.Size((1, 160, WIDTH)), torch.Size((2, 160, WIDTH))  # one rotation for all blocks
    assert {x.shape for x in saved_sequences(tensors)} == {rotation, total}
    assert len(saved_sequences(tensors)) == 2


def test_without_the_operator_the_parts_are_checkpointed(monkeypatch: pytest.MonkeyPatch):
    tensors = case(length=40)
    expected = forward_backward(fused, tensors)
    monkeypatch.setattr(dispatch.cpu_block, "takes", lambda *_: False)
    assert_close(forward_backward(fused, tensors), expected, rtol=1e-6)
    assert not saved_sequences(tensors)


def test_a_block_with_a_feed_forward_part_computes_it_when_recomputing():
    torch.manual_seed(0)
    mixer = BiMamba(WIDTH, 1, d_state=4, d_conv=4, expand=2)
    block, tokens = Block(WIDTH, mixer, 0.0, mlp_ratio=2.0), torch.randn(2, 9, WIDTH)
    for parts in zip(block(tokens, None, None), block(tokens, None, None, recompute=True)):
        torch.testing.assert_close(*parts)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
@pytest.mark.parametrize("options", [{}, {"residual": False, "rotated": False, "dropped": True}], ids=str)
def test_operator_keeps_pytorchs_contract(options: dict[str, Any]):
    hidden, residual, rotation, norm_weight, scale, in_weight, *mixer, out_weight = case(length=18, **options).values()
    weights = cpu_bimamba.stack_weights(Direction(*mixer[:7]), Direction(*mixer[7:]), out_weight, torch.float32)
    constants = cpu_add_norm.cos_sin(rotation), norm_weight, scale, in_weight
    torch.library.opcheck(torch.ops.mamba_mae.block.default, (hidden, residual, *constants, *weights, 1e-5))


def test_the_backend_is_logged_once(caplog: pytest.LogCaptureFixture):
    backends._log.cache_clear()
    caplog.set_level(logging.INFO, logger="ops.backends")
    for _ in range(2):
        fused(**case())
    assert [record.message for record in caplog.records] == ["bidirectional mixer on cpu: backend cpu"]


def test_the_next_call_does_not_change_results():
    assert_unchanged_by_others(fused, case(length=30), case(length=30, rotated=False))


def test_results_are_bit_identical():
    tensors = case(length=50, inner=80, states=16)
    assert_repeats(fused, tensors)


def test_under_torch_compile():
    tensors = case(length=20)
    compiled = torch.compile(lambda **t: fused(**t), backend="aot_eager", fullgraph=True)
    assert_close(forward_backward(compiled, tensors), forward_backward(fused, tensors), rtol=1e-6)


def test_other_precisions_take_the_parts():
    hidden, weight = torch.randn(1, 3, WIDTH), torch.randn(4, WIDTH)
    assert cpu_block.takes(hidden, None, None, weight)
    assert not cpu_block.takes(hidden.double(), None, None, weight.double())
    with torch.autocast("cpu", dtype=torch.float16):
        assert not cpu_block.takes(hidden, None, None, weight)
