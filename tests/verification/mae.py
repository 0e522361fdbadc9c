"""Comparison with facebookresearch/mae: the removed patches, the order of values in a patch, the loss.

Their methods run on the same tensors. They take images, so a volume is compared slice by slice.
"""

from types import SimpleNamespace
from typing import Any

import torch

from models.tokens.masking import make_mask
from models.tokens.patches import patchify, unpatchify
from ops import patch_error_fn
from tests.verification.options import Case, Options
from tests.verification.peers import importable, load, named, stand_in
from tests.verification.tally import Skipped, Tally

MASKS = {"grid": [(4, 4, 4), (3, 5, 2), (10, 10, 10), (8, 8, 1)], "mask_ratio": [0.25, 0.5, 0.75, 0.9]}
PATCHES = {"patch": [2, 4], "side": [8, 16], "batch": [1, 3]}
LOSSES = {"patch": [2, 4], "mask_ratio": [0.5, 0.75], "norm_pix_loss": [False, True], "batch": [1, 2]}


def run(options: Options) -> Tally:
    if options.source is None:
        raise Skipped("--source of facebookresearch/mae is not given")
    embeddings = stand_in("util.pos_embed", get_2d_sincos_pos_embed=None)  # not part of the comparison
    tally = Tally()
    with importable({"util": options.source / "util"}, (embeddings,)):
        theirs = load(options.source / "models_mae.py").MaskedAutoencoderViT
        torch.manual_seed(options.seed)
        for case in options.chosen(MASKS):
            _same_mask(tally, theirs, case)
        for case in options.chosen(PATCHES):
            _same_patches(tally, theirs, case)
        for case in options.chosen(LOSSES):
            _same_loss(tally, theirs, case)
    return tally


def _same_mask(tally: Tally, theirs: Any, case: Case) -> None:
    """The same noise removes the same tokens, and shuffled tokens come in the same order."""
    z, y, x = case["grid"]
    tokens = torch.arange(2.0 * z * y * x).reshape(2, -1, 1)
    state = torch.get_rng_state()
    visible, removed, _ = theirs.random_masking(None, tokens, case["mask_ratio"])
    torch.set_rng_state(state)
    mask = make_mask("random", torch.rand(2, z * y * x), case["mask_ratio"], case["grid"], shuffle=True)
    kept = tokens.gather(1, mask.ids_keep.unsqueeze(-1))
    tally.near(f"mask {named(case)}", {"removed": (mask.removed(), removed), "kept tokens": (kept, visible)})


def _same_patches(tally: Tally, theirs: Any, case: Case) -> None:
    """Each slice of a patch equals their patch of that slice; both inverses restore the volume."""
    p, side = case["patch"], case["side"]
    volume = torch.randn(case["batch"], 3, 2 * p, side, side)  # their images have three colours
    model = _their_model(p)
    slices = [theirs.patchify(model, slice_) for slice_ in volume.unbind(2)]  # each (B, l, p * p * 3)
    expected = torch.stack(slices, 1).unflatten(1, (2, p)).transpose(2, 3).flatten(1, 2).flatten(2)
    ours = patchify(volume, p)
    side_p = side // p
    backs = [theirs.unpatchify(model, slice_) for slice_ in slices]
    pairs = {"patches": (ours, expected), "volume": (unpatchify(ours, p, (2, side_p, side_p)), torch.stack(backs, 2))}
    tally.near(f"patches {named(case)}", pairs)


def _same_loss(tally: Tally, theirs: Any, case: Case) -> None:
    """Loss and gradient. Their loss gets patches in our order of values; ours gets the removed patches only."""
    p, grid = case["patch"], (3, 2, 4)
    volume = torch.randn(case["batch"], 3, *(n * p for n in grid)) * 40 + 100
    mask = make_mask("random", torch.rand(case["batch"], 24), case["mask_ratio"], grid)
    pred = torch.randn(case["batch"], 24, p**3 * 3, requires_grad=True)
    model = _their_model(p, norm_pix_loss=case["norm_pix_loss"], patchify=lambda x: patchify(x, p))
    expected = theirs.forward_loss(model, volume, pred, mask.removed())
    rows = pred.gather(1, mask.ids_removed.unsqueeze(-1).expand(-1, -1, pred.shape[-1]))
    ours = patch_error_fn(rows, volume, mask.ids_removed, p, case["norm_pix_loss"])
    gradients = [torch.autograd.grad(loss, pred)[0] for loss in (ours, expected)]
    tally.near(f"loss {named(case)}", {"loss": (ours, expected), "its gradient": tuple(gradients)}, of_largest=1e-6)


def _their_model(patch: int, **members: Any) -> SimpleNamespace:
    """The attributes of a model that their methods read."""
    return SimpleNamespace(patch_embed=SimpleNamespace(patch_size=(patch, patch)), **members)
