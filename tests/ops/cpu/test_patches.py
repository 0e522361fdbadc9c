"""ops/cpu/patches.py against the specification in ops/reference/patches.py."""

import pytest
import torch
import torch.nn.functional as F

from ops import gather_patches_fn, linear_patch_error_fn
from ops.cpu import patches as cpu_patches
from ops.reference import patches
from tests.helpers.ops_cases import require_kernels, threads


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


def layer(shape: tuple[int, tuple[int, ...], int], ids: torch.Tensor) -> list[torch.Tensor]:
    """Decoded tokens of width 12, and weight and bias of the linear layer that predicts patches from them."""
    values = shape[0] * shape[2] ** 3
    made = torch.randn(*ids.shape, 12), torch.randn(values, 12) / 4, torch.randn(values)
    return [x.requires_grad_() for x in made]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 1e-2)], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("count", "chunk"), [(1, 2048), (3, 1), (2, 300)])
def test_error_of_a_layer_and_all_its_gradients(monkeypatch, shape, normalise, half, tolerance, count, chunk):
    """With any number of predicted planes at a time: one, some with a smaller last part, or all."""
    monkeypatch.setattr(cpu_patches, "CHUNK", chunk)
    volume, ids = case(*shape)
    leaves = layer(shape, ids)
    with threads(count), torch.autocast("cpu", torch.bfloat16, enabled=half):
        value = linear_patch_error_fn(*leaves, volume, ids, shape[2], normalise)
        expected = patches.patch_error(F.linear(*leaves), volume, ids, shape[2], normalise)
    ours, theirs = (torch.autograd.grad(loss * 3, leaves) for loss in (value, expected))
    torch.testing.assert_close(value, expected, atol=0, rtol=1e-6)
    for gradient, wanted in zip(ours, theirs, strict=True):
        assert gradient.dtype == torch.float32
        assert float((gradient - wanted).norm() / wanted.norm()) < tolerance
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        assert torch.equal(linear_patch_error_fn(*leaves, volume, ids, shape[2], normalise), value)


def test_patches_of_one_value_and_far_from_zero():
    """A variance of 0 is replaced by its floor. A large mean does not reduce the precision of the variance."""
    volume = torch.cat([torch.full((1, 2, 4, 4, 4), 7.0), torch.randn(1, 2, 4, 4, 4) + 1000], dim=-1)
    ids = torch.tensor([[0, 1]])
    leaves = layer((2, (4, 4, 8), 4), ids)
    value = linear_patch_error_fn(*leaves, volume, ids, 4, True)
    exact = [x.detach().double() for x in leaves]
    torch.testing.assert_close(
        value.double(), patches.patch_error(F.linear(*exact), volume.double(), ids, 4, True), atol=0, rtol=1e-4
    )


def test_predictions_are_never_held_all_at_once():
    """The volume has 32 MiB. Predictions take 1 MiB at a time, the largest allocation (the weight's gradient) 4."""
    volume, ids = torch.randn(1, 4, 128, 128, 128), torch.arange(64).view(1, 64)
    leaves = [torch.randn(1, 64, 8), torch.randn(4 * 32**3, 8), torch.randn(4 * 32**3)]
    for leaf in leaves:
        leaf.requires_grad_()
    with torch.profiler.profile(profile_memory=True) as profiler:
        linear_patch_error_fn(*leaves, volume, ids, 32).backward()
    assert max(event.self_cpu_memory_usage for event in profiler.events()) <= 2**22


def test_what_the_kernels_leave_to_pytorch():
    volume, pred = torch.randn(1, 1, 4, 4, 4), torch.randn(1, 2, 8)
    assert cpu_patches.takes(volume, pred, pred)
    for other in (volume.double(), volume.mT, volume.clone().requires_grad_()):
        assert not cpu_patches.takes(other, pred)
    assert not cpu_patches.takes(volume, pred.double())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_operators_keep_pytorchs_contract():
    volume, ids = torch.randn(1, 2, 4, 4, 4), torch.tensor([[1, 6, 3]])
    leaves = layer((2, (4, 4, 4), 2), ids)
    torch.library.opcheck(torch.ops.mamba_mae.gather_patches.default, (volume, ids, 2, False, True))
    for keep in (True, False):
        arguments = *(leaf.requires_grad_(keep) for leaf in leaves), volume, ids, 2, True, keep
        torch.library.opcheck(torch.ops.mamba_mae.linear_patch_error.default, arguments)
    made = torch.ops.mamba_mae.linear_patch_error(*(x.detach() for x in leaves), volume, ids, 2, True, True)
    torch.library.opcheck(torch.ops.mamba_mae.linear_patch_error_backward.default, made)


def test_empty_batch():
    volume, ids = torch.zeros(0, 4, 8, 8, 8), torch.zeros(0, 3, dtype=torch.long)
    assert gather_patches_fn(volume, ids, 4).shape == (0, 3, 256)
    leaves = layer((4, (8, 8, 8), 4), ids)
    linear_patch_error_fn(*leaves, volume, ids, 4).backward()
    assert [x.grad.shape for x in leaves if x.grad is not None] == [x.shape for x in leaves]
