"""VolumeEncoder: the encoder that pre-training models and classifiers share, with timm's names.

Shape suffixes: B batch, C contrasts, Z Y X voxels, L tokens, T tokens given to a trunk (all L or the K kept), E width.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.adapt import MISSING_CONTRAST, AdaptedState, fit_positions
from models.blocks.fidelity import PARTS
from models.blocks.trunk import NORM_EPS, Collect, RMSNorm, Trunk, build_trunk
from models.config import Grid, ModelConfig, ScanOrder, volume_size
from models.intermediates import Intermediates
from models.tokens.patches import PatchEmbed3D, take_tokens
from models.tokens.scan_orders import RASTER, SHUFFLE, scan_places

UNDECAYED_SUFFIXES = ("A_log", "A_b_log", ".D", ".D_b", ".dt_bias", ".dt_bias_b")
NOT_TRACED = (
    "jit.trace, jit.script and fx.symbolic_trace cannot read this model's kernels and record only one path through it: "
    "use torch.export.export(model, (volume,)), or python -m util.checkpoint export RUN OUT.pt2"
)


class VolumeEncoder(Intermediates):
    """Patch embedding, position embedding (`pos_embed`, defined by the subclass), trunk and final norm."""

    classifier: ClassVar[str | None] = None
    """Name of the module that maps features to classes, if there is one."""
    pretrained_cfg: dict[str, Any]
    """timm's description of the weights, set by create_model. default_cfg is its older name."""
    default_cfg: dict[str, Any]
    pos_embed: Tensor
    scan_places: Tensor | None
    """(L,) raster index of the token at each scan step; None for raster order."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.parts = config, PARTS[config.fidelity]
        order = config.scan_order or self.parts.scan_orders[0]
        if order not in self.parts.scan_orders:
            raise ValueError(
                f'scan_order="{order}" does not go with fidelity="{config.fidelity}", which has only '
                f'{", ".join(self.parts.scan_orders)}: use fidelity="corrected"'
            )
        self.order: ScanOrder = order
        self.register_buffer("scan_places", self._scan_places(), persistent=False)
        self.patch_embed = PatchEmbed3D(config.in_chans, config.embed_dim, config.patch_size, config.contrast_dropout)
        self.patch_embed.grid_size = config.grid
        self.blocks = build_trunk(config, config.embed_dim, config.depth, config.num_heads, config.attention_layers)
        self.norm_f = RMSNorm(config.embed_dim, eps=NORM_EPS)

    @property
    def shuffles(self) -> bool:
        """Whether kept tokens are read in the order of their noise."""
        return self.order == SHUFFLE

    @property
    def grid(self) -> Grid:
        """Tokens along (z, y, x)."""
        return self.config.grid

    @property
    def embed_dim(self) -> int:
        return self.config.embed_dim

    @property
    def num_features(self) -> int:
        """Channels of the tokens."""
        return self.config.embed_dim

    @property
    def head_hidden_size(self) -> int:
        """Channels of a head's input."""
        return self.config.embed_dim

    @property
    def in_chans(self) -> int:
        return self.config.in_chans

    @property
    def num_classes(self) -> int:
        """0: the model returns features, not logits."""
        return 0

    def set_input_size(self, img_size: int | Sequence[int]) -> None:
        """Change the size of the volumes that the model takes. Position embeddings are resampled to the new grid."""
        old_grid, config = self.grid, dataclasses.replace(self.config, img_size=volume_size(img_size))
        self.config, self.patch_embed.grid_size = config, config.grid
        positions = {name: x for name, x in self.state_dict().items() if name.endswith("pos_embed")}
        for name, embedding in positions.items():
            adapted = AdaptedState({name: embedding})
            fit_positions(adapted, name, old_grid, self.grid, slots=embedding.shape[1] - math.prod(old_grid))
            new, old = adapted.state[name], getattr(self, name)
            is_learned = isinstance(old, nn.Parameter)
            setattr(self, name, nn.Parameter(new, old.requires_grad) if is_learned else new)
        places = self._scan_places()
        self.scan_places = None if places is None else places.to(self.pos_embed.device)

    def _scan_places(self) -> Tensor | None:
        return None if self.order in (SHUFFLE, RASTER) else scan_places(self.order, self.grid)

    def all_tokens_rotation(self, device: torch.device) -> Tensor:
        """The rotation of all L tokens in raster order."""
        return self.parts.full_rotation(self.grid, self.config.embed_dim, device)

    def forward_features(self, volume_BCZYX: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, L, E): every token, in raster order, after the final norm."""
        return self._features(volume_BCZYX, None, None)

    def _features(self, volume_BCZYX: Tensor, collect: Collect | None, blocks: int | None) -> Tensor:
        check_volume(volume_BCZYX, self.config)
        tokens = self.patch_embed(volume_BCZYX) + self.pos_embed
        rotation = None if self.config.rotary == "none" else self.all_tokens_rotation(volume_BCZYX.device)
        return self.scan(self.blocks, self.norm_f, tokens, rotation, collect=collect, blocks=blocks)

    def scan(
        self,
        trunk: Trunk,
        norm: nn.Module,
        tokens_BTE: Tensor,
        rotation: Tensor | None,
        *,
        ids_BT: Tensor | None = None,
        collect: Collect | None = None,
        blocks: int | None = None,
    ) -> Tensor:
        """`trunk`, or its first `blocks`, on tokens (B, T, E), which it reads in scan order.

        The input, the output and the states that `collect` receives have the same order. ids_BT: raster indices of the
        tokens, unless they are all L in raster order. rotation, (B, T, E/2) with ids_BT and (1, T, E/2) without, is in
        the tokens' order and is reordered with them; position embeddings are part of the tokens.
        """
        if self.scan_places is None:
            return trunk(tokens_BTE, norm, rotation, collect, blocks)
        order = self.scan_places
        if ids_BT is not None:
            order = order.argsort()[ids_BT].argsort(dim=1)
        inverse = order.argsort(dim=-1)

        def collect_reordered(index: int, state: Tensor) -> None:
            assert collect is not None
            collect(index, _reorder(state, inverse))

        rotation = None if rotation is None else _reorder(rotation, order)
        scanned = trunk(_reorder(tokens_BTE, order), norm, rotation, collect_reordered if collect else None, blocks)
        return _reorder(scanned, inverse)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay: state matrices, skip weights and embeddings. timm's parameter groups already
        exclude biases and norms, which are one-dimensional."""
        names = {name for name, _ in self.named_parameters() if name.endswith(UNDECAYED_SUFFIXES)}
        return names | {"pos_embed", "mask_token", MISSING_CONTRAST}

    def group_matcher(self, coarse: bool = False) -> dict:
        """timm's layer groups for layer-wise learning-rate decay: the embedding, each block, the rest."""
        return {"stem": r"^(?:pos_embed|patch_embed)", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm_f", (99999,))]}

    def __prepare_scriptable__(self) -> Any:
        raise ValueError(NOT_TRACED)  # torch.jit.script calls this

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for trunk in (self.blocks, getattr(self, "decoder_blocks", None)):
            if trunk is not None:
                trunk.grad_checkpointing = enable


def _reorder(tokens_BTE: Tensor, order: Tensor) -> Tensor:
    """Tokens in an order per sample (B, T), or in one order for all samples (T,), which is several times faster."""
    return tokens_BTE.index_select(1, order) if order.dim() == 1 else take_tokens(tokens_BTE, order)


def check_volume(volume_BCZYX: Tensor, config: ModelConfig) -> None:
    """Raise ValueError if volumes differ from the model in contrasts or size, or if jit or fx records them."""
    if torch.jit.is_tracing() or isinstance(volume_BCZYX, torch.fx.Proxy):
        raise ValueError(NOT_TRACED)
    expected = (config.in_chans, *config.img_size)
    shape = tuple(volume_BCZYX.shape)
    if shape[1:] != expected or len(shape) != 5:
        if len(shape) == 4:
            fix = "add a batch axis, volume.unsqueeze(0)"
        elif len(shape) == 5:
            fix = f"create the model with img_size={shape[2:]} and in_chans={shape[1]}"
        else:
            fix = "give (batch, contrasts, Z, Y, X)"
        raise ValueError(f"volume has shape {shape}, the model expects (batch, *{expected}): {fix}")
