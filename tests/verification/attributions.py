"""Comparison of class-specific maps with Captum: gradient x activation, occlusion, integrated gradients.

The integral of Captum uses enough points to converge (Gauss-Legendre); ours uses its default settings.
"""

from types import ModuleType

import torch
from torch import Tensor

from models import VolumeClassifier, create_model
from tests.verification.options import Case, Options
from tests.verification.peers import installed, named
from tests.verification.tally import Tally
from vis.maps.explained_class import attribution_mode, empty_volume, log_odds
from vis.maps.gradients import gradient_activation, integrated_gradients
from vis.maps.occlusion import occlusion

MODELS = {"model": ["vim_3d_tiny_patch8", "vit_3d_tiny_patch8", "vim2_3d_tiny_patch8"], "seed": [0, 1]}
GRIDS = {
    "gradient": {**MODELS, "block": [0, 1, -1], "classes": [2, 3]},
    "occlusion": {**MODELS, "window": [1, 2], "classes": [2, 3]},
    "integrated": {**MODELS, "classes": [3]},
}
SIZE, PATCH = (16, 32, 16), 8
POINTS = 800  # of the integral of Captum; with 256 points the error is still 2% of the largest value


def run(options: Options) -> Tally:
    captum = installed("captum.attr")
    tally = Tally()
    for kind, compare in (("gradient", _gradient), ("occlusion", _occlusion), ("integrated", _integrated)):
        for case in options.chosen(GRIDS[kind]):
            torch.manual_seed(case["seed"])
            model = _classifier(case)
            volume = torch.randn(2, 2, *SIZE)
            volume[:, :, :2] = 0  # background, near which the score changes most
            target = torch.tensor([1, 0])
            with attribution_mode(model):
                pairs, tolerance = compare(captum, model, volume, target, case)
            tally.near(f"{kind}, {named(case)}", pairs, of_largest=tolerance)
    return tally


def _classifier(case: Case) -> VolumeClassifier:
    model = create_model(
        case["model"], img_size=SIZE, in_chans=2, num_classes=case["classes"], patch_size=PATCH, depth=2, embed_dim=96
    )
    assert isinstance(model, VolumeClassifier)
    torch.nn.init.normal_(model.head.weight)
    return model.eval()


def _score(model: VolumeClassifier, target: Tensor):
    """The explained score of one volume. Captum stacks volumes along the batch."""

    def score(volumes: Tensor) -> Tensor:
        return log_odds(model(volumes), target.expand(len(volumes)))

    return score


def _each(captum_map, volume: Tensor, target: Tensor) -> Tensor:
    return torch.cat([captum_map(volume[i : i + 1], target[i]) for i in range(len(volume))]).detach()


def _gradient(captum: ModuleType, model: VolumeClassifier, volume: Tensor, target: Tensor, case: Case):
    last = case["block"] in (-1, 1)
    layer = model.norm_f if last else model.blocks[case["block"]]

    def theirs(volume: Tensor, target: Tensor) -> Tensor:
        result = captum.LayerGradientXActivation(_score(model, target), layer).attribute(volume)
        parts = result if isinstance(result, tuple) else (result,)
        return sum(part.sum(-1) for part in parts)  # pyright: ignore[reportReturnType]

    ours = gradient_activation(model, volume, target, case["block"])
    return {"gradient x activation": (ours, _each(theirs, volume, target))}, 1e-4


def _occlusion(captum: ModuleType, model: VolumeClassifier, volume: Tensor, target: Tensor, case: Case):
    window = (volume.shape[1], *(case["window"] * PATCH,) * 3)

    def theirs(volume: Tensor, target: Tensor) -> Tensor:
        drops = captum.Occlusion(_score(model, target)).attribute(
            volume, sliding_window_shapes=window, strides=window, baselines=empty_volume(volume)
        )
        return drops[:, 0, ::PATCH, ::PATCH, ::PATCH].flatten(1)

    ours = occlusion(model, volume, target, window=case["window"])
    return {"drop when occluded": (ours, _each(theirs, volume, target))}, 1e-4


def _integrated(captum: ModuleType, model: VolumeClassifier, volume: Tensor, target: Tensor, case: Case):
    def theirs(volume: Tensor, target: Tensor) -> Tensor:
        integral = captum.IntegratedGradients(_score(model, target))
        return integral.attribute(volume, baselines=empty_volume(volume), n_steps=POINTS, internal_batch_size=16)

    ours = integrated_gradients(model, volume, target).attributions_BCZYX
    return {"integrated gradients": (ours, _each(theirs, volume, target))}, 0.02
