"""Volumes to patches and back, and patches to tokens.

Shape suffixes: B batch, C contrasts, Z Y X voxels, L tokens, K chosen tokens, P values per patch, E width, 1 a size.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.config import Grid
from ops import gather_patches_fn


def patchify(volume_BCZYX: Tensor, patch_size: int) -> Tensor:
    """(B, C, Z, Y, X) -> (B, L, P): patches in raster order, values ordered (pz, py, px, c) with c fastest."""
    p = patch_size
    return rearrange(volume_BCZYX, "b c (z p) (y q) (x r) -> b (z y x) (p q r c)", p=p, q=p, r=p)


def unpatchify(patches_BLP: Tensor, patch_size: int, grid: Grid) -> Tensor:
    """(B, L, P) -> (B, C, Z, Y, X), the inverse of patchify."""
    p, (z, y, x) = patch_size, grid
    return rearrange(patches_BLP, "b (z y x) (p q r c) -> b c (z p) (y q) (x r)", p=p, q=p, r=p, z=z, y=y, x=x)


def take_tokens(tokens_BLE: Tensor, ids_BK: Tensor) -> Tensor:
    """(B, L, E), (B, K) -> (B, K, E): the tokens of each sample with these indices, in their order."""
    return tokens_BLE.gather(1, ids_BK.unsqueeze(-1).expand(-1, -1, tokens_BLE.shape[-1]))


class PatchEmbed3D(nn.Module):
    """(B, C, Z, Y, X) -> (B, L, E): one token per patch, LayerNorm at the end.

    A convolution whose kernel equals its stride is a linear map of each patch. It is computed as a linear map, so a
    masked encoder embeds only the patches that it keeps. The weight has the convolution's shape and name.

    contrast_dropout: above 0, a learned vector replaces a missing contrast's contribution to every token. A contrast is
    missing if it is 0 in all voxels, or if training leaves it out, with this probability (one always stays).
    """

    grid_size: Grid
    """Patches along (z, y, x), set by the model. The embedding itself takes any size."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int, contrast_dropout: float = 0.0) -> None:
        super().__init__()
        self.patch_size, self.contrast_dropout = patch_size, contrast_dropout
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)
        nn.init.xavier_uniform_(self.proj.weight.data.flatten(1))
        nn.init.zeros_(self.proj.bias)  # pyright: ignore[reportArgumentType]  # Conv3d was built with a bias
        if contrast_dropout:
            self.missing_contrast = nn.Parameter(torch.zeros(in_chans, embed_dim))
            nn.init.normal_(self.missing_contrast, std=0.02)

    @property
    def num_patches(self) -> int:
        z, y, x = self.grid_size
        return z * y * x

    def forward(self, volume_BCZYX: Tensor, ids_BK: Tensor | None = None) -> Tensor:
        """Tokens of all patches (B, L, E), or of the patches with raster indices `ids_BK` (B, K, E)."""
        patches_BKP = gather_patches_fn(volume_BCZYX, ids_BK, self.patch_size, contrasts_first=True)
        weight = self.proj.weight.flatten(1)
        if not self.contrast_dropout:
            return self.norm(F.linear(patches_BKP, weight, self.proj.bias))
        missing_BC = self._missing(volume_BCZYX)
        by_contrast = patches_BKP.unflatten(2, (missing_BC.shape[1], -1))
        patches_BKP = by_contrast.masked_fill(missing_BC[:, None, :, None], 0).flatten(2)
        replacement_BE = missing_BC.to(self.missing_contrast.dtype) @ self.missing_contrast
        return self.norm(F.linear(patches_BKP, weight, self.proj.bias) + replacement_BE.unsqueeze(1))

    def _missing(self, volume_BCZYX: Tensor) -> Tensor:
        """(B, C) bool: contrasts that are 0 in all voxels or, in training, left out."""
        missing_BC = (volume_BCZYX == 0).flatten(2).all(2)
        if not self.training:
            return missing_BC
        drawn_BC = torch.rand(missing_BC.shape, device=missing_BC.device).masked_fill(missing_BC, -1)
        stays_B1 = drawn_BC.argmax(1, keepdim=True)  # a present contrast, each with the same probability
        dropped_BC = (drawn_BC < self.contrast_dropout).scatter(1, stays_B1, False)
        return missing_BC | dropped_BC
