"""The resampling kernel against the specification, and both against exact translations."""

import pytest
import torch
from torch import Tensor

from ops import resample_affine_fn
from ops.cpu import resample as cpu_resample
from ops.reference import resample
from tests.helpers.ops_cases import require_kernels, threads

IDENTITY = torch.eye(3, 4, dtype=torch.float64)
WAYS = pytest.mark.parametrize("run", [resample.resample_affine, resample_affine_fn], ids=["plain", "fastest"])


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    require_kernels()


def maps(count: int, seed: int = 0, reach: float = 0.3) -> Tensor:
    """(count, 3, 4) maps that rotate, scale, shear and shift; parts of the volume leave the field of view."""
    generator = torch.Generator().manual_seed(seed)
    return IDENTITY + reach * torch.randn(count, 3, 4, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 4, 16, 20, 24), (2, 3, 8, 5, 7), (1, 1, 17, 16, 33), (3, 2, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_kernel_against_the_specification(shape: tuple[int, ...], count: int):
    volume, back = torch.rand(shape), maps(shape[0])
    assert cpu_resample.takes(volume)
    with threads(count):
        actual = resample_affine_fn(volume, back)
    torch.testing.assert_close(actual, resample.resample_affine(volume, back), rtol=0, atol=2e-5)
    assert actual.any()


@WAYS
def test_whole_voxels_move_exactly(run):
    volume, back = torch.rand(1, 2, 6, 7, 9), IDENTITY.clone()[None]
    back[0, :, 3] = torch.tensor([2.0, -1.0, 3.0])
    expected = torch.zeros_like(volume)
    expected[:, :, :4, 1:, :6] = volume[:, :, 2:, :6, 3:]
    torch.testing.assert_close(run(volume, back), expected, rtol=0, atol=1e-5)


@WAYS
def test_the_border_fades_to_zero(run):
    back = IDENTITY.clone()[None]
    back[0, 2, 3] = 0.25
    actual = run(torch.ones(1, 1, 4, 4, 4), back)
    torch.testing.assert_close(actual[0, 0, 1, 1], torch.tensor([1.0, 1.0, 1.0, 0.75]))


@WAYS
@pytest.mark.parametrize("far", [1e4, -1e4, 1e12, -1e12])
def test_positions_outside_the_volume_are_zero(run, far: float):
    back = IDENTITY.clone()[None]
    back[0, 1, 3] = far
    assert not run(torch.ones(1, 1, 3, 4, 5), back).any()


def test_results_do_not_depend_on_memory_layout_or_threads():
    volume, back = torch.rand(1, 3, 8, 9, 10), maps(1)
    actual = resample_affine_fn(volume, back)
    strided = volume.permute(0, 4, 3, 2, 1).contiguous().permute(0, 4, 3, 2, 1)
    assert torch.equal(resample_affine_fn(strided, back), actual)
    with threads(2):
        assert torch.equal(resample_affine_fn(volume, back), actual)


def test_what_the_kernel_leaves_to_pytorch():
    volume = torch.rand(1, 1, 4, 4, 4)
    for other in (volume.double(), volume.clone().requires_grad_()):
        assert not cpu_resample.takes(other)
        torch.testing.assert_close(resample_affine_fn(other, IDENTITY[None]), other)


def test_an_empty_batch():
    assert resample_affine_fn(torch.rand(0, 2, 4, 4, 4), torch.zeros(0, 3, 4)).shape == (0, 2, 4, 4, 4)
