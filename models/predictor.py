"""PatchPredictor: the encoder with a lighter decoder of patches that both pre-training objectives share.

Shape suffixes: B batch, C contrasts, Z Y X voxels, L tokens, K tokens seen or predicted, E width, P values per patch.
"""

from typing import NamedTuple

import torch.nn.functional as F
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
from models.blocks.trunk import NORM_EPS, RMSNorm, build_trunk
from models.config import Grid, ModelConfig
from models.encoder import VolumeEncoder, check_volume
from models.tokens.patches import patchify, unpatchify
from models.tokens.positions import sincos_position_embedding
from ops import linear_patch_error_fn, patch_error_fn, patch_moments


class MAEOutput(NamedTuple):
    """What a pre-training model returns for a batch."""

    loss: Tensor
    """()"""
    pred: Tensor | None
    """(B, L, P) in raster order."""
    removed: Tensor
    """(B, L): 1 where a patch is predicted without the encoder having seen it."""
    latent: Tensor
    """(B, K, E): the K tokens that the encoder saw."""
    ids_keep: Tensor
    """(B, K): raster indices of these tokens."""


class PatchPredictor(VolumeEncoder):
    """Encoder with fixed position embedding, the parts of a decoder, the targets, and the loading of checkpoints."""

    decoder_pos_embed: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        E, Ed, axes = config.embed_dim, config.decoder_embed_dim, self.parts.position_axes
        self.register_buffer("pos_embed", sincos_position_embedding(config.grid, E, axes))
        self.decoder_embed = nn.Linear(E, Ed)
        positions = sincos_position_embedding(config.grid, Ed, axes)
        self.register_buffer("decoder_pos_embed", F.pad(positions, (0, 0, self.parts.extra_slots, 0)))
        self.decoder_blocks = build_trunk(config, Ed, config.decoder_depth, config.decoder_num_heads)
        self.decoder_norm_f = RMSNorm(Ed, eps=NORM_EPS)
        self.decoder_pred = nn.Linear(Ed, config.patch_values)
        for linear in (self.decoder_embed, self.decoder_pred):  # not the mixers, which have their own initialisation
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def _prune_head(self) -> None:
        for part in {key.split(".")[0] for key in self.state_dict() if DECODER_ONLY.match(key)}:
            delattr(self, part)

    def check_input(self, volume_BCZYX: Tensor) -> None:
        """Raise ValueError if a batch of volumes does not fit, or if the decoder was removed."""
        check_volume(volume_BCZYX, self.config)
        if not hasattr(self, "decoder_blocks"):
            raise ValueError("prune_intermediate_layers has removed the decoder: use encode or forward_intermediates")

    @property
    def norm_pix_loss(self) -> bool:
        return self.config.norm_pix_loss

    def encode(self, volume_BCZYX: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, L, E): every token of the unmasked volume, in raster order, after the final norm."""
        return self.forward_features(volume_BCZYX)

    def patchify(self, volume_BCZYX: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> (B, L, P), values ordered (pz, py, px, c)."""
        return patchify(volume_BCZYX, self.config.patch_size)

    def unpatchify(self, patches_BLP: Tensor) -> Tensor:
        """(B, L, P) -> (B, C, Z, Y, X)."""
        return unpatchify(patches_BLP, self.config.patch_size, self.grid)

    def error_of(self, pred_BKP: Tensor, volume_BCZYX: Tensor, ids_BK: Tensor) -> Tensor:
        """The loss of predictions of the patches `ids_BK`, ()."""
        config = self.config
        return patch_error_fn(
            pred_BKP, volume_BCZYX, ids_BK, config.patch_size, config.norm_pix_loss, backend=config.scan_backend
        )

    def error_from(self, decoded_BKE: Tensor, volume_BCZYX: Tensor, ids_BK: Tensor) -> Tensor:
        """`error_of` the predictions of decoded tokens, which are as large as the volume and need not be kept."""
        config, layer = self.config, (decoded_BKE, self.decoder_pred.weight, self.decoder_pred.bias)
        return linear_patch_error_fn(
            *layer, volume_BCZYX, ids_BK, config.patch_size, config.norm_pix_loss, backend=config.scan_backend
        )

    def targets(self, patches_BLP: Tensor) -> Tensor:
        """The patches that the decoder should predict, each normalised by its own moments with norm_pix_loss."""
        if not self.config.norm_pix_loss:
            return patches_BLP
        mean, std = patch_moments(patches_BLP)
        return (patches_BLP - mean) / std

    def denormalise(self, pred_BLP: Tensor, patches_BLP: Tensor) -> Tensor:
        """Undo `targets` for a prediction, given the true patches. The result is in intensities, for pictures."""
        if not self.config.norm_pix_loss:
            return pred_BLP
        mean, std = patch_moments(patches_BLP)
        return pred_BLP * std + mean

    def adapt_state_dict(self, state: dict[str, Tensor], source_grid: Grid | None = None) -> AdaptedState:
        """The part of a checkpoint of the same objective that this model loads. source_grid: the checkpoint's grid."""
        check_family(state, self.config, ENCODER_FIELDS)
        if "decoder_pred.weight" not in state:
            raise ValueError("the checkpoint is a classifier and has no decoder: an autoencoder cannot load it")
        own = self.state_dict()
        if ("mask_token" in state) != ("mask_token" in own):
            theirs, ours = ("mae", "ar") if "mask_token" in state else ("ar", "mae")
            raise ValueError(
                f"the checkpoint was pre-trained with --objective {theirs}, the model is of --objective {ours}: pass "
                f"--objective {theirs} (a classifier loads either)"
            )
        check_family(state, self.config, {"decoder_embed_dim"})
        adapted = AdaptedState(dict(state))
        for pattern in (ROTARY_BUFFER, CLASS_TOKEN, HEAD):
            drop(adapted, pattern)
        fit_directions(adapted, own)
        fit_missing_contrasts(adapted, own)
        fit_positions(adapted, "pos_embed", source_grid, self.grid)
        fit_positions(adapted, "decoder_pos_embed", source_grid, self.grid, self.parts.extra_slots)
        return adapted
