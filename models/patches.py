"""Volumes to patches and back, and patches to tokens."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from models.config import Grid


def patchify(volume_BCZYX: Tensor, patch_size: int, ids_BK: Tensor | None = None) -> Tensor:
    """(B, C, Z, Y, X) -> (B, L, P): patches in raster order, values ordered (pz, py, px, c) with c fastest.

    With `ids_BK` only the patches named, (B, K, P), of each sample.
    """
    return _flat_patches(volume_BCZYX, patch_size, "p q r c", ids_BK)


def _flat_patches(volume_BCZYX: Tensor, p: int, order: str, ids_BK: Tensor | None) -> Tensor:
    """(B, L or K, P) with the values of a patch in `order`; only what is named is read and copied."""
    grid = rearrange(volume_BCZYX, f"b c (z p) (y q) (x r) -> b z y x {order}", p=p, q=p, r=p)  # a view
    if ids_BK is None:
        return grid.flatten(4).flatten(1, 3)
    _, _, y, x = grid.shape[:4]
    sample = torch.arange(grid.shape[0], device=ids_BK.device)[:, None]
    return grid[sample, ids_BK // (y * x), ids_BK // x % y, ids_BK % x].flatten(2)


def unpatchify(patches_BLP: Tensor, patch_size: int, grid: Grid) -> Tensor:
    """(B, L, P) -> (B, C, Z, Y, X), the inverse of patchify."""
    p, (z, y, x) = patch_size, grid
    return rearrange(patches_BLP, "b (z y x) (p q r c) -> b c (z p) (y q) (x r)", p=p, q=p, r=p, z=z, y=y, x=x)


def take_tokens(tokens_BLE: Tensor, ids_BK: Tensor) -> Tensor:
    """(B, L, E), (B, K) -> (B, K, E): the named tokens of each sample, in the order named."""
    return tokens_BLE.gather(1, ids_BK.unsqueeze(-1).expand(-1, -1, tokens_BLE.shape[-1]))


class PatchEmbed3D(nn.Module):
    """(B, C, Z, Y, X) -> (B, L, E): one token per patch, LayerNorm at the end.

    A convolution whose kernel equals its stride is a linear map of each patch, and is computed as one: then only the
    patches that a masked encoder keeps need be embedded. The weight keeps the convolution's shape and name.
    """

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(embed_dim, eps=1e-5)
        nn.init.xavier_uniform_(self.proj.weight.data.flatten(1))
        nn.init.zeros_(self.proj.bias)  # pyright: ignore[reportArgumentType]  # Conv3d was built with a bias

    def forward(self, volume_BCZYX: Tensor, ids_BK: Tensor | None = None) -> Tensor:
        """Tokens of all patches, or (B, K, E) of the patches named by `ids_BK`."""
        patches = _flat_patches(volume_BCZYX, self.patch_size, "c p q r", ids_BK)
        return self.norm(F.linear(patches, self.proj.weight.flatten(1), self.proj.bias))
