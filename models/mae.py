"""MaskedAutoencoder3D (docs/method.md#masked-autoencoder).

Shape suffixes: B batch, C contrasts, Z Y X voxels, L tokens, K kept tokens, E width.
"""

import torch
from torch import Tensor, nn

from models.config import ModelConfig
from models.predictor import MAEOutput, PatchPredictor
from models.tokens.masking import make_mask
from models.tokens.patches import take_tokens


class MaskedAutoencoder3D(PatchPredictor):
    """Encoder on the visible tokens, a lighter decoder on all L positions, loss on the removed patches only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder_embed_dim))
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(
        self,
        volume_BCZYX: Tensor,
        mask_ratio: float = 0.75,
        noise: Tensor | None = None,
        return_pred: bool = True,
        *,
        generator: torch.Generator | None = None,
    ) -> MAEOutput:
        """Reconstruct `volume_BCZYX` (B, C, Z, Y, X) from int(L * (1 - mask_ratio)) of its patches.

        noise (B, L) in [0, 1) decides the mask, which makes it reproducible: random masking keeps the tokens with the K
        smallest values. Without noise, `generator` draws it. Without return_pred, only the removed patches are
        predicted, which is all that the loss needs, and no prediction is kept. ids_keep and latent are in raster order;
        with scan_order="shuffle", in the order of the noise.
        """
        config, device = self.config, volume_BCZYX.device
        self.check_input(volume_BCZYX)
        if noise is None:
            source = device if generator is None else generator.device
            noise = torch.rand(volume_BCZYX.shape[0], config.tokens, generator=generator, device=source).to(device)
        elif noise.shape != (volume_BCZYX.shape[0], config.tokens):
            raise ValueError(f"noise has shape {tuple(noise.shape)}, expected (batch, {config.tokens})")
        mask = make_mask(config.masking, noise, mask_ratio, config.grid, shuffle=self.shuffles)
        has_rotation = config.rotary != "none"

        tokens = self.patch_embed(volume_BCZYX, mask.ids_keep) + self.pos_embed[0, mask.ids_keep]
        rotation = self.parts.encoder_rotation(self.grid, config.embed_dim, mask.ids_keep) if has_rotation else None
        latent = self.scan(self.blocks, self.norm_f, tokens, rotation, ids_BT=mask.ids_keep)

        slots = self.parts.arrange(self.decoder_embed(latent), self.mask_token, mask) + self.decoder_pos_embed
        rotation = self.parts.decoder_rotation(self.grid, config.decoder_embed_dim, device) if has_rotation else None
        decoded = self.scan(self.decoder_blocks, self.decoder_norm_f, slots, rotation)[:, self.parts.extra_slots :]

        if return_pred:
            pred = self.decoder_pred(decoded)
            loss = self.error_of(take_tokens(pred, mask.ids_removed), volume_BCZYX, mask.ids_removed)
        else:
            removed = take_tokens(decoded, mask.ids_removed)
            pred, loss = None, self.error_from(removed, volume_BCZYX, mask.ids_removed)
        return MAEOutput(loss, pred, mask.removed(), latent, mask.ids_keep)

    def all_tokens_rotation(self, device: torch.device) -> Tensor:
        all_ids = torch.arange(self.config.tokens, device=device).unsqueeze(0)
        return self.parts.encoder_rotation(self.grid, self.config.embed_dim, all_ids)
