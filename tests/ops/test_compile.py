"""Every public function of ops under torch.compile, torch.export and torch.func, with every backend of this machine."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import ops
from ops import Direction, available_backends
from tests.helpers.ops_cases import ScanCase, assert_close, conv_tensors, forward_backward, mixer_tensors, on_directions
from tests.helpers.ssd_cases import SSDCase

BACKENDS = available_backends()
TOKENS = 2  # few, because the reference unrolls the loop over tokens
IDS = torch.tensor([[1, 0, 3]])


class Call(NamedTuple):
    """A function of named tensors. `batched` names those that have a batch dimension."""

    run: Callable[..., Any]
    tensors: dict[str, Any]
    batched: tuple[str, ...]


def scan(dtype: torch.dtype, backend: Any) -> Call:
    run = partial(ops.selective_scan_fn, delta_softplus=True, backend=backend)
    return Call(run, ScanCase(length=TOKENS).tensors(dtype), ("u", "delta", "B", "C", "z"))


def grouped_scan(dtype: torch.dtype, backend: Any) -> Call:
    case = ScanCase(length=TOKENS, groups=2, bias=False, D=False)
    run = partial(ops.selective_scan_fn, delta_softplus=True, reverse=True, return_last_state=True, backend=backend)
    return Call(run, case.tensors(dtype), ("u", "delta", "B", "C", "z"))


def conv(dtype: torch.dtype, backend: Any) -> Call:
    run = partial(ops.causal_conv1d_fn, activation="silu", backend=backend)
    return Call(run, conv_tensors(TOKENS, 4, dim=5, dtype=dtype), ("x",))


def ssd_scan(dtype: torch.dtype, backend: Any) -> Call:
    run = partial(ops.ssd_scan_fn, dt_softplus=True, backend=backend)
    return Call(run, SSDCase(length=TOKENS, groups=2).tensors(dtype), ("x", "dt", "B", "C"))


def mixer(dtype: torch.dtype, backend: Any) -> Call:
    run = partial(on_directions(ops.bimamba_fn), backend=backend)
    return Call(run, mixer_tensors(length=TOKENS, dtype=dtype), ("xz",))


def forward_mixer(dtype: torch.dtype, backend: Any) -> Call:
    """A mixer of one direction, with gradients of all its weights."""
    xz, *weights = list(mixer_tensors(length=TOKENS, dtype=dtype).values())[:8]
    out_weight = torch.randn(5, weights[0].shape[0], dtype=dtype, requires_grad=True)
    tensors = {"xz": xz, **dict(zip(Direction._fields, weights)), "out_weight": out_weight}

    def run(xz: Tensor, out_weight: Tensor, **weights: Tensor) -> Tensor:
        return ops.mamba_fn(xz, Direction(**weights), out_weight, backend=backend)

    return Call(run, tensors, ("xz",))


def block(dtype: torch.dtype, backend: Any) -> Call:
    xz, *weights = mixer_tensors(length=TOKENS, dtype=dtype).values()
    weights = [x.detach() for x in weights]
    constants = Direction(*weights[:7]), Direction(*weights[7:14]), weights[14]
    tensors = {
        "hidden": torch.randn(2, TOKENS, 4, dtype=dtype),
        "norm_weight": torch.randn(4, dtype=dtype),
        "in_weight": torch.randn(xz.shape[2], 4, dtype=dtype),
    }

    def run(hidden: Tensor, norm_weight: Tensor, in_weight: Tensor) -> tuple[Tensor, Tensor]:
        weights = in_weight, *constants
        return ops.bimamba_block_fn(hidden, None, None, norm_weight, 1e-5, None, *weights, backend=backend)

    return Call(run, {name: x.requires_grad_() for name, x in tensors.items()}, ("hidden",))


def add_norm(dtype: torch.dtype) -> Call:
    hidden, residual = (torch.randn(2, TOKENS, 4, dtype=dtype, requires_grad=True) for _ in range(2))
    rotation = torch.polar(torch.ones(1, TOKENS, 2), torch.randn(1, TOKENS, 2))
    tensors = {"hidden": hidden, "residual": residual, "weight": torch.randn(4, dtype=dtype, requires_grad=True)}
    run = lambda hidden, residual, weight: ops.add_norm_fn(hidden, residual, rotation, weight, 1e-5)  # noqa: E731
    return Call(run, tensors, ("hidden", "residual"))


def patches(dtype: torch.dtype) -> Call:
    """Patches of a volume that requires a gradient, which the fused kernel does not compute."""
    volume = torch.randn(2, 2, 4, 4, 4, dtype=dtype, requires_grad=True)
    run = lambda volume: ops.gather_patches_fn(volume, IDS.expand(volume.shape[0], -1), 2)  # noqa: E731
    return Call(run, {"volume": volume}, ("volume",))


def embedded(dtype: torch.dtype) -> Call:
    volume, weight = torch.randn(2, 2, 4, 4, 4, dtype=dtype), torch.randn(5, 16, dtype=dtype, requires_grad=True)
    run = lambda volume, weight: ops.gather_patches_fn(volume, None, 2).to(weight.dtype) @ weight.T  # noqa: E731
    return Call(run, {"volume": volume, "weight": weight}, ("volume",))


def patch_error(dtype: torch.dtype) -> Call:
    tensors = {"pred": torch.randn(2, 3, 16, dtype=dtype).requires_grad_(), "volume": torch.randn(2, 2, 4, 4, 4)}
    run = lambda pred, volume: ops.patch_error_fn(pred, volume, IDS.expand(pred.shape[0], -1), 2, True)  # noqa: E731
    return Call(run, tensors, ("pred", "volume"))


def linear_error(dtype: torch.dtype) -> Call:
    shapes = {"hidden": (2, 3, 5), "weight": (16, 5), "bias": (16,)}
    tensors = {name: torch.randn(shape, dtype=dtype).requires_grad_() for name, shape in shapes.items()}

    def run(hidden: Tensor, weight: Tensor, bias: Tensor, volume: Tensor) -> Tensor:
        return ops.linear_patch_error_fn(hidden, weight, bias, volume, IDS.expand(hidden.shape[0], -1), 2)

    return Call(run, {**tensors, "volume": torch.randn(2, 2, 4, 4, 4)}, ("hidden", "volume"))


def resampled(dtype: torch.dtype) -> Call:
    back = torch.eye(3, 4) + 0.1 * torch.randn(3, 4)
    tensors = {"volume": torch.randn(2, 2, 4, 4, 4, dtype=dtype), "factor": torch.ones((), requires_grad=True)}
    run = lambda volume, factor: factor * ops.resample_affine_fn(volume, back.expand(volume.shape[0], 3, 4))  # noqa: E731
    return Call(run, tensors, ("volume",))


def moments(dtype: torch.dtype) -> Call:
    rows = torch.randn(2, 3, 16, dtype=dtype, requires_grad=True)
    return Call(lambda rows: torch.cat(ops.patch_moments(rows), dim=-1), {"rows": rows}, ("rows",))


BY_BACKEND = [scan, grouped_scan, conv, ssd_scan, mixer]
MIXED = ("auto", "reference")  # backends of forward_mixer; its parts are tested with every backend
OTHERS = [add_norm, patches, embedded, patch_error, linear_error, resampled, moments]
CALLS = {
    f"{make.__name__}-{name}": partial(make, backend=name)
    for make in BY_BACKEND
    for name in ("auto", *BACKENDS, "portable")
}
CALLS |= {f"forward_mixer-{name}": partial(forward_mixer, backend=name) for name in MIXED}
CALLS |= {
    f"block-{name}": partial(block, backend=name) for name in BACKENDS if name != "reference"
}  # the reference runs the parts tested above
CALLS |= {make.__name__: make for make in OTHERS}


def test_no_public_function_is_left_out():
    functions = set(ops.__all__) - {"Backend", "Direction", "available_backends", "portable_operators"}
    source = Path(__file__).read_text(encoding="utf-8")
    assert {name for name in functions if f"ops.{name}" not in source} == set()


def precisions(name: str) -> list[torch.dtype]:
    """float32 has the most kernels. Other precisions are tested with "auto" only."""
    return [torch.float32, torch.float64, torch.float16] if name in ("scan-auto", "ssd_scan-auto") else [torch.float32]


CASES = [(name, dtype) for name in CALLS for dtype in precisions(name)]


def of_batch(call: Call, count: int) -> dict[str, Any]:
    """The call's tensors for `count` samples, as fresh leaves with the same memory layout."""

    def resized(x: Tensor) -> Tensor:
        taken = x.detach()[torch.arange(count) % len(x)]
        return torch.empty_strided(taken.shape, _strides(x, count), dtype=x.dtype).copy_(taken)

    tensors = {name: resized(x) if name in call.batched and x is not None else x for name, x in call.tensors.items()}
    return {
        name: x if x is None else x.detach().requires_grad_(call.tensors[name].requires_grad)
        for name, x in tensors.items()
    }


