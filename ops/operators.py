"""Registration of our kernels with PyTorch, as torch.ops.mamba_mae.NAME: shapes for tracing, gradients, vmap."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd.function import _SingleLevelFunction

from ops.reference.scan import without_autocast

KEEP = "keep"  # last argument of operators that can keep what their backward pass needs; callers pass False
ANY_DEVICE = "CompositeExplicitAutograd"
_library = torch.library.Library("mamba_mae", "DEF")


def register(schema: str, kernel: Callable[..., Any], shapes: Callable[..., Any], *, device: str = "CPU") -> None:
    """Define the operator of `schema` by a kernel for `device`, or for ANY_DEVICE; `shapes` makes empty outputs of the
    same sizes and strides. vmap calls the kernel for one sample after another."""
    name = schema.split("(")[0]
    _library.define(schema)
    _library.impl(name, kernel, device)
    qualified = f"mamba_mae::{name}"
    torch.library.register_fake(qualified, shapes, lib=_library)
    operator = getattr(torch.ops.mamba_mae, name)
    torch.library.register_vmap(qualified, lambda *call: _one_by_one(operator, *call), lib=_library)


def _one_by_one(operator: Callable[..., Any], info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> Any:
    """torch.vmap's rule: `in_dims` says along which dimension each input holds the samples, None for a constant."""

    def results(sample: int) -> Any:
        return operator(*(x if at is None else x.select(at, sample) for x, at in zip(inputs, in_dims)))

    made = [results(sample) for sample in range(info.batch_size)]
    if isinstance(made[0], Tensor):
        return torch.stack(made), 0
    return tuple(map(torch.stack, zip(*made))), (0,) * len(made[0])


def differentiate(name: str, backward: Callable[..., Any], save: Callable[..., None]) -> None:
    """Give an operator its gradient; `save` keeps what `backward` needs. NAME_backward is not differentiable again.

    Where a gradient is wanted, the operator's `keep` becomes True: known only here, below torch.func's transforms and
    when an exported program runs. What torch.library.register_autograd does, without its checks of every call, which
    take 0.1 ms each, and for torch.func.grad too.
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
        if all(grad is None for grad in grads):  # a result that nothing depends on
            return (None,) * len(operator._schema.arguments)
        return backward(ctx, *grads)

    # one level of torch.func's transforms at a time is what an autograd kernel sees
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
    """Whether a backward pass may follow a call with these arguments, and what it needs is worth keeping."""
    return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)


def empty_rows(x: Tensor) -> Tensor:
    """An uninitialised (B, I, L) view of channel-last memory."""
    return x.new_empty(x.shape[0], x.shape[2], x.shape[1]).transpose(1, 2)


def empty_columns(x: Tensor) -> Tensor:
    """An uninitialised tensor shaped like B or C, (B, N, L) or (B, G, N, L), of memory where a position's N numbers
    (and groups) are neighbours."""
    batch, *inner, length = x.shape
    return x.new_empty(batch, length, *inner).movedim(1, -1)


def below_autocast(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel` where the precision of every product is that of its operands."""

    @functools.wraps(kernel)
    def run(first: Tensor, *others: Any) -> Any:
        with without_autocast(first):
            return kernel(first, *others)

    return run


@contextmanager
def autograd_in_kernel() -> Iterator[None]:
    """Operations are recorded again, for a kernel that differentiates by autograd: PyTorch calls it below autograd."""
    keys = torch._C.DispatchKey
    with (
        torch._C._SetExcludeDispatchKeyGuard(keys.AutogradFunctionality, False),
        torch._C._SetExcludeDispatchKeyGuard(keys.ADInplaceOrView, False),
        torch.enable_grad(),
    ):
        yield


def empty_or_nothing(x: Tensor | None, like: Tensor) -> Tensor:
    """The place of the gradient of an optional argument: operators return tensors only."""
    return like.new_empty(0) if x is None else x.new_empty(x.shape)
