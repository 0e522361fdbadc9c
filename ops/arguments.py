"""The arguments of each scan and of the convolution: one structure for all backends, checked once by ops/dispatch.py.

A backend's function takes such a structure and trusts it. Errors say what to change.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS = (None, "silu", "swish")
STATES_OR_INDEX = "seq_idx excludes initial_states and return_final_states, as in causal_conv1d"
# The first arguments of every backend's registered operator, in the order of ScanInputs and SSDInputs.
SCAN_TENSORS = "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias"
SSD_TENSORS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? dt_bias"


MOST_BYTES = 2**62
"""The largest product of sizes, in bytes of float64, that the kernels' 64-bit offsets hold with room to spare."""


def check_size(name: str, *sizes: int) -> None:
    """Raise ValueError if an array of these sizes has no 64-bit offsets. Traced sizes are not numbers and pass."""
    if torch.compiler.is_compiling():
        return
    count = 8
    for size in sizes:
        count *= size
    if count > MOST_BYTES:
        raise ValueError(f"{name} is too large: {' x '.join(map(str, sizes))} values exceed 64-bit offsets")


def require_tensors(**values: Tensor) -> None:
    """Raise ValueError unless every value is a tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor, got {type(value).__name__}")


def check_devices(first: Tensor, **others: Tensor | None) -> None:
    """Raise ValueError unless all values but None are tensors on the device of the first one."""
    for name, value in others.items():
        if value is None:
            continue
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor or None, got {type(value).__name__}")
        if value.device != first.device:
            raise ValueError(f"{name} is on {value.device}, the first argument on {first.device}: move it there")


def _is_leaf_of_a_gradient(x: Tensor) -> bool:
    """Whether x, or what it is a view of, requires a gradient and cannot be written to."""
    base = x if x._base is None else x._base
    return base.requires_grad and base.is_leaf


def shares_elements(x: Tensor) -> bool:
    """Whether two elements of x may lie at the same place in memory."""
    reach = 0
    for stride, size in sorted(zip(x.stride(), x.shape)):
        if size > 1 and stride <= reach:
            return x.numel() > 0
        reach += stride * (size - 1)
    return False


class ScanInputs(NamedTuple):
    """Arguments of a selective scan, with the shapes of `ops.selective_scan_fn`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    z: Tensor | None = None
    delta_bias: Tensor | None = None
    delta_softplus: bool = False
    reverse: bool = False

    def groups(self) -> int:
        """Number of channel groups that share one B_t or C_t; channel i belongs to group i // (dim / groups)."""
        return max((matrix.shape[1] for matrix in (self.B, self.C) if matrix.dim() == 4), default=1)

    def has_constant_matrix(self) -> bool:
        """Whether B or C is the same at every position. Mamba's never are."""
        return self.B.dim() == 2 or self.C.dim() == 2

    def check(self) -> None:
        """Raise ValueError unless the shapes fit together."""
        u, delta, A, B, C, D, z, delta_bias, _, _ = self
        require_tensors(u=u, delta=delta, A=A, B=B, C=C)
        check_devices(u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
        if u.dim() != 3 or not u.is_floating_point():
            raise ValueError(f"u must be a real tensor (batch, dim, length), got {u.dtype} {tuple(u.shape)}")
        if A.is_complex() or B.is_complex() or C.is_complex():
            raise ValueError("complex A, B or C is not supported: Mamba's state matrix is real, pass A = -exp(A_log)")
        for name, value in (("delta", delta), ("D", D), ("z", z), ("delta_bias", delta_bias)):
            if value is not None and value.is_complex():
                raise ValueError(f"{name} must be real, got {value.dtype}")
        batch, dim, length = u.shape
        if A.dim() != 2 or A.shape[0] != dim or not A.shape[1]:
            raise ValueError(
                f"A must be (dim, states) with dim {dim} as in u and at least one state, got {tuple(A.shape)}"
            )
        for name, value in (("delta", delta), ("z", z)):
            if value is not None and value.shape != u.shape:
                raise ValueError(f"{name} must have the shape of u {tuple(u.shape)}, got {tuple(value.shape)}")
        for name, value in (("D", D), ("delta_bias", delta_bias)):
            if value is not None and value.shape != (dim,):
                raise ValueError(f"{name} must be (dim,) = ({dim},), got {tuple(value.shape)}")
        states = A.shape[1]
        check_size("u x states", batch, dim, length, states)
        for name, value in (("B", B), ("C", C)):
            grouped = value.dim() == 4 and value.shape[1] > 0 and dim % value.shape[1] == 0
            expected = {2: (dim, states), 3: (batch, states, length)}.get(value.dim())
            if grouped:
                expected = (batch, value.shape[1], states, length)
            if expected is None or value.shape != expected:
                raise ValueError(
                    f"{name} must be (batch, states, length) = {(batch, states, length)}, (batch, groups, states, "
                    f"length) with groups dividing dim {dim}, or constant (dim, states); got {tuple(value.shape)}"
                )
        B_groups, C_groups = (matrix.shape[1] if matrix.dim() == 4 else 1 for matrix in (B, C))
        if not self.has_constant_matrix() and B_groups != C_groups:
            raise ValueError(f"B and C must have the same number of groups, got {B_groups} and {C_groups}")


class ConvInputs(NamedTuple):
    """Arguments of a causal convolution, with the shapes of `ops.causal_conv1d_fn`."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None
    seq_idx: Tensor | None = None
    initial_states: Tensor | None = None
    activation: str | None = None
    reverse: bool = False

    def is_plain(self) -> bool:
        """Whether x is one sequence per sample, with zeros before it."""
        return self.seq_idx is None and self.initial_states is None

    def final_states(self) -> Tensor:
        """The last width - 1 inputs (batch, dim, width - 1) in the order of the walk, from which a further call
        continues."""
        width, x = self.weight.shape[1], self.x
        recent = x[..., : width - 1].flip(-1) if self.reverse else x[..., max(0, x.shape[-1] - width + 1) :]
        if self.initial_states is None:
            before = x.new_zeros(*x.shape[:2], width - 1)
        else:
            before = self.initial_states.to(x.dtype)
        return torch.cat([before, recent], dim=-1)[..., recent.shape[-1] :]

    def check(self) -> None:
        """Raise ValueError unless the arguments fit together."""
        x, weight, bias, seq_idx, initial_states, activation, _ = self
        require_tensors(x=x, weight=weight)
        check_devices(x, weight=weight, bias=bias, seq_idx=seq_idx, initial_states=initial_states)
        if x.dim() != 3 or not x.is_floating_point():
            raise ValueError(f"x must be a real tensor (batch, dim, length), got {x.dtype} {tuple(x.shape)}")
        batch, dim, length = x.shape
        check_size("x", batch, dim, length)
        if weight.dim() != 2 or weight.shape[0] != dim or weight.shape[1] < 1:
            raise ValueError(f"weight must be (dim, width) with dim {dim} as in x, got {tuple(weight.shape)}")
        if bias is not None and bias.shape != (dim,):
            raise ValueError(f"bias must be (dim,) = ({dim},), got {tuple(bias.shape)}")
        if weight.is_complex() or (bias is not None and bias.is_complex()):
            raise ValueError("complex weight or bias is not supported: the convolution is real")
        if activation not in ACTIVATIONS:
            raise ValueError(f'activation must be None, "silu" or "swish", got {activation!r}')
        self._check_states("initial_states", initial_states)
        if seq_idx is not None and seq_idx.is_complex():
            raise ValueError(f"seq_idx must be whole numbers, got {seq_idx.dtype}")
        if seq_idx is not None and seq_idx.shape != (batch, length):
            raise ValueError(f"seq_idx must be (batch, length) = {(batch, length)}, got {tuple(seq_idx.shape)}")
        if seq_idx is not None and initial_states is not None:
            raise ValueError(STATES_OR_INDEX)

    def check_final_states(self, wanted: bool, out: Tensor | None) -> None:
        """Raise ValueError unless the arguments fit together, final states are known, and they fit into `out`."""
        self.check()
        check_devices(self.x, final_states_out=out)
        self._check_states("final_states_out", out)
        if out is not None and not wanted:
            raise ValueError("final_states_out is given but return_final_states is False: set it to True")
        if out is not None and shares_elements(out):
            raise ValueError("final_states_out must have memory of its own for every element: use contiguous()")
        if out is not None and torch.is_grad_enabled() and _is_leaf_of_a_gradient(out):
            raise ValueError("final_states_out is written to and must not require a gradient: use detach()")
        if self.seq_idx is not None:
            raise ValueError(STATES_OR_INDEX)

    def _check_states(self, name: str, states: Tensor | None) -> None:
        expected = (*self.x.shape[:2], self.weight.shape[1] - 1)
        if states is not None and states.shape != expected:
            raise ValueError(f"{name} must be (batch, dim, width - 1) = {expected}, got {tuple(states.shape)}")
        if states is not None and not states.is_floating_point():
            raise ValueError(f"{name} must be real floating point, got {states.dtype}")


class SSDInputs(NamedTuple):
    """Arguments of Mamba2's scan, with the shapes of `ops.ssd_scan_fn`."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None = None
    dt_bias: Tensor | None = None
    dt_softplus: bool = False
    reverse: bool = False

    def to(self, dtype: torch.dtype) -> "SSDInputs":
        """All tensors in one precision."""
        D, dt_bias = (None if t is None else t.to(dtype) for t in (self.D, self.dt_bias))
        x, dt, A, B, C = (t.to(dtype) for t in (self.x, self.dt, self.A, self.B, self.C))
        return SSDInputs(x, dt, A, B, C, D, dt_bias, self.dt_softplus, self.reverse)

    def step_sizes(self) -> Tensor:
        """The final dt (batch, length, heads)."""
        dt = self.dt if self.dt_bias is None else self.dt + self.dt_bias
        return F.softplus(dt) if self.dt_softplus else dt

    def check(self) -> None:
        """Raise ValueError unless the shapes fit together."""
        x, dt, A, B, C, D, dt_bias, _, _ = self
        require_tensors(x=x, dt=dt, B=B, C=C)
        if x.dim() != 4 or not x.is_floating_point():
            raise ValueError(f"x must be a real tensor (batch, length, heads, headdim), got {x.dtype} {tuple(x.shape)}")
        batch, length, heads, _ = x.shape
        if dt.shape != (batch, length, heads):
            raise ValueError(f"dt must be (batch, length, heads) = {(batch, length, heads)}, got {tuple(dt.shape)}")
        for name, value in (("A", A), ("D", D), ("dt_bias", dt_bias)):
            if (value is not None or name == "A") and not isinstance(value, Tensor):
                raise ValueError(
                    f"{name} must be a tensor (heads,), got {value!r}: this scan takes no chunk_size after C"
                )
            if value is not None and value.shape != (heads,):
                raise ValueError(f"{name} must be (heads,) = ({heads},), got {tuple(value.shape)}")
        if B.dim() != 4 or B.shape[:2] != (batch, length) or B.shape[2] < 1 or heads % B.shape[2]:
            raise ValueError(
                f"B must be (batch, length, groups, states) = ({batch}, {length}, groups, states) with groups dividing "
                f"heads {heads}, got {tuple(B.shape)}"
            )
        if C.shape != B.shape:
            raise ValueError(f"C must have the shape of B {tuple(B.shape)}, got {tuple(C.shape)}")
        check_devices(x, dt=dt, A=A, B=B, C=C, D=D, dt_bias=dt_bias)


ScanFunction = Callable[[ScanInputs], tuple[Tensor, Tensor]]
"""A backend's selective scan: output (batch, dim, length) and state after the last step (batch, dim, states)."""
ConvFunction = Callable[[ConvInputs], Tensor]
"""A backend's causal convolution: the output (batch, dim, length)."""
SSDFunction = Callable[[SSDInputs], Tensor]
"""A backend's scan of Mamba2: the output (batch, length, heads, headdim)."""
