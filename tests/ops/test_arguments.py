import pytest
import torch

from ops import causal_conv1d_fn, selective_scan_fn, ssd_scan_fn
from ops.arguments import ConvInputs, ScanInputs, SSDInputs
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
        ("A", torch.zeros(6, 0), "at least one state"),
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
        ("delta_bias", torch.zeros(6, dtype=torch.complex64), "delta_bias must be real"),
        ("delta", torch.zeros(2, 6, 9, dtype=torch.complex64), "delta must be real"),
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
        ({"bias": torch.zeros(6, dtype=torch.complex64)}, "complex weight or bias"),
        ({"weight": torch.zeros(6, 4, dtype=torch.complex64)}, "complex weight or bias"),
        ({"activation": "relu"}, "activation must be"),
        ({"initial_states": torch.zeros(2, 6, 4)}, "initial_states must be"),
        ({"initial_states": torch.zeros(2, 6, 2)}, "initial_states must be"),
        ({"final_states_out": torch.zeros(2, 6, 3)}, "return_final_states is False"),
        ({"seq_idx": torch.zeros(2, 8)}, "seq_idx must be"),
        ({"seq_idx": torch.zeros(2, 9), "return_final_states": True}, "excludes"),
        ({"seq_idx": torch.zeros(2, 9), "initial_states": torch.zeros(2, 6, 3)}, "excludes"),
        ({"final_states_out": torch.zeros(2, 6, 4), "return_final_states": True}, "final_states_out must be"),
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


def test_groups_and_constant_matrices():
    ungrouped, grouped = ScanInputs(**ScanCase().tensors()), ScanInputs(**ScanCase(groups=3).tensors())
    assert (ungrouped.groups(), grouped.groups()) == (1, 3)
    assert not ungrouped.has_constant_matrix()
    half = ScanInputs(**ScanCase(groups=3, constant_B=True).tensors())
    assert half.groups() == 3
    assert half.has_constant_matrix()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("length", "width", "expected"), [(5, 3, [3, 4]), (1, 4, [0, 0, 0]), (2, 1, [])])
def test_final_states_are_the_last_inputs_of_the_walk(length: int, width: int, expected: list[int], reverse: bool):
    x = torch.arange(length).expand(1, 1, length)
    inputs = ConvInputs(x.flip(-1) if reverse else x, torch.zeros(1, width), reverse=reverse)
    assert inputs.final_states().flatten().tolist() == expected


def test_final_states_continue_initial_states():
    before, x = torch.tensor([[[7.0, 8.0, 9.0]]]), torch.tensor([[[1.0]]])
    inputs = ConvInputs(x, torch.zeros(1, 4), initial_states=before)
    assert inputs.final_states().flatten().tolist() == [8, 9, 1]
    assert not inputs.is_plain()


def test_all_documented_shapes_are_accepted():
    """B and C of the scan each per position, in groups or constant, alone or beside another form."""
    for form in ({}, {"groups": 1}, {"groups": 2}):
        for constant in ({}, {"constant_B": True}, {"constant_C": True}, {"constant_B": True, "constant_C": True}):
            ScanInputs(**ScanCase(**form, **constant).tensors()).check()
    for groups in (1, 2, 4):
        SSDInputs(**SSDCase(groups=groups).tensors()).check()
    x, states = torch.zeros(2, 6, 9), torch.zeros(2, 6, 3)
    ConvInputs(x, torch.zeros(6, 1), torch.zeros(6), torch.zeros(2, 9)).check()
    inputs = ConvInputs(x, torch.zeros(6, 4), initial_states=states, activation="silu")
    inputs.check_final_states(True, states)
