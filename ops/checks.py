"""What the mixers, norms, patches and resampling of ops accept: ops/dispatch.py checks it once, before any backend.

The compiled kernels read memory by the sizes that they are told. So every shape, type, device and patch id is checked
here, and errors name the argument. ops/arguments.py does the same for the scans and the convolution.
Shape suffixes: B batch, L tokens, E model width, I inner channels, x 2I, N states, R rank of the step size, C
contrasts, Z Y X voxels, K chosen patches, P values per patch; 3 and 4 are sizes.
"""

import torch
from torch import Tensor

from ops.arguments import check_size
from ops.reference.bimamba import Direction


def check_tensor(name: str, value: object, shape: tuple[int, ...], letters: str, like: Tensor) -> None:
    """Raise ValueError unless `value` is a real floating-point tensor of this shape on the device of `like`."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor {letters}, got {type(value).__name__}")
    if value.shape != shape:
        raise ValueError(f"{name} must be {letters} = {shape}, got {tuple(value.shape)}")
    if not value.is_floating_point():
        raise ValueError(f"{name} must be real floating point, got {value.dtype}")
    if value.device != like.device:
        raise ValueError(f"{name} is on {value.device}, the first argument on {like.device}: move it there")


def check_dimensions(name: str, value: object, letters: str) -> None:
    """Raise ValueError unless `value` is a real floating-point tensor with one dimension for each of the letters."""
    dimensions = letters.count(",") + 1
    if not isinstance(value, Tensor) or value.dim() != dimensions or not value.is_floating_point():
        got = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} must be a real floating-point tensor {letters}, got {got}")


def check_mixer(xz_BLx: Tensor, directions: dict[str, Direction], out_weight: Tensor) -> None:
    """Raise ValueError unless the arguments of `ops.bimamba_fn` or `ops.mamba_fn` fit together.

    directions: the name of the argument and its value.
    """
    check_dimensions("xz_BLx", xz_BLx, "(B, L, 2I)")
    if xz_BLx.shape[2] % 2 or xz_BLx.shape[2] < 2:
        raise ValueError(f"xz_BLx must be (B, L, 2I) with an even, positive last size, got {tuple(xz_BLx.shape)}")
    check_mixer_weights(xz_BLx, xz_BLx.shape[2] // 2, directions, out_weight)


def check_mixer_weights(like: Tensor, inner: int, directions: dict[str, Direction], out_weight: Tensor) -> None:
    """Raise ValueError unless the weights fit `inner` channels, the device of `like` (B, L, ...) and each other."""
    first, sizes = "", (0, 0, 0)
    for name, weights in directions.items():
        if not isinstance(weights, tuple) or len(weights) != len(Direction._fields):
            raise ValueError(f"{name} must be a Direction of {len(Direction._fields)} tensors, got {type(weights)}")
        weights = Direction(*weights)
        for field, letters in (("conv_weight", "(I, width)"), ("dt_proj", "(I, R)"), ("A", "(I, N)")):
            check_dimensions(f"{name}.{field}", getattr(weights, field), letters)
        width, rank, states = weights.conv_weight.shape[1], weights.dt_proj.shape[1], weights.A.shape[1]
        if width < 1 or rank < 1 or states < 1:
            raise ValueError(
                f"{name}: conv_weight (I, width), dt_proj (I, R) and A (I, N) must have at least one column, got "
                f"{width}, {rank} and {states}"
            )
        if first and (width, rank, states) != sizes:
            raise ValueError(
                f"{name} must have the shapes of {first}: width, rank and states {sizes}, got {(width, rank, states)}"
            )
        first, sizes = name, (width, rank, states)
        for field, shape, letters in (
            ("conv_weight", (inner, width), "(I, width)"),
            ("conv_bias", (inner,), "(I,)"),
            ("x_proj", (rank + 2 * states, inner), "(R + 2N, I)"),
            ("dt_proj", (inner, rank), "(I, R)"),
            ("dt_bias", (inner,), "(I,)"),
            ("A", (inner, states), "(I, N)"),
            ("D", (inner,), "(I,)"),
        ):
            check_tensor(f"{name}.{field}", getattr(weights, field), shape, letters, like)
        check_size(f"{name}: B x L x I x N", *like.shape[:2], inner, states)
    check_dimensions("out_weight", out_weight, "(E, I)")
    check_tensor("out_weight", out_weight, (out_weight.shape[0], inner), "(E, I)", like)


def check_sum(
    hidden_BLE: Tensor,
    residual_BLE: Tensor | None,
    rotation: Tensor | None,
    weight_name: str,
    weight: Tensor,
    scale_B: Tensor | None,
) -> None:
    """Raise ValueError unless the arguments of `ops.add_norm_fn` fit together."""
    check_dimensions("hidden_BLE", hidden_BLE, "(B, L, E)")
    batch, length, width = hidden_BLE.shape
    if width < 1:
        raise ValueError("hidden_BLE must be (B, L, E) with at least one channel")
    check_tensor(weight_name, weight, (width,), "(E,)", hidden_BLE)
    if residual_BLE is not None:
        check_tensor("residual_BLE", residual_BLE, (batch, length, width), "(B, L, E)", hidden_BLE)
    if scale_B is not None:
        check_tensor("scale_B", scale_B, (batch,), "(B,)", hidden_BLE)
    if rotation is None:
        return
    if not isinstance(rotation, Tensor) or not rotation.is_complex() or rotation.dim() != 3:
        got = f"{rotation.dtype} {tuple(rotation.shape)}" if isinstance(rotation, Tensor) else type(rotation).__name__
        raise ValueError(f"rotation must be a complex tensor (B or 1, L, E/2), got {got}")
    samples, *rest = rotation.shape
    if width % 2 or rest != [length, width // 2] or (samples != 1 and samples != batch):
        raise ValueError(
            f"rotation must be (B or 1, L, E/2) with even E: hidden_BLE is {tuple(hidden_BLE.shape)}, got "
            f"{tuple(rotation.shape)}"
        )
    if rotation.device != hidden_BLE.device:
        raise ValueError(f"rotation is on {rotation.device}, hidden_BLE on {hidden_BLE.device}: move it there")


def check_block(
    hidden_BLE: Tensor,
    residual_BLE: Tensor | None,
    rotation: Tensor | None,
    norm_weight: Tensor,
    scale_B: Tensor | None,
    in_weight: Tensor,
    directions: dict[str, Direction],
    out_weight: Tensor,
) -> None:
    """Raise ValueError unless the arguments of `ops.bimamba_block_fn` fit together."""
    check_sum(hidden_BLE, residual_BLE, rotation, "norm_weight", norm_weight, scale_B)
    check_dimensions("in_weight", in_weight, "(2I, E)")
    doubled = in_weight.shape[0]
    if doubled % 2 or doubled < 2:
        raise ValueError(f"in_weight must be (2I, E) with an even, positive first size, got {tuple(in_weight.shape)}")
    check_tensor("in_weight", in_weight, (doubled, hidden_BLE.shape[2]), "(2I, E)", hidden_BLE)
    check_mixer_weights(hidden_BLE, doubled // 2, directions, out_weight)


def check_patches(volume_BCZYX: Tensor, ids_BK: Tensor | None, patch_size: int) -> None:
    """Raise ValueError unless patches of this size fill the volume and the ids have a row for each sample.

    The range of ids is checked by `check_ids`, where their values are known.
    """
    if not isinstance(volume_BCZYX, Tensor) or volume_BCZYX.dim() != 5:
        got = tuple(volume_BCZYX.shape) if isinstance(volume_BCZYX, Tensor) else type(volume_BCZYX).__name__
        raise ValueError(f"volume_BCZYX must be a tensor (B, C, Z, Y, X), got {got}")
    if not isinstance(patch_size, int) or isinstance(patch_size, bool) or patch_size < 1:
        raise ValueError(f"patch_size must be a whole number of voxels, at least 1, got {patch_size!r}")
    batch, contrasts, *sides = volume_BCZYX.shape
    if contrasts < 1 or any(side < 1 or side % patch_size for side in sides):
        raise ValueError(
            f"patch_size {patch_size} must divide every side of volume_BCZYX, which has at least one contrast: got "
            f"{tuple(volume_BCZYX.shape)}"
        )
    if ids_BK is None:
        return
    if not isinstance(ids_BK, Tensor) or ids_BK.dtype != torch.int64:
        got = ids_BK.dtype if isinstance(ids_BK, Tensor) else type(ids_BK).__name__
        raise ValueError(f"ids_BK must be an int64 tensor (B, K), got {got}")
    if ids_BK.dim() != 2 or ids_BK.shape[0] != batch:
        raise ValueError(f"ids_BK must be (B, K) with B = {batch} as in volume_BCZYX, got {tuple(ids_BK.shape)}")
    if ids_BK.device != volume_BCZYX.device:
        raise ValueError(f"ids_BK is on {ids_BK.device}, volume_BCZYX on {volume_BCZYX.device}: move it there")


def check_targets(volume_BCZYX: Tensor, ids_BK: Tensor, patch_size: int) -> int:
    """The number of values of a patch. Raises ValueError unless the arguments fit together; ids are needed."""
    check_patches(volume_BCZYX, ids_BK, patch_size)
    if ids_BK is None:
        raise ValueError("ids_BK must be an int64 tensor (B, K), got None")
    if not volume_BCZYX.is_floating_point():
        raise ValueError(f"volume_BCZYX must be real floating point, got {volume_BCZYX.dtype}")
    return volume_BCZYX.shape[1] * patch_size**3


def check_prediction(pred_BKP: Tensor, volume_BCZYX: Tensor, ids_BK: Tensor, patch_size: int) -> None:
    """Raise ValueError unless the arguments of `ops.patch_error_fn` fit together."""
    values = check_targets(volume_BCZYX, ids_BK, patch_size)
    check_tensor("pred_BKP", pred_BKP, (*ids_BK.shape, values), "(B, K, P)", volume_BCZYX)


def check_layer(
    hidden_BKE: Tensor, weight_PE: Tensor, bias_P: Tensor, volume_BCZYX: Tensor, ids_BK: Tensor, patch_size: int
) -> None:
    """Raise ValueError unless the arguments of `ops.linear_patch_error_fn` fit together."""
    values = check_targets(volume_BCZYX, ids_BK, patch_size)
    check_dimensions("hidden_BKE", hidden_BKE, "(B, K, E)")
    width = hidden_BKE.shape[2]
    check_tensor("hidden_BKE", hidden_BKE, (*ids_BK.shape, width), "(B, K, E)", volume_BCZYX)
    check_tensor("weight_PE", weight_PE, (values, width), "(P, E)", volume_BCZYX)
    check_tensor("bias_P", bias_P, (values,), "(P,)", volume_BCZYX)


def check_resampling(volume_BCZYX: Tensor, back_B34: Tensor) -> None:
    """Raise ValueError unless the arguments of `ops.resample_affine_fn` fit together."""
    check_dimensions("volume_BCZYX", volume_BCZYX, "(B, C, Z, Y, X)")
    if 0 in volume_BCZYX.shape[1:]:
        raise ValueError(f"volume_BCZYX must have a contrast and voxels, got {tuple(volume_BCZYX.shape)}")
    check_dimensions("back_B34", back_B34, "(B, 3, 4)")
    check_tensor("back_B34", back_B34, (volume_BCZYX.shape[0], 3, 4), "(B, 3, 4)", back_B34)
    if back_B34.device.type != "cpu" and back_B34.device != volume_BCZYX.device:
        raise ValueError(f"back_B34 is on {back_B34.device}, volume_BCZYX on {volume_BCZYX.device}: move it to the CPU")
    has_values = not back_B34.is_meta and not torch.compiler.is_compiling()
    if has_values and not back_B34.isfinite().all():
        raise ValueError("back_B34 must be finite")
