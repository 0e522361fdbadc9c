"""VolumeEncoder: what the masked autoencoder and the classifier share, with timm's names for it."""

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
    "jit.trace, jit.script and fx.symbolic_trace do not see into this model's kernels and record one path through it: "
    "use torch.export.export(model, (volume,)), or python -m util.checkpoint export RUN OUT.pt2"
)


class VolumeEncoder(Intermediates):
    """Patch embedding, position embedding (which the subclass defines as `pos_embed`), trunk and final norm."""

    classifier: ClassVar[str | None] = None
    """The module that maps features to classes, where there is one."""
    pretrained_cfg: dict[str, Any]
    """timm's description of the weights, from create_model; default_cfg is its older name."""
    default_cfg: dict[str, Any]
    pos_embed: Tensor
    scan_places: Tensor | None
    """(L,) raster places in scan order; None for raster itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.parts = config, PARTS[config.fidelity]
        order = config.scan_order or self.parts.scan_orders[0]
        if order not in self.parts.scan_orders:
            raise ValueError(
                f'scan_order="{order}" does not go with fidelity="{config.fidelity}", which knows '
                f'{", ".join(self.parts.scan_orders)} only: use fidelity="corrected"'
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
        """Channels of what a head reads."""
        return self.config.embed_dim

    @property
    def in_chans(self) -> int:
        return self.config.in_chans

    @property
    def num_classes(self) -> int:
        """0: no logits but features."""
        return 0

    def set_input_size(self, img_size: int | Sequence[int]) -> None:
        """Take volumes of another size from now on: position embeddings are resampled to its grid."""
        old, config = self.grid, dataclasses.replace(self.config, img_size=volume_size(img_size))
        self.config, self.patch_embed.grid_size = config, config.grid
        positions = {name: x for name, x in self.state_dict().items() if name.endswith("pos_embed")}
        for name, embedding in positions.items():
            adapted = AdaptedState({name: embedding})
            fit_positions(adapted, name, old, self.grid, slots=embedding.shape[1] - math.prod(old))
            value, former = adapted.state[name], getattr(self, name)
            is_learned = isinstance(former, nn.Parameter)
            setattr(self, name, nn.Parameter(value, former.requires_grad) if is_learned else value)
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
        tokens_BNE: Tensor,
        rotation: Tensor | None,
        *,
        ids_BN: Tensor | None = None,
        collect: Collect | None = None,
        blocks: int | None = None,
    ) -> Tensor:
        """`trunk`, or its first `blocks`, on tokens (B, N, E) read in scan order; in and out, and what `collect` sees,
        stay in the order given.

        ids_BN: the raster places of the tokens, where they are not all L in raster order. Positions travel with tokens:
        embeddings are in them; the rotation, (B, N, E/2) with ids_BN and (1, N, E/2) without, is put in order alike.
        """
        if self.scan_places is None:
            return trunk(tokens_BNE, norm, rotation, collect, blocks)
        order = self.scan_places
        if ids_BN is not None:
            order = order.argsort()[ids_BN].argsort(dim=1)
        back = order.argsort(dim=-1)

        def collect_back(index: int, state: Tensor) -> None:
            assert collect is not None
            collect(index, _reorder(state, back))

        turned = None if rotation is None else _reorder(rotation, order)
        scanned = trunk(_reorder(tokens_BNE, order), norm, turned, collect_back if collect else None, blocks)
        return _reorder(scanned, back)

    def no_weight_decay(self) -> set[str]:
        """Parameters that an optimiser must not decay: state matrices, skip weights, embeddings (biases and norms,
        being one-dimensional, are left out by timm's parameter groups anyway)."""
        names = {name for name, _ in self.named_parameters() if name.endswith(UNDECAYED_SUFFIXES)}
        return names | {"pos_embed", "mask_token", MISSING_CONTRAST}

    def group_matcher(self, coarse: bool = False) -> dict:
        """timm's layer groups for layer-wise learning-rate decay: embedding, each block, the rest."""
        return {"stem": r"^(?:pos_embed|patch_embed)", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm_f", (99999,))]}

    def __prepare_scriptable__(self) -> Any:
        raise ValueError(NOT_TRACED)  # torch.jit.script asks

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for trunk in (self.blocks, getattr(self, "decoder_blocks", None)):
            if trunk is not None:
                trunk.grad_checkpointing = enable


def _reorder(tokens_BNE: Tensor, order: Tensor) -> Tensor:
    """Tokens in an order of each sample (B, N), or in one for all (N,), which is several times faster."""
    return tokens_BNE.index_select(1, order) if order.dim() == 1 else take_tokens(tokens_BNE, order)


def check_volume(volume_BCZYX: Tensor, config: ModelConfig) -> None:
    """Raise ValueError where a batch of volumes does not have the model's contrasts and size, or is no batch but what
    stands for one where a model is recorded."""
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
