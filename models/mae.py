"""MaskedAutoencoder3D (METHOD.md section 4)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.config import Grid, ModelConfig
from models.encoder import VolumeEncoder, check_volume
from models.masking import random_mask
from models.patches import patchify, take_tokens, unpatchify
from models.positions import sincos_position_embedding
from models.state import (
    CLASS_TOKEN,
    ENCODER_FIELDS,
    HEAD,
    ROTARY_BUFFER,
    AdaptedState,
    check_family,
    drop,
    fit_positions,
)
from models.trunk import NORM_EPS, build_trunk
from ops import patch_error_fn, patch_moments


class MAEOutput(NamedTuple):
    """loss (); pred (B, L, P) or None; removed (B, L), 1 = removed; latent (B, K, E); ids_keep (B, K), scan order."""

    loss: Tensor
    pred: Tensor | None
    removed: Tensor
    latent: Tensor
    ids_keep: Tensor


class MaskedAutoencoder3D(VolumeEncoder):
    """Encoder on the visible tokens, a lighter decoder on all places, loss on the removed patches only."""

    decoder_pos_embed: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        E, Ed, axes = config.embed_dim, config.decoder_embed_dim, self.parts.position_axes
        self.register_buffer("pos_embed", sincos_position_embedding(config.grid, E, axes))
        self.decoder_embed = nn.Linear(E, Ed)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, Ed))
        places = sincos_position_embedding(config.grid, Ed, axes)
        self.register_buffer("decoder_pos_embed", F.pad(places, (0, 0, self.parts.extra_slots, 0)))
        self.decoder_blocks = build_trunk(config, Ed, config.decoder_depth, config.decoder_num_heads)
        self.decoder_norm_f = nn.RMSNorm(Ed, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(Ed, config.patch_values)

        nn.init.normal_(self.mask_token, std=0.02)
        for linear in (self.decoder_embed, self.decoder_pred):  # these two only: mixers have their own initialisation
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    @property
    def norm_pix_loss(self) -> bool:
        return self.config.norm_pix_loss

    def forward(
        self, volume_BCZYX: Tensor, mask_ratio: float = 0.75, noise: Tensor | None = None, return_pred: bool = True
    ) -> MAEOutput:
        """Reconstruct `volume_BCZYX` (B, C, Z, Y, X) from int(L * (1 - mask_ratio)) of its patches.

        noise (B, L) in [0, 1): its K smallest are kept, which makes a mask reproducible. Without return_pred only the
        removed patches are predicted, which is all that the loss needs.
        """
        config, device = self.config, volume_BCZYX.device
        check_volume(volume_BCZYX, config)
        if noise is None:
            noise = torch.rand(volume_BCZYX.shape[0], config.tokens, device=device)
        elif noise.shape != (volume_BCZYX.shape[0], config.tokens):
            raise ValueError(f"noise has shape {tuple(noise.shape)}, expected (batch, {config.tokens})")
        mask = random_mask(noise, mask_ratio, ascending=self.parts.ascending)
        rotated = config.rotary != "none"

        tokens = self.patch_embed(volume_BCZYX, mask.ids_keep) + self.pos_embed[0, mask.ids_keep]
        turn = self.parts.encoder_rotation(self.grid, config.embed_dim, mask.ids_keep) if rotated else None
        latent = self.blocks(tokens, self.norm_f, turn)

        slots = self.parts.arrange(self.decoder_embed(latent), self.mask_token, mask) + self.decoder_pos_embed
        turn = self.parts.decoder_rotation(self.grid, config.decoder_embed_dim, device) if rotated else None
        decoded = self.decoder_blocks(slots, self.decoder_norm_f, turn)[:, self.parts.extra_slots :]

        if return_pred:
            pred = self.decoder_pred(decoded)
            pred_removed = take_tokens(pred, mask.ids_removed)
        else:
            pred = None
            pred_removed = self.decoder_pred(take_tokens(decoded, mask.ids_removed))
        loss = patch_error_fn(pred_removed, volume_BCZYX, mask.ids_removed, config.patch_size, config.norm_pix_loss)
        return MAEOutput(loss, pred, mask.removed(), latent, mask.ids_keep)

    def encode(self, volume_BCZYX: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, L, E): every token of the unmasked volume, in raster order, after the final norm."""
        return self.forward_features(volume_BCZYX)

    def all_tokens_rotation(self, device: torch.device) -> Tensor:
        everything = torch.arange(self.config.tokens, device=device).unsqueeze(0)
        return self.parts.encoder_rotation(self.grid, self.config.embed_dim, everything)

    def patchify(self, volume_BCZYX: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, L, P), values ordered (pz, py, px, c)."""
        return patchify(volume_BCZYX, self.config.patch_size)

    def unpatchify(self, patches_BLP: Tensor) -> Tensor:
        """(B, L, P) -> (B, C, Z, Y, X)."""
        return unpatchify(patches_BLP, self.config.patch_size, self.grid)

    def targets(self, patches_BLP: Tensor) -> Tensor:
        """What the decoder should predict: the patches, each normalised by its own moments if norm_pix_loss."""
        if not self.config.norm_pix_loss:
            return patches_BLP
        mean, std = patch_moments(patches_BLP)
        return (patches_BLP - mean) / std

    def denormalise(self, pred_BLP: Tensor, patches_BLP: Tensor) -> Tensor:
        """Undo `targets` for a prediction, given the true patches: intensities again, for pictures."""
        if not self.config.norm_pix_loss:
            return pred_BLP
        mean, std = patch_moments(patches_BLP)
        return pred_BLP * std + mean

    def adapt_state_dict(self, state: dict[str, Tensor], source_grid: Grid | None = None) -> AdaptedState:
        """The part of an autoencoder's checkpoint that this model loads; source_grid as recorded in the checkpoint."""
        check_family(state, self.config, ENCODER_FIELDS)
        if "decoder_pred.weight" not in state:
            raise ValueError("the checkpoint is a classifier and has no decoder: a masked autoencoder cannot load it")
        check_family(state, self.config, {"decoder_embed_dim"})
        adapted = AdaptedState(dict(state))
        for pattern in (ROTARY_BUFFER, CLASS_TOKEN, HEAD):
            drop(adapted, pattern)
        fit_positions(adapted, "pos_embed", source_grid, self.grid)
        fit_positions(adapted, "decoder_pos_embed", source_grid, self.grid, self.parts.extra_slots)
        return adapted
