"""VolumeClassifier: the trunk on all tokens, their mean, a linear head; timm's contract (METHOD.md section 4)."""

import torch
from torch import Tensor, nn

from models.config import Grid, ModelConfig
from models.encoder import VolumeEncoder
from models.state import (
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


class VolumeClassifier(VolumeEncoder):
    """(B, C, Z, Y, X) -> logits (B, num_classes). The position embedding is learned, starting from a pre-trained
    autoencoder's where one is loaded."""

    classifier = "head"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.tokens, config.embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.head = nn.Linear(config.embed_dim, config.num_classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @property
    def num_classes(self) -> int:
        return self.head.out_features

    def forward(self, volume_BCZYX: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(volume_BCZYX))

    def forward_head(self, tokens_BLE: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, L, E) -> logits (B, num_classes), or with pre_logits what the head reads, the pooled tokens (B, E)."""
        last = -1 if self.scan_places is None else self.scan_places[-1]  # in scan order; tokens are in raster order
        pooled = tokens_BLE.mean(dim=1) if self.config.pool == "mean" else tokens_BLE[:, last]
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """A fresh head for another number of classes."""
        head = nn.Linear(self.config.embed_dim, num_classes)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        self.head = head.to(self.pos_embed.device)

    def adapt_state_dict(self, state: dict[str, Tensor], source_grid: Grid | None = None) -> AdaptedState:
        """The part of an autoencoder's or classifier's checkpoint that this model loads. A head that is absent or has
        another number of classes starts fresh."""
        check_family(state, self.config, ENCODER_FIELDS)
        adapted = AdaptedState(dict(state), may_miss=frozenset({"head.weight", "head.bias"}))
        for pattern in (ROTARY_BUFFER, CLASS_TOKEN, DECODER_ONLY):
            drop(adapted, pattern)
        if "head.weight" in state and state["head.weight"].shape != self.head.weight.shape:
            drop(adapted, HEAD)
        fit_directions(adapted, self.state_dict())
        fit_missing_contrasts(adapted, self.state_dict())
        fit_positions(adapted, "pos_embed", source_grid, self.grid)
        return adapted
