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
    found = resample.resample_affine(volume, back)
    assert found.dtype == dtype
    for sample, place, original in zip(found, back.numpy(), volume, strict=True):
        for channel, source in zip(sample, original, strict=True):
            turn, shift = place[:, :3], place[:, 3] + 1 - place[:, :3] @ np.ones(3)  # of the volume in a frame of air
            expected = affine_transform(np.pad(source.numpy(), 1), turn, shift, order=1)[1:-1, 1:-1, 1:-1]
            torch.testing.assert_close(channel, torch.from_numpy(expected).to(dtype), rtol=0, atol=2e-5)
