"""AutoregressiveModel3D: predict the next token's patch in scan order, from the tokens before it.

Source: S. Ren et al. 2024, "Autoregressive Pretraining with Mamba in Vision" (arXiv 2406.07537), token by token and in
three dimensions; loss and targets are those of the masked autoencoder.
"""

import torch
from torch import Tensor

from models.config import ModelConfig
from models.predictor import MAEOutput, PatchPredictor


class AutoregressiveModel3D(PatchPredictor):
    """Causal encoder on all tokens; a light causal decoder predicts every patch but the first from those before it.

    The decoder, not a linear head, is what the encoder's last blocks would otherwise have to be: it turns features into
    voxels, is told by its position embedding which place is asked for (in a snake or Hilbert order the next place is
    not always the same step away), and is left behind in fine-tuning just as the masked autoencoder's.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if self.shuffles:
            raise ValueError(
                'scan_order="shuffle", which is that of fidelity="paper" too, has no next token: choose '
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

        removed is 1 at every place that is predicted, all but the first in scan order; pred is 0 at that one. latent
        (B, L, E) and ids_keep (B, L) are of all tokens, in raster order.
        """
        config, device, batch = self.config, volume_BCZYX.device, volume_BCZYX.shape[0]
        self.check_input(volume_BCZYX)
        latent = self.forward_features(volume_BCZYX)
        everything = torch.arange(config.tokens, device=device)
        places = everything if self.scan_places is None else self.scan_places
        seen, asked = places[:-1], places[1:]  # the decoder works in scan order

        slots = self.decoder_embed(latent[:, seen]) + self.decoder_pos_embed[:, asked]
        turn = None
        if config.rotary != "none":
            turn = self.parts.decoder_rotation(self.grid, config.decoder_embed_dim, device)[:, asked]
        decoded, asked_BK = self.decoder_blocks(slots, self.decoder_norm_f, turn), asked.expand(batch, -1)

        if return_pred:
            pred_asked = self.decoder_pred(decoded)
            pred = pred_asked.new_zeros(batch, config.tokens, config.patch_values).index_copy(1, asked, pred_asked)
            loss = self.error_of(pred_asked, volume_BCZYX, asked_BK)
        else:
            pred, loss = None, self.error_from(decoded, volume_BCZYX, asked_BK)
        removed = torch.ones(batch, config.tokens, device=device).index_fill(1, places[:1], 0.0)
        return MAEOutput(loss, pred, removed, latent, everything.expand(batch, -1))
