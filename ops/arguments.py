"""Arguments of the scan and the convolution, checked once for every backend, with errors that say what to change."""

from torch import Tensor

ACTIVATIONS = (None, "silu", "swish")


def check_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, z: Tensor | None, bias: Tensor | None
) -> None:
    """Raise ValueError unless the shapes fit together as `ops.selective_scan_fn` documents them."""
    if u.dim() != 3 or not u.is_floating_point():
        raise ValueError(f"u must be a real tensor (batch, dim, length), got {u.dtype} {tuple(u.shape)}")
    if A.is_complex() or B.is_complex() or C.is_complex():
        raise ValueError("complex A, B or C is not supported: Mamba's state matrix is real, pass A = -exp(A_log)")
    batch, dim, length = u.shape
    if A.dim() != 2 or A.shape[0] != dim or not A.shape[1]:
        raise ValueError(f"A must be (dim, states) with dim {dim} as in u and a state or more, got {tuple(A.shape)}")
    for name, value in (("delta", delta), ("z", z)):
        if value is not None and value.shape != u.shape:
            raise ValueError(f"{name} must have the shape of u {tuple(u.shape)}, got {tuple(value.shape)}")
    for name, value in (("D", D), ("delta_bias", bias)):
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
                f"{name} must be (batch, states, length) = {(batch, states, length)}, (batch, groups, states, length) "
                f"with groups dividing dim {dim}, or constant (dim, states); got {tuple(value.shape)}"
            )
    if B.dim() > 2 and C.dim() > 2 and scan_groups(B) != scan_groups(C):
        raise ValueError(f"B and C must have the same number of groups, got {scan_groups(B)} and {scan_groups(C)}")


def scan_groups(*matrices: Tensor) -> int:
    """Number of channel groups that share one B_t or C_t; channel i belongs to group i // (dim / groups)."""
    return max((matrix.shape[1] for matrix in matrices if matrix.dim() == 4), default=1)


def check_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    seq_idx: Tensor | None,
    initial_states: Tensor | None,
    return_final_states: bool,
    final_states_out: Tensor | None,
    activation: str | None,
) -> None:
    """Raise ValueError unless the arguments fit together as `ops.causal_conv1d_fn` documents them."""
    if x.dim() != 3 or not x.is_floating_point():
        raise ValueError(f"x must be a real tensor (batch, dim, length), got {x.dtype} {tuple(x.shape)}")
    batch, dim, length = x.shape
    if weight.dim() != 2 or weight.shape[0] != dim or weight.shape[1] < 1:
        raise ValueError(f"weight must be (dim, width) with dim {dim} as in x, got {tuple(weight.shape)}")
    if bias is not None and bias.shape != (dim,):
        raise ValueError(f"bias must be (dim,) = ({dim},), got {tuple(bias.shape)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f'activation must be None, "silu" or "swish", got {activation!r}')
    states = (batch, dim, weight.shape[1] - 1)
    for name, value in (("initial_states", initial_states), ("final_states_out", final_states_out)):
        if value is not None and value.shape != states:
            raise ValueError(f"{name} must be (batch, dim, width - 1) = {states}, got {tuple(value.shape)}")
    if final_states_out is not None and not return_final_states:
        raise ValueError("final_states_out is given but return_final_states is False: set it to True")
    if seq_idx is not None:
        if seq_idx.shape != (batch, length):
            raise ValueError(f"seq_idx must be (batch, length) = {(batch, length)}, got {tuple(seq_idx.shape)}")
        if initial_states is not None or return_final_states:
            raise ValueError("seq_idx excludes initial_states and return_final_states, as in causal_conv1d")


def check_ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, dt_bias: Tensor | None) -> None:
    """Raise ValueError unless the shapes fit together as `ops.ssd_scan_fn` documents them."""
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x must be a real tensor (batch, length, heads, headdim), got {x.dtype} {tuple(x.shape)}")
    batch, length, heads, _ = x.shape
    if dt.shape != (batch, length, heads):
        raise ValueError(f"dt must be (batch, length, heads) = {(batch, length, heads)}, got {tuple(dt.shape)}")
    for name, value in (("A", A), ("D", D), ("dt_bias", dt_bias)):
        if value is not None and not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a tensor (heads,), got {value!r}: this scan takes no chunk_size after C")
        if value is not None and value.shape != (heads,):
            raise ValueError(f"{name} must be (heads,) = ({heads},), got {tuple(value.shape)}")
    if B.dim() != 4 or B.shape[:2] != (batch, length) or B.shape[2] < 1 or heads % B.shape[2]:
        raise ValueError(
            f"B must be (batch, length, groups, states) = ({batch}, {length}, groups, states) with groups dividing "
            f"heads {heads}, got {tuple(B.shape)}"
        )
    if C.shape != B.shape:
        raise ValueError(f"C must have the shape of B {tuple(B.shape)}, got {tuple(C.shape)}")
