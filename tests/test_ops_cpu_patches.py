"""ops/cpu_patches.py against the specification in ops/patches.py."""

import pytest
import torch

from ops import cpu_patches, gather_patches_fn, patch_error_fn, patches
from tests.ops_cases import require_kernels, threads


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    require_kernels()


SHAPES = [(4, (8, 16, 24), 8), (4, (32, 32, 16), 16), (3, (6, 10, 4), 2), (1, (5, 10, 5), 5), (2, (18, 36, 18), 18)]


def case(contrasts: int, sides: tuple[int, ...], patch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A volume that is a view of a larger one, and some patches of each of 2 samples, one of them twice."""
    volume = torch.randn(2, contrasts, *sides[:2], sides[2] + 3)[..., 3:] * 2 + 1
    tokens = volume.shape[2:].numel() // patch**3
    return volume, torch.randint(tokens, (2, max(2, tokens // 2)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("contrasts_first", [False, True])
def test_gathered_rows(shape, contrasts_first):
    volume, ids = case(*shape)
    assert cpu_patches.takes(volume)
    for wanted in (ids, None):
        expected = patches.gather_patches(volume, wanted, shape[2], contrasts_first)
        assert torch.equal(gather_patches_fn(volume, wanted, shape[2], contrasts_first=contrasts_first), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = gather_patches_fn(volume, wanted, shape[2], contrasts_first=contrasts_first)
        assert torch.equal(half, expected.bfloat16())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_error_and_gradient(shape, normalise, dtype, tolerance, count):
    volume, ids = case(*shape)
    pred = torch.randn(*ids.shape, shape[0] * shape[2] ** 3).to(dtype).requires_grad_()
    with threads(count):
        value = patch_error_fn(pred, volume, ids, shape[2], normalise)
        (ours,) = torch.autograd.grad(value * 3, pred)
    expected = patches.patch_error(pred, volume, ids, shape[2], normalise)
    (theirs,) = torch.autograd.grad(expected * 3, pred)
    torch.testing.assert_close(value, expected, atol=0, rtol=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.detach().abs().max()))
    assert ours.dtype == dtype


def test_what_the_kernels_leave_to_pytorch():
    volume, pred = torch.randn(1, 1, 4, 4, 4), torch.randn(1, 2, 8)
    assert cpu_patches.takes(volume, pred)
    for other in (volume.double(), volume.mT, volume.clone().requires_grad_()):
        assert not cpu_patches.takes(other, pred)
    assert not cpu_patches.takes(volume, pred.double())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_operators_keep_pytorchs_contract():
    volume, ids = torch.randn(1, 2, 4, 4, 4), torch.tensor([[1, 6, 3]])
    pred = torch.randn(1, 3, 16, requires_grad=True)
    torch.library.opcheck(torch.ops.mamba_mae.gather_patches.default, (volume, ids, 2, False, True))
    torch.library.opcheck(torch.ops.mamba_mae.patch_error.default, (pred, volume, ids, 2, True))


def test_empty_batch():
    volume, ids = torch.zeros(0, 4, 8, 8, 8), torch.zeros(0, 3, dtype=torch.long)
    assert gather_patches_fn(volume, ids, 4).shape == (0, 3, 256)
