"""Which tokens an autoencoder's encoder sees."""

from typing import NamedTuple

import torch
from torch import Tensor


class Mask(NamedTuple):
    """ids_keep (B, K): tokens the encoder sees, in the order it scans them; ids_removed (B, L-K), ascending."""

    ids_keep: Tensor
    ids_removed: Tensor

    def removed(self) -> Tensor:
        """(B, L) float, 1 where a token was removed."""
        length = self.ids_keep.shape[1] + self.ids_removed.shape[1]
        removed = torch.zeros(self.ids_keep.shape[0], length, device=self.ids_keep.device)
        return removed.scatter(1, self.ids_removed, 1.0)


def random_mask(noise_BL: Tensor, mask_ratio: float, *, ascending: bool) -> Mask:
    """Keep the K = int(L * (1 - mask_ratio)) tokens of smallest noise, in raster order or in the order of their noise.

    Raises ValueError unless 0 < mask_ratio < 1 and both parts hold at least one token.
    """
    length = noise_BL.shape[1]
    if not 0 < mask_ratio < 1:
        raise ValueError(f"mask_ratio={mask_ratio} must lie between 0 and 1")
    kept = int(length * (1 - mask_ratio))
    if not 0 < kept < length:
        raise ValueError(
            f"mask_ratio={mask_ratio} of {length} tokens leaves {kept}; choose another ratio or patch size"
        )
    order = noise_BL.argsort(dim=1, stable=True)
    ids_keep, ids_removed = order[:, :kept], order[:, kept:].sort(dim=1).values
    if ascending:  # a scan, unlike attention, reads order
        ids_keep = ids_keep.sort(dim=1).values
    return Mask(ids_keep, ids_removed)
