"""Comparison of resampling onto the prepared grid with MONAI and torchio (ITK), given the affine that we store.

If the grid is coarser than the image, the image is first smoothed by an explicit Gaussian convolution. MONAI reads 0
beyond the last voxels, as we do. ITK repeats them, so the comparison with torchio leaves out the outermost voxels.
Labels are compared everywhere.
"""

from types import ModuleType

import numpy as np
import torch
import torchio

from tests.verification import volumes
from tests.verification.options import Case, Options
from tests.verification.peers import installed, named
from tests.verification.tally import Tally
from util.data.prepare.resample import VoxelGrid, fit_grid, resample_brain, resample_image, resample_labels

GRID = {
    "crop": [(20, 24, 16), (30, 18, 22), (12, 12, 28)],
    "size": [(32, 32, 32), (24, 30, 20), (14, 14, 14), (10, 16, 12)],
    "voxel_mm": [(1, 1, 1), (1, 0.8, 2.5)],
    "peer": ["MONAI", "torchio"],
    "what": ["image", "labels"],
}
TIE = 1e-4  # a point this close to the middle between two voxels may have either label


def run(options: Options) -> Tally:
    monai, data = installed("monai.transforms"), installed("monai.data")
    tally, generator = Tally(), np.random.default_rng(options.seed)
    for case in options.chosen(GRID):
        matrix = volumes.affine(generator, np.eye(3), 20)
        matrix[:3, :3] *= np.array(case["voxel_mm"]) / np.linalg.norm(matrix[:3, :3], axis=0)
        grid = fit_grid(case["crop"], np.array(case["voxel_mm"], dtype=float), case["size"])
        places = np.moveaxis(np.indices(case["size"]), 0, -1) * grid.step + grid.offset
        compare = _labels if case["what"] == "labels" else _image
        resample = _by_monai(monai, data) if case["peer"] == "MONAI" else _by_torchio
        compare(tally, resample, generator, grid, matrix, places, case)
    return tally


def _image(
    tally: Tally, resample, generator, grid: VoxelGrid, matrix: np.ndarray, places: np.ndarray, case: Case
) -> None:
    image = generator.normal(400, 60, case["crop"]).astype(np.float32)
    brain = np.ones(case["crop"], bool)
    share, _ = resample_brain(brain, grid)
    ours = resample_image(image, brain, share, grid)
    smooth = smoothed(np.stack([image, brain.astype(np.float32)]), grid)
    theirs, weight = (resample(part, matrix, grid, "linear") for part in smooth)
    within = (places >= 1).all(-1) & (places <= np.array(case["crop"]) - 2).all(-1)
    kept = within if case["peer"] == "torchio" else share > 0.5  # the brain of a prepared volume
    expected = theirs[kept] / weight[kept]
    tally.near(named(case), {"image in standard deviations": (ours[kept] / 60, expected / 60)}, atol=1e-4)


def _labels(
    tally: Tally, resample, generator, grid: VoxelGrid, matrix: np.ndarray, places: np.ndarray, case: Case
) -> None:
    labels = generator.integers(1, 5, case["crop"]).astype(np.float32)
    tied = (np.abs(places % 1 - 0.5) < TIE).any(-1)
    ours = resample_labels(labels.astype(np.uint8), grid)
    theirs = resample(labels, matrix, grid, "nearest")
    tally.near(named(case), {"labels": (ours[~tied], theirs[~tied])})


def smoothed(values_NXYZ: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    """Convolution with a Gaussian sampled at whole voxels up to 3 standard deviations, with 0 beyond the volume."""
    sigma = np.sqrt(np.maximum(grid.step**2 - 1, 0) / (8 * np.log(2)))
    values = torch.from_numpy(values_NXYZ).double()[:, None]
    for axis, width in enumerate(sigma):
        if width == 0:
            continue
        reach = int(3 * width + 0.5)
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1).double() / width) ** 2)
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[2 + axis], padding[axis] = 2 * reach + 1, reach
        values = torch.nn.functional.conv3d(values, (taps / taps.sum()).reshape(shape), padding=padding)
    return values[:, 0].float().numpy()


def _by_monai(monai: ModuleType, data: ModuleType):
    def resample(values: np.ndarray, matrix: np.ndarray, grid: VoxelGrid, mode: str) -> np.ndarray:
        to_grid = monai.SpatialResample(
            mode="bilinear" if mode == "linear" else mode, padding_mode="zeros", align_corners=False, dtype=np.float64
        )
        image = data.MetaTensor(values[None], affine=matrix)
        return to_grid(image, dst_affine=grid.affine(matrix), spatial_size=grid.shape)[0].numpy()

    return resample


def _by_torchio(values: np.ndarray, matrix: np.ndarray, grid: VoxelGrid, mode: str) -> np.ndarray:
    image = torchio.ScalarImage(tensor=values[None], affine=matrix)
    target = (grid.shape, grid.affine(matrix))
    return torchio.Resample(target, image_interpolation=mode)(image).numpy()[0]
