"""ModelConfig: every number and choice that defines a model."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ops import Backend

Grid = tuple[int, int, int]  # always (z, y, x)
Fidelity = Literal["corrected", "paper"]
MixerName = Literal["mamba", "mamba2", "attention"]
Directions = Literal["both", "forward"]
RotaryName = Literal["axial", "none"]
ScanOrder = Literal["raster", "zxy", "yzx", "yxz", "xzy", "xyz", "snake", "hilbert", "shuffle"]
MaskingName = Literal["random", "block", "grid"]
Pool = Literal["mean", "last", "max", "avgmax", "none"]
GLOBAL_POOLS: dict[str, Pool] = {"avg": "mean", "": "none"}  # timm's names that differ from ours
CHOICES = {
    "mixer": MixerName,
    "rotary": RotaryName,
    "directions": Directions,
    "fidelity": Fidelity,
    "scan_order": ScanOrder,
    "masking": MaskingName,
    "pool": Pool,
}


@dataclass(frozen=True)
class ModelConfig:
    """Fields of an autoencoder or a classifier.

    Classifiers ignore the decoder's fields. Autoencoders ignore the head's: `num_classes`, `pool` and `drop_rate`.
    """

    img_size: Grid = (160, 160, 160)
    """Voxels (Z, Y, X); an int means a cube."""
    patch_size: int = 16
    """Side of a cubic patch in voxels."""
    in_chans: int = 4
    """Contrasts, in the order t1, t2, t1ce, flair."""
    num_classes: int = 2
    """0: a classifier returns the input of its head."""
    embed_dim: int = 384
    depth: int = 12
    decoder_embed_dim: int = 192
    decoder_depth: int = 8
    mixer: MixerName = "mamba"
    """What mixes tokens: Mamba's selective scans, Mamba2's scans, or softmax attention."""
    directions: Directions = "both"
    """Scan directions of a Mamba mixer: from both ends, or from the first token only (causal)."""
    attention_layers: tuple[int, ...] = ()
    """Encoder blocks, counted from 0, with attention instead of a scan: a hybrid. Its decoder scans in every block."""
    attention_heads: int = 16
    """Heads of a hybrid's attention blocks."""
    attention_head_dim: int = 128
    """Channels of each of these heads, independent of embed_dim."""
    rotary: RotaryName = "axial"
    """Rotary embedding before each block. "none" for the ViT, which has its position embedding only."""
    num_heads: int = 6
    """Attention heads of the encoder (attention mixer only)."""
    decoder_num_heads: int = 6
    mlp_ratio: float = 0.0
    """Width of the feed-forward part after the mixer relative to embed_dim. 0: none, as in Mamba blocks."""
    d_state: int = 16
    """States N of a scan channel."""
    head_dim: int = 64
    """Channels of a Mamba2 head, which share one decay."""
    d_conv: int = 4
    expand: int = 2
    """Inner width I = expand * embed_dim."""
    pool: Pool = "mean"
    """Input of a classifier's head: the mean of all tokens, their maximum, the mean of both (avgmax), the last token of
    the scan, or every token (none). create_model also takes timm's names as global_pool: avg, max, avgmax, ""."""
    drop_rate: float = 0.0
    """Dropout before a classifier's head."""
    drop_path_rate: float = 0.1
    contrast_dropout: float = 0.0
    """Probability with which training leaves out each contrast of a sample; at least one stays. Above 0, a volume may
    lack contrasts: one that is 0 in every voxel counts as missing, and a learned token replaces it."""
    norm_pix_loss: bool = False
    """Reconstruct each patch normalised by its own mean and variance."""
    grad_checkpointing: bool = False
    """Compute each block again in the backward pass instead of storing its activations."""
    fidelity: Fidelity = "corrected"
    """`paper` reproduces the published code with its defects, for its checkpoints and numbers."""
    scan_order: ScanOrder | None = None
    """Order in which a trunk reads its tokens: raster (z slowest, x fastest), another permutation of the axes (slowest
    first), snake, hilbert, or shuffle (kept tokens in the order of their noise). None: the default of the fidelity,
    raster in `corrected`, shuffle in `paper`."""
    masking: MaskingName = "random"
    """Which tokens an autoencoder removes: random ones, cubes of neighbours, or all but a regular lattice."""
    scan_backend: Backend = "auto"
    """Backend of the scans and convolutions of ops; never changes the maths."""

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value, known = getattr(self, name), get_args(choices)
            if value not in known and not (value is None and name == "scan_order"):
                raise ValueError(f'{name}="{value}" is not one of {", ".join(known)}{did_you_mean(str(value), known)}')
        if min(self.patch_size, self.in_chans, self.embed_dim, self.depth, self.d_state, self.num_classes + 1) < 1:
            raise ValueError("patch_size, in_chans, embed_dim, depth and d_state must be at least 1, num_classes 0")
        if min(self.head_dim, self.attention_heads, self.attention_head_dim) < 1:
            raise ValueError("head_dim, attention_heads and attention_head_dim must be at least 1")
        if self.attention_layers and self.mixer == "attention":
            raise ValueError(
                f'attention_layers={self.attention_layers} needs scans in the other blocks: mixer="mamba" or "mamba2"'
            )
        for layer in self.attention_layers:
            if not isinstance(layer, int) or not 0 <= layer < self.depth:
                raise ValueError(
                    f"attention_layers={self.attention_layers} names block {layer}, the encoder has blocks 0.."
                    f"{self.depth - 1}: choose attention_layers along with depth"
                )
        for name in ("drop_path_rate", "drop_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1)")
        if not 0 <= self.contrast_dropout < 1:
            raise ValueError(
                f"contrast_dropout={self.contrast_dropout} must lie in [0, 1): 0 for models that need every contrast, "
                "0.3 leaves out each in 3 of 10 samples"
            )
        if self.contrast_dropout and self.in_chans == 1:
            raise ValueError(f"contrast_dropout={self.contrast_dropout} needs more than the one contrast of in_chans=1")
        if self.mixer == "attention" and self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim={self.embed_dim} is not divisible by num_heads={self.num_heads}")
        for axis, side in zip("ZYX", self.img_size):
            if side < 1 or side % self.patch_size:
                raise ValueError(
                    f"img_size {axis}={side} is not divisible by patch_size={self.patch_size}: "
                    f"prepare volumes of another size or choose another patch"
                )

    @property
    def grid(self) -> Grid:
        """Tokens along z, y, x."""
        z, y, x = (side // self.patch_size for side in self.img_size)
        return z, y, x

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def patch_values(self) -> int:
        """P = patch_size^3 * in_chans."""
        return self.patch_size**3 * self.in_chans


def build_config(values: dict[str, Any]) -> ModelConfig:
    """ModelConfig from keyword arguments. img_size may be an int; global_pool is timm's name of pool.

    Raises ValueError for an unknown field, with the known ones.
    """
    values, known = dict(values), [f.name for f in fields(ModelConfig)]
    if "global_pool" in values:
        pool = values.pop("global_pool")
        values["pool"] = GLOBAL_POOLS.get(pool, pool)
    for name in values:
        if name not in known:
            raise ValueError(f"unknown model field {name!r}{did_you_mean(name, known)} Known: {', '.join(known)}")
    if "img_size" in values:
        values["img_size"] = volume_size(values["img_size"])
    if "attention_layers" in values:  # a list if it comes from JSON
        layers = values["attention_layers"]
        values["attention_layers"] = tuple(sorted(set(layers))) if isinstance(layers, Iterable) else (layers,)
    return ModelConfig(**values)


def volume_size(size: int | Iterable[int]) -> Grid:
    """(Z, Y, X) from the side of a cube or from three sides."""
    sides = (size,) * 3 if isinstance(size, int) else tuple(int(side) for side in size)
    if len(sides) != 3:
        raise ValueError(f"img_size={size!r} must be one int or three (Z, Y, X)")
    return sides


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint with the closest known name, ending the sentence."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else "."
