"""VolumeClassifier: trunk on all tokens, mean, linear head, with timm's interface (docs/method.md#classifier).

Shape suffixes: B batch, C contrasts, Z Y X voxels, L tokens, E width.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models.adapt import (
    CLASS_TOKEN,
    DECODER_ONLY,
    ENCODER_FIELDS,
    HEAD,
    ROTARY_BUFFER,
    AdaptedState,
    check_family,
    drop,
    fit_directions,
    fit_missing_contrasts,
    fit_positions,
)
from models.config import GLOBAL_POOLS, Grid, ModelConfig, Pool
from models.encoder import VolumeEncoder

_POOLS: dict[
    Pool, Callable[[Tensor, Tensor | int], Tensor]
] = {  # (tokens (B, L, E), index of the last token of the scan)
    "mean": lambda tokens, last: tokens.mean(dim=1),
    "max": lambda tokens, last: tokens.amax(dim=1),
    "avgmax": lambda tokens, last: (tokens.mean(dim=1) + tokens.amax(dim=1)) / 2,
    "last": lambda tokens, last: tokens[:, last],
    "none": lambda tokens, last: tokens,
}


class VolumeClassifier(VolumeEncoder):
    """(B, C, Z, Y, X) -> logits (B, num_classes).

    The position embedding is learned. It starts from a pre-trained autoencoder's if one is loaded.
    """

    classifier = "head"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.head_drop = nn.Dropout(config.drop_rate)
        self.head = _head(config)

    @property
    def num_classes(self) -> int:
        return self.config.num_classes

    @property
    def global_pool(self) -> str:
        """timm's name of the config's `pool`."""
        return {ours: timms for timms, ours in GLOBAL_POOLS.items()}.get(self.config.pool, self.config.pool)

    def forward(self, volume_BCZYX: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(volume_BCZYX))

    def forward_head(self, tokens_BLE: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, L, E) -> logits (B, num_classes). With pre_logits or 0 classes: the head's input, pooled tokens (B, E).

        With pool="none" every token has its own logits.
        """
        last = (
            -1 if self.scan_places is None else self.scan_places[-1]
        )  # tokens are in raster order, the scan may not be
        pooled = self.head_drop(_POOLS[self.config.pool](tokens_BLE, last))
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a fresh one for another number of classes (0: no head) and, if given, the pool."""
        pool = self.config.pool if global_pool is None else GLOBAL_POOLS.get(global_pool, global_pool)
        self.config = dataclasses.replace(self.config, num_classes=num_classes, pool=pool)
        self.head = _head(self.config).to(self.pos_embed).train(self.training)

    def _prune_head(self) -> None:
        self.reset_classifier(0, "")

    def adapt_state_dict(self, state: dict[str, Tensor], source_grid: Grid | None = None) -> AdaptedState:
        """The part of an autoencoder's or classifier's checkpoint that this model loads.

        A head that is missing or has another number of classes starts fresh.
        """
        check_family(state, self.config, ENCODER_FIELDS)
        adapted = AdaptedState(dict(state), may_miss=frozenset({"head.weight", "head.bias"}))
        for pattern in (ROTARY_BUFFER, CLASS_TOKEN, DECODER_ONLY):
            drop(adapted, pattern)
        own = self.state_dict()
        if len({x["head.weight"].shape if "head.weight" in x else None for x in (state, own)}) == 2:
            drop(adapted, HEAD)
        fit_directions(adapted, own)
        fit_missing_contrasts(adapted, own)
        fit_positions(adapted, "pos_embed", source_grid, self.grid)
        return adapted


def _head(config: ModelConfig) -> nn.Module:
    if not config.num_classes:
        return nn.Identity()
    head = nn.Linear(config.embed_dim, config.num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02)
    nn.init.zeros_(head.bias)
    return head
