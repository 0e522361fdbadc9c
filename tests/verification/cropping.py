"""Comparison with CropForeground of MONAI: the bounding box of a brain, and the affine of the crop."""

import numpy as np

from tests.verification import volumes
from tests.verification.options import Options
from tests.verification.peers import installed, named
from tests.verification.tally import Tally
from util.data.prepare.resample import brain_box, crop_affine

GRID = {"number": list(range(100)), "margin": [0, 1, 4]}


def run(options: Options) -> Tally:
    monai, data = installed("monai.transforms"), installed("monai.data")
    tally, generator = Tally(), np.random.default_rng(options.seed)
    for case in options.chosen(GRID):
        shape = tuple(int(side) for side in generator.integers(6, 24, 3))
        values = volumes.head(generator, shape)
        if not values.any():
            values[shape[0] // 2, 0, -1] = 1
        matrix = volumes.affine(generator, np.eye(3), 20)
        box = brain_box(values > 0, case["margin"])
        crop = monai.CropForeground(margin=case["margin"], allow_smaller=True)
        found = crop(data.MetaTensor(values[None], affine=matrix))
        ours = values[tuple(slice(start, stop) for start, stop in box)]
        pairs = {"values": (ours, found[0].numpy()), "affine": (crop_affine(matrix, box), found.affine.numpy())}
        tally.near(named(case), pairs, atol=1e-9)
    return tally