def _strides(x: Tensor, count: int) -> tuple[int, ...]:
    """Dense memory in the order of x's dimensions."""
    order = sorted(range(x.dim()), key=x.stride)
    sizes, strides, step = (count, *x.shape[1:]), [0] * x.dim(), 1
    for axis in order:
        strides[axis], step = step, step * sizes[axis]
    return tuple(strides)


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=str)
def test_compiled_training_with_any_batch(name: str, dtype: torch.dtype):
    call = CALLS[name](dtype)
    torch._dynamo.reset()
    compiled = torch.compile(lambda **tensors: call.run(**tensors), backend="aot_eager", fullgraph=True)
    for count in (2, 3):
        tensors = of_batch(call, count)
        for which in call.batched:
            if tensors[which] is not None:
                torch._dynamo.mark_dynamic(tensors[which], 0)
        rtol = 2e-3 if dtype == torch.float16 else 1e-5
        assert_close(forward_backward(compiled, tensors), forward_backward(call.run, of_batch(call, count)), rtol=rtol)


class Module(nn.Module):
    def __init__(self, call: Call) -> None:
        super().__init__()
        self.run, self.names = call.run, list(call.tensors)

    def forward(self, *tensors: Tensor | None) -> Any:
        return self.run(**dict(zip(self.names, tensors)))


