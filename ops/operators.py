"""Registration of our kernels with PyTorch, as torch.ops.mamba_mae.NAME: shapes for tracing, and gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_library = torch.library.Library("mamba_mae", "DEF")


def register(schema: str, kernel: Callable[..., Any], shapes: Callable[..., Any]) -> None:
    """Define the operator of `schema` by a CPU kernel; `shapes` makes empty outputs of the same sizes and strides."""
    name = schema.split("(")[0]
    _library.define(schema)
    _library.impl(name, kernel, "CPU")
    torch.library.register_fake(f"mamba_mae::{name}", shapes, lib=_library)


def differentiate(name: str, backward: Callable[..., Any], save: Callable[..., None]) -> None:
    """Give an operator its gradient; `save` keeps what `backward` needs. NAME_backward is not differentiable again.

    What torch.library.register_autograd does, without its checks of every call, which take 0.1 ms each.
    """

    def refuse(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(f'second derivatives of mamba_mae::{name} are not implemented: use backend="reference"')

    _implement_autograd(name, backward, save)
    _implement_autograd(f"{name}_backward", refuse, lambda ctx, inputs, output: None)


def _implement_autograd(name: str, backward: Callable[..., Any], save: Callable[..., None]) -> None:
    operator = getattr(torch.ops.mamba_mae, name).default

    def without_gradient(*inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*inputs)

    def forward(ctx: Any, *inputs: Any) -> Any:
        output = without_gradient(*inputs)
        save(ctx, inputs, output)
        return output

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function = type(f"mamba_mae_{name}", (torch.autograd.Function,), methods)

    def run(*inputs: Any) -> Any:
        is_wanted = wants_gradient(*(x for x in inputs if isinstance(x, Tensor)))
        return function.apply(*inputs) if is_wanted else without_gradient(*inputs)

    _library.impl(name, run, "Autograd")


def wants_gradient(*tensors: Tensor | None) -> bool:
    """Whether a backward pass may follow a call with these arguments, and what it needs is worth keeping."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def empty_rows(x: Tensor) -> Tensor:
    """An uninitialised (B, I, L) view of channel-last memory."""
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1]).transpose(1, 2)


def empty_or_nothing(x: Tensor | None, like: Tensor) -> Tensor:
    """The place of the gradient of an optional argument: operators return tensors only."""
    return like.new_empty(0) if x is None else x.new_empty(x.shape)
