"""AutoregressiveModel3D: predict the next token's patch in scan order, from the tokens before it.

Source: S. Ren et al. 2024, "Autoregressive Pretraining with Mamba in Vision" (arXiv 2406.07537), here token by token
and in three dimensions. Loss and targets are those of the masked autoencoder.
Shape suffixes: B batch, C contrasts, Z Y X voxels, K predicted tokens (all L but the first), P values per patch.
"""

import torch
from torch import Tensor

from models.config import ModelConfig
from models.predictor import MAEOutput, PatchPredictor


class AutoregressiveModel3D(PatchPredictor):
    """Causal encoder on all tokens; a light causal decoder predicts every patch but the first from those before it.

    A decoder instead of a linear head turns features into voxels, so that the encoder's last blocks need not. Its
    position embedding says which position to predict, because in a snake or Hilbert order the step to the next position
    varies. Fine-tuning drops it, as it drops the masked autoencoder's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if self.shuffles:
            raise ValueError(
                'scan_order="shuffle", the order of fidelity="paper", has no next token: choose '
                'fidelity="corrected" and raster, hilbert or another fixed order'
            )
        for block in (*self.blocks, *self.decoder_blocks):
            if not getattr(block.mixer, "causal", False):
                raise ValueError(
                    f'directions="{config.directions}" with mixer="{config.mixer}" lets a token see later ones: the '
                    f'autoregressive objective needs a causal mixer, directions="forward"'
                )

    def forward(self, volume_BCZYX: Tensor, return_pred: bool = True) -> MAEOutput:
        """Predict the patches of `volume_BCZYX` (B, C, Z, Y, X), each from those before it in scan order.

        removed is 1 at every predicted token: all but the first in scan order, where pred is 0. latent (B, L, E) and
        ids_keep (B, L) hold all tokens, in raster order.
        """
        config, device, batch = self.config, volume_BCZYX.device, volume_BCZYX.shape[0]
        self.check_input(volume_BCZYX)
        latent = self.forward_features(volume_BCZYX)
        all_ids = torch.arange(config.tokens, device=device)
        scan_ids = all_ids if self.scan_places is None else self.scan_places
        input_ids, target_ids = scan_ids[:-1], scan_ids[1:]  # the decoder works in scan order

        slots = self.decoder_embed(latent[:, input_ids]) + self.decoder_pos_embed[:, target_ids]
        rotation = None
        if config.rotary != "none":
            rotation = self.parts.decoder_rotation(self.grid, config.decoder_embed_dim, device)[:, target_ids]
        decoded = self.decoder_blocks(slots, self.decoder_norm_f, rotation)

        target_ids_BK = target_ids.expand(batch, -1)
        if return_pred:
            pred_BKP = self.decoder_pred(decoded)
            pred = pred_BKP.new_zeros(batch, config.tokens, config.patch_values).index_copy(1, target_ids, pred_BKP)
            loss = self.error_of(pred_BKP, volume_BCZYX, target_ids_BK)
        else:
            pred, loss = None, self.error_from(decoded, volume_BCZYX, target_ids_BK)
        removed = torch.ones(batch, config.tokens, device=device).index_fill(1, scan_ids[:1], 0.0)
        return MAEOutput(loss, pred, removed, latent, all_ids.expand(batch, -1))
