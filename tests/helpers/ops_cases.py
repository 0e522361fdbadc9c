"""Arguments, gradients and comparisons shared by the tests of the scan and convolution backends."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ops import Direction, causal_conv1d_fn, selective_scan_fn
from ops.cpu import library as cpu_library

reference_scan = partial(selective_scan_fn, backend="reference")
reference_conv = partial(causal_conv1d_fn, backend="reference")


@dataclass(frozen=True)
class ScanCase:
    """Sizes and options of one scan; groups 0 means B and C of shape (batch, states, length)."""

    batch: int = 2
    dim: int = 6
    length: int = 9
    states: int = 3
    groups: int = 0
    constant_B: bool = False
    constant_C: bool = False
    D: bool = True
    z: bool = True
    bias: bool = True
    softplus: bool = True
    reverse: bool = False
    delta_scale: float = 1.0
    A_scale: float = 1.0

    def tensors(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Any]:
        """Leaf tensors that require gradients; sequences are transposed views of channel-last memory."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        def sequence() -> Tensor:
            return normal(self.batch, self.length, self.dim).transpose(1, 2)

        def matrix(constant: bool) -> Tensor:
            if constant:
                return normal(self.dim, self.states)
            x = normal(self.batch, self.length, max(self.groups, 1), self.states).permute(0, 2, 3, 1)
            return x if self.groups else x[:, 0]

        delta = sequence() * self.delta_scale
        tensors = {
            "u": sequence(),
            "delta": delta if self.softplus else delta.abs(),
            "A": -self.A_scale * (normal(self.dim, self.states).abs() + 0.1),
            "B": matrix(self.constant_B),
            "C": matrix(self.constant_C),
            "D": normal(self.dim) if self.D else None,
            "z": sequence() if self.z else None,
            "delta_bias": (normal(self.dim) if self.softplus else normal(self.dim).abs()) if self.bias else None,
        }
        return {name: x if x is None else x.requires_grad_() for name, x in tensors.items()}


SCAN_CASES = [
    ScanCase(),
    ScanCase(reverse=True),
    ScanCase(batch=1, length=1),
    ScanCase(length=2, states=1, reverse=True),
    ScanCase(length=257, dim=5, states=16),
    ScanCase(length=129, dim=19, states=16, reverse=True, batch=1),
    ScanCase(length=64, dim=32, states=16),
    ScanCase(groups=1, states=16),
    ScanCase(groups=3, length=70),
    ScanCase(groups=6, length=5, reverse=True),
    ScanCase(constant_B=True, length=67),
    ScanCase(constant_C=True, length=67, reverse=True),
    ScanCase(constant_B=True, constant_C=True),
    ScanCase(constant_B=True, groups=2, reverse=True),
    ScanCase(D=False, z=False, bias=False, softplus=False),
    ScanCase(D=False, length=33),
    ScanCase(z=False, length=33, reverse=True),
    ScanCase(bias=False),
    ScanCase(softplus=False),
    ScanCase(batch=0),
    ScanCase(length=80, delta_scale=30.0, A_scale=20.0),
    ScanCase(length=80, A_scale=1e-6),
    ScanCase(length=21, states=17, dim=33),
    ScanCase(length=21, states=64, dim=17),
]


def forward_backward(run: Callable[..., Any], tensors: dict[str, Any], **options: Any) -> dict[str, Tensor]:
    """Outputs of run(**tensors, **options) and the gradient of every tensor for a fixed random cotangent."""
    outputs = run(**tensors, **options)
    named = dict(zip(("out", "extra"), outputs if isinstance(outputs, tuple) else (outputs,)))
    leaves = {name: x for name, x in tensors.items() if isinstance(x, Tensor) and x.requires_grad}
    differentiable = [x for x in named.values() if x.requires_grad]
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in differentiable]
    gradients = torch.autograd.grad(differentiable, list(leaves.values()), cotangents)
    return {**named, **{f"d{name}": g for name, g in zip(leaves, gradients)}}


