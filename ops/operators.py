"""Registration of our kernels with PyTorch, as torch.ops.mamba_mae.NAME: shapes for tracing, gradients, vmap."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.function import _SingleLevelFunction

KEEP = "keep"  # the last argument of an operator that can keep what its backward pass needs; callers pass False
ANY_DEVICE = "CompositeExplicitAutograd"
_library = torch.library.Library("mamba_mae", "DEF")


def register(schema: str, kernel: Callable[..., Any], shapes: Callable[..., Any], *, device: str = "CPU") -> None:
    """Define the operator of `schema` by a kernel for `device`, or for ANY_DEVICE.

    `shapes` takes the kernel's arguments and makes empty outputs of the same sizes and strides. vmap calls the kernel
    for one sample after another.
    """
    name = schema.split("(")[0]
    _library.define(schema)
    _library.impl(name, kernel, device)
    qualified = f"mamba_mae::{name}"
    torch.library.register_fake(qualified, shapes, lib=_library)
    operator = getattr(torch.ops.mamba_mae, name)
    torch.library.register_vmap(qualified, lambda *call: _vmap(operator, *call), lib=_library)


def _vmap(operator: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
    """torch.vmap's rule: `in_dims` says along which dimension each input holds the samples, None for a constant."""

    def run_sample(sample: int) -> Any:
        return operator(*(x if dim is None else x.select(dim, sample) for x, dim in zip(inputs, in_dims)))

    outputs = [run_sample(sample) for sample in range(info.batch_size)]
    if isinstance(outputs[0], Tensor):
        return torch.stack(outputs), 0
    return tuple(map(torch.stack, zip(*outputs))), (0,) * len(outputs[0])


def differentiate(name: str, backward: Callable[..., Any], save: Callable[..., None]) -> None:
    """Give an operator its gradient; `save` keeps what `backward` needs. NAME_backward is not differentiable again.

    If the operator has an argument `keep`, it becomes True where a gradient is wanted. Only the autograd kernel knows
    that: it runs below torch.func's transforms, and when an exported program runs.
    torch.library.register_autograd does the same, but its checks take 0.1 ms per call, and torch.func.grad does not
    work with it.
    """

    def refuse(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(f'second derivatives of mamba_mae::{name} are not implemented: use backend="reference"')

    _implement_autograd(name, backward, save)
    _implement_autograd(f"{name}_backward", refuse, lambda ctx, inputs, output: None)


def _implement_autograd(name: str, backward: Callable[..., Any], save: Callable[..., None]) -> None:
    operator = getattr(torch.ops.mamba_mae, name).default
    can_keep = operator._schema.arguments[-1].name == KEEP

    def without_gradient(*inputs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator(*inputs)

    def gradients(ctx: Any, *grads: Tensor | None) -> Any:
        if all(grad is None for grad in grads):  # nothing depends on the result
            return (None,) * len(operator._schema.arguments)
        return backward(ctx, *grads)

    # An autograd kernel sees one level of torch.func's transforms at a time.
    methods = {"forward": without_gradient, "setup_context": save, "backward": gradients}
    methods = {method: staticmethod(run) for method, run in methods.items()}
    function: Any = type(f"mamba_mae_{name}", (_SingleLevelFunction,), methods)

    def run(*inputs: Any) -> Any:
        if not _wants_gradient(inputs):
            return without_gradient(*inputs)
        inputs = (*inputs[:-1], True) if can_keep else inputs
        if not torch._C._are_functorch_transforms_active():
            return function.apply(*inputs)
        with enable_single_level_autograd_function():
            return function.apply(*inputs)

    _library.impl(name, run, "Autograd")


def _wants_gradient(inputs: tuple[Any, ...]) -> bool:
    """Whether a backward pass may follow a call with these arguments."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)


def empty_rows(x: Tensor) -> Tensor:
    """An uninitialised (B, I, L) view of channel-last memory."""
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1]).transpose(1, 2)


def empty_columns(x: Tensor) -> Tensor:
    """An uninitialised tensor with the shape of B or C, (B, N, L) or (B, G, N, L). The N states and the groups of one
    position lie side by side in memory."""
    batch, *inner, length = x.shape
    return x.new_empty(batch, length, *inner).movedim(1, -1)


def empty_or_nothing(x: Tensor | None, like: Tensor) -> Tensor:
    """An uninitialised gradient of an optional argument. It has no element where x is None, because operators return
    tensors only."""
    return like.new_empty(0) if x is None else x.new_empty(x.shape)


@contextmanager
def autograd_in_kernel() -> Iterator[None]:
    """Record operations inside a kernel that differentiates by autograd. PyTorch runs kernels below autograd."""
    keys = torch._C.DispatchKey
    with (
        torch._C._SetExcludeDispatchKeyGuard(keys.AutogradFunctionality, False),
        torch._C._SetExcludeDispatchKeyGuard(keys.ADInplaceOrView, False),
        torch.enable_grad(),
    ):
        yield
