"""ops/reference/resample.py against scipy's affine transform."""

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from ops.reference import resample


@pytest.mark.parametrize(("batch", "size"), [(1, (16, 9, 12)), (2, (16, 9, 12)), (1, (9, 8, 16))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_affine_is_scipys(batch: int, size: tuple[int, int, int], dtype: torch.dtype):
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(batch, 2, *size, generator=generator, dtype=dtype)
    back = torch.eye(3, 4, dtype=torch.float64) + 0.2 * torch.randn(batch, 3, 4, generator=generator).double()
    actual = resample.resample_affine(volume, back)
    assert actual.dtype == dtype
    for sample, matrix, original in zip(actual, back.numpy(), volume, strict=True):
        for channel, source in zip(sample, original, strict=True):
            linear = matrix[:, :3]
            shift = matrix[:, 3] + 1 - linear @ np.ones(3)  # of the volume padded by one voxel of zeros
            expected = affine_transform(np.pad(source.numpy(), 1), linear, shift, order=1)[1:-1, 1:-1, 1:-1]
            torch.testing.assert_close(channel, torch.from_numpy(expected).to(dtype), rtol=0, atol=2e-5)
