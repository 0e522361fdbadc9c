import pytest
import torch

from ops import causal_conv1d_fn, selective_scan_fn, ssd_scan_fn
from ops.arguments import check_conv, check_scan, check_ssd, scan_groups
from tests.helpers.ops_cases import ScanCase
from tests.helpers.ssd_cases import SSDCase


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("u", torch.zeros(2, 6), "batch, dim, length"),
        ("delta", torch.zeros(2, 6, 8), "delta must have the shape of u"),
        ("z", torch.zeros(2, 9, 6), "z must have the shape of u"),
        ("A", torch.zeros(5, 3), "A must be"),
        ("A", torch.zeros(6, 3, 1), "A must be"),
        ("A", torch.zeros(6, 0), "a state or more"),
        ("A", torch.zeros(6, 3, dtype=torch.complex64), "complex"),
        ("B", torch.zeros(6, 3, dtype=torch.complex64), "complex"),
        ("C", torch.zeros(6, 3, dtype=torch.complex64), "complex"),
        ("B", torch.zeros(2, 9, 3), "B must be"),
        ("B", torch.zeros(2, 4, 3, 9), "groups dividing dim 6"),
        ("B", torch.zeros(2, 0, 3, 9), "groups dividing dim 6"),
        ("C", torch.zeros(6, 4), "C must be"),
        ("C", torch.zeros(2, 2, 3, 9), "same number of groups"),
        ("B", torch.zeros(2, 2, 3, 9), "same number of groups"),
        ("D", torch.zeros(3), "D must be"),
        ("delta_bias", torch.zeros(6, 1), "delta_bias must be"),
    ],
)
def test_scan_errors_name_the_argument(name: str, value: torch.Tensor, hint: str):
    with pytest.raises(ValueError, match=hint):
        selective_scan_fn(**{**ScanCase().tensors(), name: value})


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"x": torch.zeros(2, 6)}, "batch, dim, length"),
        ({"x": torch.zeros(2, 6, 9, 1)}, "batch, dim, length"),
        ({"weight": torch.zeros(4, 6)}, "weight must be"),
        ({"weight": torch.zeros(6, 0)}, "weight must be"),
        ({"bias": torch.zeros(4)}, "bias must be"),
        ({"bias": torch.zeros(7)}, "bias must be"),
        ({"activation": "relu"}, "activation must be"),
        ({"initial_states": torch.zeros(2, 6, 4)}, "initial_states must be"),
        ({"initial_states": torch.zeros(2, 6, 2)}, "initial_states must be"),
        ({"final_states_out": torch.zeros(2, 6, 3)}, "return_final_states is False"),
        ({"seq_idx": torch.zeros(2, 8)}, "seq_idx must be"),
        ({"seq_idx": torch.zeros(2, 9), "return_final_states": True}, "excludes"),
        ({"seq_idx": torch.zeros(2, 9), "initial_states": torch.zeros(2, 6, 3)}, "excludes"),
    ],
)
def test_conv_errors_name_the_argument(changes: dict, hint: str):
    with pytest.raises(ValueError, match=hint):
        causal_conv1d_fn(**{"x": torch.zeros(2, 6, 9), "weight": torch.zeros(6, 4), **changes})


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("x", torch.zeros(2, 9, 4), "batch, length, heads, headdim"),
        ("x", torch.zeros(2, 9, 4, 3, 1), "batch, length, heads, headdim"),
        ("dt", torch.zeros(2, 9, 3), "dt must be"),
        ("A", torch.zeros(4, 5), "A must be"),
        ("D", torch.zeros(4, 3), "D must be"),
        ("D", 256, "takes no chunk_size"),
        ("dt_bias", torch.zeros(3), "dt_bias must be"),
        ("B", torch.zeros(2, 9, 3, 5), "groups dividing heads 4"),
        ("B", torch.zeros(2, 9, 0, 5), "groups dividing heads 4"),
        ("B", torch.zeros(2, 9, 4), "B must be"),
        ("B", torch.zeros(2, 9, 1, 5, 1), "B must be"),
        ("B", torch.zeros(3, 9, 1, 5), "B must be"),
        ("C", torch.zeros(2, 9, 1, 6), "C must have the shape of B"),
        ("C", torch.zeros(2, 9, 1, 4), "C must have the shape of B"),
    ],
)
def test_ssd_errors_name_the_argument(name: str, value: object, hint: str):
    with pytest.raises(ValueError, match=hint):
        ssd_scan_fn(**{**SSDCase().tensors(), name: value})


def test_groups():
    assert scan_groups(torch.zeros(6, 3), torch.zeros(2, 3, 9)) == 1
    assert scan_groups(torch.zeros(6, 3), torch.zeros(2, 3, 4, 9)) == 3


def test_all_documented_shapes_are_accepted():
    """B and C of the scan each per position, in groups or constant, alone or beside another form."""
    forms = {"per position": {}, "one group": {"groups": 1}, "groups": {"groups": 2}}
    for form in forms.values():
        for constant in ({}, {"constant_B": True}, {"constant_C": True}, {"constant_B": True, "constant_C": True}):
            check_scan(*ScanCase(**form, **constant).tensors().values())
    for groups in (1, 2, 4):
        check_ssd(*SSDCase(groups=groups).tensors().values())
    check_conv(torch.zeros(2, 6, 9), torch.zeros(6, 1), torch.zeros(6), torch.zeros(2, 9), None, False, None, None)
    states = torch.zeros(2, 6, 3)
    check_conv(torch.zeros(2, 6, 9), torch.zeros(6, 4), None, None, states, True, states, "silu")
