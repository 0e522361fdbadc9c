import pytest
import torch

from ops.cpu import library as cpu_library


def test_structs_have_the_size_the_compiler_gives_them():
    if problem := cpu_library.problem():
        pytest.skip(problem)
    assert cpu_library.library().scan_register_width() in (4, 8, 16)  # loading asserts the sizes


def test_rows_is_a_view_of_channel_last_memory():
    x = torch.randn(2, 5, 6)
    assert cpu_library.rows(x.transpose(1, 2)).data_ptr() == x.data_ptr()
    copied = cpu_library.rows(x)
    assert copied.is_contiguous()
    assert torch.equal(copied, x.transpose(1, 2))


def test_columns_is_a_view_of_projected_float32_rows():
    projected = torch.randn(2, 7, 12)
    seen = cpu_library.columns(projected[..., 3:7].transpose(1, 2))
    assert seen.data_ptr() == projected[..., 3:].data_ptr()
    assert torch.equal(seen[:, 0], projected[..., 3:7])
    assert cpu_library.columns(projected.bfloat16().transpose(1, 2)).dtype == torch.float32


def test_half_precision_needs_every_sequence_in_it():
    half, full = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1)
    assert cpu_library.io_dtype(half, half, None) == torch.bfloat16
    assert cpu_library.io_dtype(half, full, half) == torch.float32