def assert_close(actual: dict[str, Tensor], expected: dict[str, Tensor], rtol: float, dtype: bool = True) -> None:
    """Every tensor differs by at most rtol times its largest expected value. Small entries of gradients are sums that
    cancel, so they have no relative precision of their own."""
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        scale = wanted.abs().max().item() if wanted.numel() else 0.0
        message = f"{name}: {{}}".format
        torch.testing.assert_close(
            actual[name], wanted, rtol=0, atol=rtol * max(scale, 1e-30), check_dtype=dtype, msg=message
        )


def exact(tensors: dict[str, Any]) -> dict[str, Any]:
    """The same leaf tensors in float64 or complex128. Constants stay constants."""

    def doubled(x: Tensor) -> Tensor:
        return x.detach().to(torch.promote_types(x.dtype, torch.float64)).requires_grad_(x.requires_grad)

    return {name: x if x is None else doubled(x) for name, x in tensors.items()}


def assert_repeats(run: Callable[..., Any], tensors: dict[str, Any], times: int = 20, **options: Any) -> None:
    """Outputs and gradients of further calls are those of the first, bit for bit."""
    first = forward_backward(run, tensors, **options)
    for _ in range(times):
        again = forward_backward(run, tensors, **options)
        assert all(torch.equal(first[name], again[name]) for name in first)


def assert_unchanged_by_others(run: Callable[..., Any], tensors: dict[str, Any], others: dict[str, Any]) -> None:
    """Outputs and gradients do not change when the same function is called with `others`."""
    results = forward_backward(run, tensors)
    copies = {name: x.clone() for name, x in results.items()}
    assert not torch.equal(forward_backward(run, others)["out"], copies["out"])
    assert all(torch.equal(results[name], copies[name]) for name in results)


def conv_tensors(length: int, width: int, dim: int = 37, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Leaf tensors of one causal convolution; x is a transposed view of channel-last memory."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, length, dim, generator=generator).to(dtype).transpose(1, 2)
    weight, bias = torch.randn(dim, width, generator=generator), torch.randn(dim, generator=generator)
    return {"x": x.requires_grad_(), "weight": weight.requires_grad_(), "bias": bias.requires_grad_()}


def require_kernels() -> None:
    """Skip the test if there is no compiler. A compiler that fails is a failure."""
    problem = cpu_library.problem()
    if problem and "no C++ compiler found" in problem:
        pytest.skip(problem)
    assert problem is None, problem


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def mixer_tensors(batch: int = 2, length: int = 9, inner: int = 6, states: int = 3, width: int = 4,
                  dtype: torch.dtype = torch.float32) -> dict[str, Any]:  # fmt: skip
    """Leaf tensors of a bidirectional mixer's inner part, in the order of its arguments. The directions differ."""
    generator, rank, embed = torch.Generator().manual_seed(0), 2, 5

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tensors = {"xz": normal(batch, length, 2 * inner)}
    for suffix in ("", "_b"):
        tensors |= {
            f"conv_weight{suffix}": normal(inner, width),
            f"conv_bias{suffix}": normal(inner),
            f"x_proj{suffix}": normal(rank + 2 * states, inner) / inner**0.5,
            f"dt_proj{suffix}": normal(inner, rank),
            f"dt_bias{suffix}": normal(inner) - 2,
            f"A{suffix}": -normal(inner, states).abs() - 0.1,
            f"D{suffix}": normal(inner),
        }
    tensors["out_weight"] = normal(embed, inner)
    return {name: x.requires_grad_() for name, x in tensors.items()}


def on_directions(mix: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`mix(xz, forward, backward, out_weight)` as a function of the tensors of `mixer_tensors`."""

    def run(*, backend: str | None = None, **tensors: Tensor) -> Tensor:
        xz, *parameters, out_weight = tensors.values()
        options = {} if backend is None else {"backend": backend}
        return mix(xz, Direction(*parameters[:7]), Direction(*parameters[7:]), out_weight, **options)

    return run
