"""Reconstruction of a volume by a pre-trained model, masked or autoregressive, in the intensities of the input."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import PatchPredictor
from util.inference.study import Study
from util.training.eval_mode import evaluating
from vis.drawing.planes import REMOVED_TONE, cut
from vis.maps.token_grid import on_grid, upsample

GAP = 2  # black pixels around each panel of a picture


class Reconstruction(NamedTuple):
    """Volumes (B, C, Z, Y, X) in the intensities of the input, and the mask."""

    masked: Tensor
    """The input with removed patches set to 0."""
    prediction: Tensor
    """The complete output of the decoder, with the per-patch normalisation undone if the model uses it."""
    pasted: Tensor
    """Visible patches from the input, removed patches from the prediction."""
    removed_ZYX: Tensor
    """(B, Z, Y, X) bool, True where a patch was removed.

    An autoregressive model predicts every patch from the patches before it in the scan. For this model all patches
    except the first count as removed.
    """
    loss: float
    """The training loss, over the removed patches."""


def reconstruct(
    model: PatchPredictor, volume_BCZYX: Tensor, *, mask_ratio: float | None = 0.75, seed: int = 0
) -> Reconstruction:
    """Remove patches of a volume and predict them, in evaluation mode.

    mask_ratio: None for an autoregressive model, which takes no mask. seed: decides which patches are removed,
    identically on every device. With norm_pix_loss the model predicts patches of mean 0 and variance 1. The true mean
    and deviation of each patch are then restored: the brightness is that of the input, the structure is predicted.
    """
    mask = {}
    if mask_ratio is not None:
        noise_BL = torch.rand(volume_BCZYX.shape[0], model.config.tokens, generator=torch.Generator().manual_seed(seed))
        mask = {"mask_ratio": mask_ratio, "noise": noise_BL.to(volume_BCZYX.device)}
    with evaluating(model):
        out = model(volume_BCZYX, **mask)
        pred_BLP = model.denormalise(out.pred.float(), model.patchify(volume_BCZYX))
        prediction = model.unpatchify(pred_BLP)
        removed_BZYX = upsample(on_grid(out.removed, model.grid), volume_BCZYX.shape[2:]) > 0.5
    removed = removed_BZYX.unsqueeze(1)
    return Reconstruction(
        masked=volume_BCZYX.masked_fill(removed, 0),
        prediction=prediction,
        pasted=torch.where(removed, prediction, volume_BCZYX),
        removed_ZYX=removed_BZYX,
        loss=out.loss.item(),
    )


def reconstruction_picture(
    model: PatchPredictor, volume_BCZYX: Tensor, *, mask_ratio: float | None = 0.75, seed: int = 0
) -> np.ndarray:
    """uint8 (H, W, 3): middle axial slice of the first volume. A row per contrast: input, masked input, reconstruction.

    This picture is for TensorBoard during training (dataformats="HWC"). It takes one forward pass of one volume and no
    figure.
    """
    result = reconstruct(model, volume_BCZYX[:1], mask_ratio=mask_ratio, seed=seed)
    volume_CZYX = volume_BCZYX[0].float().cpu().numpy()
    study = Study("", tuple(map(str, range(len(volume_CZYX)))), volume_CZYX)
    middle = volume_CZYX.shape[1] // 2
    removed_YX = cut(result.removed_ZYX[0].cpu().numpy(), 0, middle)
    pasted_CZYX = study.grey(result.pasted[0].float().cpu().numpy())
    rows = []
    for seen_ZYX, pasted_ZYX in zip(study.grey(volume_CZYX), pasted_CZYX):
        seen, pasted = cut(seen_ZYX, 0, middle), cut(pasted_ZYX, 0, middle)
        masked = np.where(removed_YX, REMOVED_TONE, seen)
        rows.append(np.concatenate([np.pad(panel, GAP) for panel in (seen, masked, pasted)], axis=1))
    grey = (np.concatenate(rows, axis=0) * 255).round().astype(np.uint8)
    return grey[..., None].repeat(3, axis=2)
