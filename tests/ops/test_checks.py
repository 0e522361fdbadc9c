"""Wrong arguments of the mixers, norms, patches and resampling raise ValueError before a kernel reads memory."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ops import (
    Direction,
    add_norm_fn,
    bimamba_block_fn,
    bimamba_fn,
    causal_conv1d_fn,
    gather_patches_fn,
    linear_patch_error_fn,
    mamba_fn,
    patch_error_fn,
    resample_affine_fn,
    selective_scan_fn,
)
from ops.arguments import check_size, shares_elements
from tests.helpers.ops_cases import ScanCase, mixer_tensors

BATCH, LENGTH, INNER, WIDTH = 2, 9, 6, 5  # as in mixer_tensors
META = torch.device("meta")


def _mixer() -> dict[str, Any]:
    xz, *weights, out_weight = (x.detach() for x in mixer_tensors().values())
    directions = {"forward": Direction(*weights[:7]), "backward": Direction(*weights[7:])}
    return {"xz_BLx": xz, **directions, "out_weight": out_weight}


def _sum() -> dict[str, Any]:
    return {
        "hidden_BLE": torch.randn(BATCH, LENGTH, 8),
        "residual_BLE": torch.randn(BATCH, LENGTH, 8),
        "rotation": torch.ones(1, LENGTH, 4, dtype=torch.complex64),
        "weight": torch.ones(8),
        "eps": 1e-5,
        "scale_B": torch.ones(BATCH),
    }


def _patches() -> dict[str, Any]:
    return {"volume_BCZYX": torch.randn(2, 3, 8, 8, 8), "ids_BK": torch.tensor([[0, 7], [3, 1]]), "patch_size": 4}


def _prediction() -> dict[str, Any]:
    return {"pred_BKP": torch.randn(2, 2, 192), **_patches()}


def _layer() -> dict[str, Any]:
    layer = {"hidden_BKE": torch.randn(2, 2, 8), "weight_PE": torch.randn(192, 8), "bias_P": torch.randn(192)}
    return {**layer, **_patches()}


def _resampling() -> dict[str, Any]:
    return {"volume_BCZYX": torch.randn(2, 3, 4, 5, 6), "back_B34": torch.eye(3, 4).expand(2, 3, 4)}


WRONG_WEIGHTS: list[tuple[str, Any]] = [
    ("D", torch.ones(1)),
    ("D", None),
    ("D", torch.ones(INNER, dtype=torch.complex64)),
    ("D", torch.ones(INNER, device=META)),
    ("dt_bias", torch.ones(INNER + 1)),
    ("dt_proj", torch.ones(1, 2)),
    ("dt_proj", torch.ones(INNER)),
    ("dt_proj", torch.ones(INNER, 0)),
    ("x_proj", torch.ones(7, INNER)),
    ("x_proj", torch.ones(8, INNER - 1)),
    ("conv_weight", torch.ones(0, 4)),
    ("conv_weight", torch.ones(INNER, 0)),
    ("conv_weight", torch.ones(INNER, 1, 4)),
    ("conv_bias", torch.ones(1)),
    ("A", torch.ones(1, 3)),
    ("A", torch.ones(INNER, 0)),
    ("A", torch.ones(INNER, 3, dtype=torch.int64)),
]


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("field", "value"), WRONG_WEIGHTS)
def test_a_wrong_weight_of_a_direction_is_named(direction: str, field: str, value: Any):
    arguments = _mixer()
    arguments[direction] = arguments[direction]._replace(**{field: value})
    with pytest.raises(ValueError, match=rf"{direction}.*{field}"):
        bimamba_fn(**arguments)
    with pytest.raises(ValueError, match=rf"weights.*{field}"):
        mamba_fn(arguments["xz_BLx"], arguments[direction], arguments["out_weight"])
    head = {**_sum(), "norm_weight": torch.ones(8), "in_weight": torch.randn(2 * INNER, 8)}
    del head["weight"], arguments["xz_BLx"]
    with pytest.raises(ValueError, match=rf"{direction}.*{field}"):
        bimamba_block_fn(**head, **arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("xz_BLx", torch.randn(BATCH, LENGTH, 2 * INNER - 1)),
        ("xz_BLx", torch.randn(BATCH, LENGTH, 0)),
        ("xz_BLx", torch.randn(LENGTH, 2 * INNER)),
        ("xz_BLx", torch.ones(BATCH, LENGTH, 2 * INNER, dtype=torch.int64)),
        ("xz_BLx", None),
        ("out_weight", torch.randn(WIDTH, INNER + 1)),
        ("out_weight", torch.randn(INNER)),
        ("out_weight", torch.ones(WIDTH, INNER, dtype=torch.complex64)),
        ("backward", None),
        ("backward", ()),
    ],
)
def test_a_wrong_argument_of_the_mixer_is_named(name: str, value: Any):
    with pytest.raises(ValueError, match=name):
        bimamba_fn(**{**_mixer(), name: value})


def test_directions_of_different_shapes_are_refused():
    arguments = _mixer()
    backward = arguments["backward"]
    arguments["backward"] = backward._replace(conv_weight=torch.ones(INNER, 3))
    with pytest.raises(ValueError, match="backward must have the shapes of forward"):
        bimamba_fn(**arguments)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_BLE", torch.randn(LENGTH, 8)),
        ("hidden_BLE", torch.ones(BATCH, LENGTH, 8, dtype=torch.int32)),
        ("residual_BLE", torch.randn(1, 1, 1)),
        ("residual_BLE", torch.randn(BATCH, LENGTH - 1, 8)),
        ("rotation", torch.ones(1, 1, 1, dtype=torch.complex64)),
        ("rotation", torch.ones(3, LENGTH, 4, dtype=torch.complex64)),
        ("rotation", torch.ones(1, LENGTH, 4)),
        ("rotation", torch.ones(1, LENGTH, 4, dtype=torch.complex64, device=META)),
        ("weight", torch.ones(1)),
        ("weight", torch.ones(8, device=META)),
        ("scale_B", torch.ones(1)),
        ("scale_B", torch.ones(BATCH, 1)),
    ],
)
def test_a_wrong_argument_of_the_norm_is_named(name: str, value: Tensor):
    with pytest.raises(ValueError, match=name):
        add_norm_fn(**{**_sum(), name: value})
    arguments = {**_sum(), **_mixer(), "in_weight": torch.randn(2 * INNER, 8), name: value}
    arguments["norm_weight"] = arguments.pop("weight")
    del arguments["xz_BLx"]
    with pytest.raises(ValueError, match=name):
        bimamba_block_fn(**arguments)


def test_a_wrong_input_projection_is_named():
    arguments = {**_sum(), **_mixer()}
    arguments["norm_weight"] = arguments.pop("weight")
    del arguments["xz_BLx"]
    for in_weight in (torch.randn(2 * INNER, 7), torch.randn(2 * INNER - 1, 8), torch.randn(8)):
        with pytest.raises(ValueError, match="in_weight"):
            bimamba_block_fn(**arguments, in_weight=in_weight)


WRONG_PATCHES: list[tuple[str, Any]] = [
    ("ids_BK", torch.full((2, 2), 99_999)),
    ("ids_BK", torch.full((2, 2), 8)),
    ("ids_BK", torch.full((2, 2), -1)),
    ("ids_BK", torch.full((2, 2), 2**33)),
    ("ids_BK", torch.full((2, 2), -(2**63))),
    ("ids_BK", torch.zeros(2, 2, dtype=torch.int32)),
    ("ids_BK", torch.zeros(2, 2)),
    ("ids_BK", torch.zeros(3, 2, dtype=torch.int64)),
    ("ids_BK", torch.zeros(2, dtype=torch.int64)),
    ("ids_BK", torch.zeros(2, 2, dtype=torch.int64, device=META)),
    ("patch_size", 3),
    ("patch_size", 0),
    ("patch_size", -4),
    ("patch_size", 16),
    ("patch_size", 4.0),
    ("volume_BCZYX", torch.randn(2, 3, 8, 8)),
    ("volume_BCZYX", torch.randn(2, 0, 8, 8, 8)),
]


@pytest.mark.parametrize(("name", "value"), WRONG_PATCHES)
def test_wrong_patches_are_named(name: str, value: Any):
    for backend in ("auto", "reference"):
        for function, arguments in ((patch_error_fn, _prediction()), (linear_patch_error_fn, _layer())):
            for normalise in (False, True):
                with pytest.raises(ValueError, match=name):
                    function(**{**arguments, name: value}, normalise=normalise, backend=backend)
    for contrasts_first in (False, True):
        with pytest.raises(ValueError, match=name):
            gather_patches_fn(**{**_patches(), name: value}, contrasts_first=contrasts_first)


def test_ids_are_checked_by_the_plain_path_too():
    arguments = _patches()
    arguments["volume_BCZYX"] = arguments["volume_BCZYX"].double()  # which no kernel takes
    with pytest.raises(ValueError, match="ids_BK must be from 0 to 7"):
        gather_patches_fn(**{**arguments, "ids_BK": torch.full((2, 2), -1)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pred_BKP", torch.randn(2, 2, 191)),
        ("pred_BKP", torch.randn(2, 3, 192)),
        ("pred_BKP", torch.ones(2, 2, 192, dtype=torch.int64)),
    ],
)
def test_a_wrong_prediction_is_named(name: str, value: Tensor):
    with pytest.raises(ValueError, match=name):
        patch_error_fn(**{**_prediction(), name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_BKE", torch.randn(2, 3, 8)),
        ("hidden_BKE", torch.randn(4, 8)),
        ("weight_PE", torch.randn(100, 8)),
        ("weight_PE", torch.randn(192, 7)),
        ("weight_PE", torch.randn(192, 8, device=META)),
        ("bias_P", torch.randn(1)),
    ],
)
def test_a_wrong_layer_is_named(name: str, value: Tensor):
    with pytest.raises(ValueError, match=name):
        linear_patch_error_fn(**{**_layer(), name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("back_B34", torch.ones(1, 3, 4)),
        ("back_B34", torch.ones(2, 2, 2)),
        ("back_B34", torch.full((2, 3, 4), torch.nan)),
        ("back_B34", torch.ones(2, 3, 4, dtype=torch.complex64)),
        ("volume_BCZYX", torch.randn(2, 4, 5, 6)),
        ("volume_BCZYX", torch.zeros(2, 3, 4, 5, 0)),
        ("volume_BCZYX", torch.zeros(2, 3, 4, 5, 6, dtype=torch.uint8)),
    ],
)
def test_a_wrong_argument_of_resampling_is_named(name: str, value: Tensor):
    with pytest.raises(ValueError, match=name):
        resample_affine_fn(**{**_resampling(), name: value})


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"seq_idx": torch.zeros(2, 9, dtype=torch.complex64)}, "seq_idx must be"),
        ({"initial_states": torch.zeros(2, 6, 3, dtype=torch.complex64)}, "initial_states must be"),
        ({"final_states_out": torch.zeros(1).expand(2, 6, 3)}, "final_states_out must have memory of its own"),
        ({"final_states_out": torch.zeros(99).as_strided((2, 6, 3), (10, 2, 1))}, "final_states_out must have memory"),
        ({"final_states_out": torch.zeros(2, 6, 3, dtype=torch.int64)}, "final_states_out must be real"),
        ({"final_states_out": torch.zeros(2, 6, 3, requires_grad=True)}, "must not require a gradient"),
        ({"final_states_out": torch.zeros(2, 6, 3, device=META)}, "final_states_out is on meta"),
        ({"weight": torch.zeros(6, 4, device=META)}, "weight is on meta"),
    ],
)
def test_states_of_the_convolution_are_checked(changes: dict[str, Any], hint: str):
    arguments = {"x": torch.zeros(2, 6, 9), "weight": torch.zeros(6, 4), **changes}
    wants_states = "final_states_out" in changes
    with pytest.raises(ValueError, match=hint):
        causal_conv1d_fn(**arguments, return_final_states=wants_states)


def test_a_tensor_of_the_scan_on_another_device_is_named():
    with pytest.raises(ValueError, match="B is on meta"):
        selective_scan_fn(**{**ScanCase().tensors(), "B": torch.zeros(2, 3, 9, device=META)})


def test_sizes_that_overflow_are_refused():
    x = torch.zeros(1).expand(2**20, 2**20, 2**20)
    with pytest.raises(ValueError, match="x is too large"):
        causal_conv1d_fn(x, torch.zeros(1).expand(2**20, 4))
    check_size("x", 2**20, 2**20)


def test_elements_that_share_memory_are_found():
    x = torch.zeros(4, 5, 6)
    assert not any(shares_elements(y) for y in (x, x.transpose(0, 2), x[:, ::2], x[:0].expand(0, 5, 6), x[:1, :1]))
    assert shares_elements(x[:1].expand(3, 5, 6))
    assert shares_elements(x.as_strided((3, 3), (1, 1)))


def test_all_backends_accept_what_fits():
    arguments = _mixer()
    for backend in ("auto", "reference", "chunked"):
        bimamba_fn(**arguments, backend=backend)
        add_norm_fn(**_sum(), backend=backend)
        patch_error_fn(**_prediction(), backend=backend)
        linear_patch_error_fn(**_layer(), backend=backend)
    mamba_fn(arguments["xz_BLx"], arguments["forward"], arguments["out_weight"])
    assert gather_patches_fn(**_patches()).shape == (2, 2, 192)
    assert resample_affine_fn(**_resampling()).shape == (2, 3, 4, 5, 6)
