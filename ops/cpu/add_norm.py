"""torch.ops.mamba_mae.add_norm: the fused add, rotation and norm of ops/cpu/csrc/add_norm.cpp and its gradient.

The sum is float32, and the backward pass needs nothing else. The normalised rows have the autocast precision, so that
the projection after them needs no copy. Shapes: B batch, L tokens, E width.
"""

from ctypes import byref
from typing import Any

import torch
from torch import Tensor

from ops.cpu import backend as cpu
from ops.cpu import library as cpu_library
from ops.cpu.library import AddNorm, pointer
from ops.operators import differentiate, register


def takes(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None) -> bool:
    """Whether the kernel computes this sum."""
    is_float32 = residual is None or residual.dtype == torch.float32
    is_constant = rotation is None or (rotation.dtype == torch.complex64 and not rotation.requires_grad)
    return is_float32 and is_constant and cpu.unavailable(hidden) is None


def add_norm(
    hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, weight: Tensor, eps: float, scale: Tensor | None
) -> tuple[Tensor, Tensor]:
    """`ops.add_norm_fn` for what `takes` accepts."""
    half = cpu.wants_bfloat16() or weight.dtype == torch.bfloat16
    return torch.ops.mamba_mae.add_norm(hidden, residual, cos_sin(rotation), weight, scale, eps, half)


def cos_sin(rotation: Tensor | None) -> Tensor | None:
    """(B or 1, L, E/2) complex -> (B or 1, L, E): cosine and sine of each channel pair, as the kernel reads them."""
    return None if rotation is None else torch.view_as_real(rotation).flatten(-2)


class _Call:
    """One call of the kernel: its arguments in the kernel's layout, which live as long as this object."""

    def __init__(
        self, total: Tensor, rotation: Tensor | None, weight: Tensor, scale: Tensor | None, eps: float
    ) -> None:
        self.batch, length, width = total.shape
        self.threads = torch.get_num_threads()
        self._alive: list[Any] = []
        self.arguments = AddNorm(
            batch=self.batch, length=length, width=width, threads=self.threads, eps=eps,
            rotation_batch=0 if rotation is None or rotation.shape[0] == 1 else length,
        )  # fmt: skip
        self.point_to(total=total, rotation=rotation, weight=weight, scale=scale)

    def point_to(self, **tensors: Tensor | None) -> None:
        """Point at tensors. `hidden` and `normed` keep their precision; the others become float32."""
        for name, x in tensors.items():
            x = None if x is None else x.contiguous() if name in ("hidden", "normed") else x.float().contiguous()
            self._alive.append(x)
            setattr(self.arguments, name, pointer(x))
            if name in ("hidden", "normed"):
                setattr(self.arguments, f"bfloat16_{name}", x is not None and x.dtype == torch.bfloat16)


def forward(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, weight: Tensor, scale: Tensor | None,
            eps: float, half: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(normed, total): the operator add_norm."""
    normed, total = forward_shapes(hidden, residual, rotation, weight, scale, eps, half)
    fill(normed, total, hidden, residual, rotation, weight, scale, eps)
    return normed, total


def fill(normed: Tensor, total: Tensor, hidden: Tensor, residual: Tensor | None, rotation: Tensor | None,
         weight: Tensor, scale: Tensor | None, eps: float) -> None:  # fmt: skip
    """`forward` into existing tensors."""
    call = _Call(total, rotation, weight, scale, eps)
    call.point_to(hidden=hidden, residual=residual, normed=normed)
    cpu_library.library().add_norm_forward(byref(call.arguments))


def fill_normed(normed: Tensor, total: Tensor, weight: Tensor, eps: float) -> None:
    """Compute `normed` again from `total`."""
    fill(normed, total, total, None, None, weight, None, eps)  # the kernel does not write a total that is its input


def backward(dnormed: Tensor, dtotal: Tensor, total: Tensor, rotation: Tensor | None, weight: Tensor,
             scale: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of residual, of hidden (empty if it is the same) and of weight: the operator add_norm_backward."""
    dresidual, dhidden, _ = backward_shapes(dnormed, dtotal, total, rotation, weight, scale, eps, dtype)
    call = _Call(total, rotation, weight, scale, eps)
    dweight = total.new_zeros(call.threads, total.shape[2])
    call.point_to(normed=dnormed, dtotal=dtotal, dresidual=dresidual, dweight=dweight)
    if dhidden.numel():
        call.point_to(hidden=dhidden)
    cpu_library.library().add_norm_backward(byref(call.arguments))
    return dresidual, dhidden, dweight.sum(0).to(weight.dtype)


def forward_shapes(hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, weight: Tensor,
                     scale: Tensor | None, eps: float, half: bool) -> tuple[Tensor, Tensor]:  # fmt: skip
    normed = hidden.new_empty(hidden.shape, dtype=torch.bfloat16 if half else torch.float32)
    return normed, hidden.new_empty(hidden.shape, dtype=torch.float32)


def backward_shapes(dnormed: Tensor, dtotal: Tensor, total: Tensor, rotation: Tensor | None, weight: Tensor,
                     scale: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, ...]:  # fmt: skip
    differs = scale is not None or dtype != torch.float32
    dhidden = total.new_empty(total.shape if differs else 0, dtype=dtype)
    return total.new_empty(total.shape), dhidden, weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden, residual, rotation, weight, scale, ctx.eps, _ = inputs
    ctx.dtype, ctx.has_residual = hidden.dtype, residual is not None
    ctx.save_for_backward(output[1], rotation, weight, scale)


def _gradients(ctx: Any, dnormed: Tensor, dtotal: Tensor) -> tuple[Tensor | None, ...]:
    run = torch.ops.mamba_mae.add_norm_backward
    dresidual, dhidden, dweight = run(dnormed, dtotal, *ctx.saved_tensors, ctx.eps, ctx.dtype)
    return *summand_gradients(dresidual, dhidden, ctx.has_residual), None, dweight, None, None, None


def summand_gradients(dresidual: Tensor, dhidden: Tensor, has_residual: bool) -> tuple[Tensor, Tensor | None]:
    """Gradients of hidden and of residual, from what `backward` returns."""
    differs = dhidden.shape == dresidual.shape
    return dhidden if differs else dresidual, dresidual if has_residual else None


register(
    "add_norm(Tensor hidden, Tensor? residual, Tensor? rotation, Tensor weight, Tensor? scale, float eps, bool half)"
    " -> (Tensor, Tensor)",
    forward,
    forward_shapes,
)
register(
    "add_norm_backward(Tensor dnormed, Tensor dtotal, Tensor total, Tensor? rotation, Tensor weight, Tensor? scale,"
    " float eps, ScalarType dtype) -> (Tensor, Tensor, Tensor)",
    backward,
    backward_shapes,
)
differentiate("add_norm", _gradients, _save)
