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
        if u.dim() != 3 or not u.is_floating_point():
            raise ValueError(f"u must be a real tensor (batch, dim, length), got {u.dtype} {tuple(u.shape)}")
        if A.is_complex() or B.is_complex() or C.is_complex():
            raise ValueError("complex A, B or C is not supported: Mamba's state matrix is real, pass A = -exp(A_log)")
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
        if x.dim() != 3 or not x.is_floating_point():
            raise ValueError(f"x must be a real tensor (batch, dim, length), got {x.dtype} {tuple(x.shape)}")
        batch, dim, length = x.shape
        if weight.dim() != 2 or weight.shape[0] != dim or weight.shape[1] < 1:
            raise ValueError(f"weight must be (dim, width) with dim {dim} as in x, got {tuple(weight.shape)}")
        if bias is not None and bias.shape != (dim,):
            raise ValueError(f"bias must be (dim,) = ({dim},), got {tuple(bias.shape)}")
        if activation not in ACTIVATIONS:
            raise ValueError(f'activation must be None, "silu" or "swish", got {activation!r}')
        self._check_states("initial_states", initial_states)
        if seq_idx is not None and seq_idx.shape != (batch, length):
            raise ValueError(f"seq_idx must be (batch, length) = {(batch, length)}, got {tuple(seq_idx.shape)}")
        if seq_idx is not None and initial_states is not None:
            raise ValueError(STATES_OR_INDEX)

    def check_final_states(self, wanted: bool, out: Tensor | None) -> None:
        """Raise ValueError unless the arguments fit together, final states are known, and they fit into `out`."""
        self.check()
        self._check_states("final_states_out", out)
        if out is not None and not wanted:
            raise ValueError("final_states_out is given but return_final_states is False: set it to True")
        if self.seq_idx is not None:
            raise ValueError(STATES_OR_INDEX)

    def _check_states(self, name: str, states: Tensor | None) -> None:
        expected = (*self.x.shape[:2], self.weight.shape[1] - 1)
        if states is not None and states.shape != expected:
            raise ValueError(f"{name} must be (batch, dim, width - 1) = {expected}, got {tuple(states.shape)}")


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
        if x.dim() != 4 or not x.is_floating_point():
            raise ValueError(f"x must be a real tensor (batch, length, heads, headdim), got {x.dtype} {tuple(x.shape)}")
        batch, length, heads, _ = x.shape
        if dt.shape != (batch, length, heads):
            raise ValueError(f"dt must be (batch, length, heads) = {(batch, length, heads)}, got {tuple(dt.shape)}")
        for name, value in (("A", A), ("D", D), ("dt_bias", dt_bias)):
            if value is not None and not isinstance(value, Tensor):
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


ScanFunction = Callable[[ScanInputs], tuple[Tensor, Tensor]]
"""A backend's selective scan: output (batch, dim, length) and state after the last step (batch, dim, states)."""
ConvFunction = Callable[[ConvInputs], Tensor]
"""A backend's causal convolution: the output (batch, dim, length)."""
SSDFunction = Callable[[SSDInputs], Tensor]
"""A backend's scan of Mamba2: the output (batch, length, heads, headdim)."""