@pytest.mark.parametrize("name", CALLS)
def test_exported_saved_and_loaded_with_any_batch(name: str, tmp_path):
    """Half of the cases use strict export, by the length of their name. Gradients go through the loaded program."""
    call = CALLS[name](torch.float32)
    shapes = tuple(
        {0: Dim("batch")} if which in call.batched and x is not None else None for which, x in call.tensors.items()
    )
    tensors = tuple(of_batch(call, 2).values())
    program = torch.export.export(Module(call), tensors, dynamic_shapes=(shapes,), strict=len(name) % 2 == 0)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2").module()
    tensors = of_batch(call, 3)
    actual = forward_backward(lambda **tensors: _first(loaded(*tensors.values())), tensors)
    assert_close(actual, forward_backward(lambda **tensors: _first(call.run(**tensors)), of_batch(call, 3)), rtol=1e-5)


def _first(outputs: Any) -> Tensor:
    return outputs[0] if isinstance(outputs, tuple | list) else outputs


@pytest.mark.parametrize("name", CALLS)
def test_gradients_of_each_sample_by_torch_func(name: str):
    """vmap of grad against the gradients of one sample at a time."""
    call = CALLS[name](torch.float32)
    given = {which: x.detach() for which, x in of_batch(call, 3).items() if x is not None}
    learned = {which for which in given if call.tensors[which].requires_grad}
    differentiated = learned - set(call.batched) or learned
    dims = {which: 0 if which in call.batched else None for which in given}

    def loss(moving: dict[str, Tensor], fixed: dict[str, Tensor]) -> Tensor:
        known = {which: x if dims[which] is None else x.unsqueeze(0) for which, x in {**moving, **fixed}.items()}
        return _first(call.run(**{which: known.get(which) for which in call.tensors})).square().sum()

    def parts(of: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return {which: of[which] for which in differentiated}, {
            which: of[which] for which in given if which not in differentiated
        }

    actual = torch.vmap(torch.func.grad(loss), in_dims=parts(dims))(*parts(given))
    for i in range(3):
        moving, fixed = parts({which: x if dims[which] is None else x[i] for which, x in given.items()})
        moving = {which: x.clone().requires_grad_() for which, x in moving.items()}
        gradients = torch.autograd.grad(loss(moving, fixed), list(moving.values()))
        for which, gradient in zip(moving, gradients):
            torch.testing.assert_close(actual[which][i], gradient, rtol=1e-4, atol=1e-4)
