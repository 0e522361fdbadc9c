"""Files in all 48 orientations have the same values at the same world coordinates as read by MONAI and torchio."""

import itertools
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import torchio

from tests.verification import volumes
from tests.verification.options import Case, Options
from tests.verification.peers import installed
from tests.verification.tally import Tally
from util.data.raw.nifti import read_image

GRID = {
    "axes": list(itertools.permutations(range(3))),
    "signs": list(itertools.product((1, -1), repeat=3)),
    "tilt": [0, 12],
    "peer": ["MONAI", "torchio"],
}


def run(options: Options) -> Tally:
    monai = installed("monai.transforms")
    tally, generator = Tally(), np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        for case in options.chosen(GRID):
            _same_orientation(tally, monai, generator, Path(folder) / "volume.nii.gz", case)
    return tally


def _same_orientation(tally: Tally, monai: ModuleType, generator: np.random.Generator, path: Path, case: Case) -> None:
    directions = np.eye(3)[:, list(case["axes"])] * case["signs"]
    matrix = volumes.affine(generator, directions, case["tilt"])
    volumes.save(path, generator.random((5, 6, 7), dtype=np.float32) + 1, matrix)
    ours = read_image(path)
    if case["peer"] == "MONAI":
        image = monai.LoadImage(image_only=True, ensure_channel_first=True)(path)
        found = monai.Orientation(axcodes="RAS", labels=None)(image)
        data, affine = found[0].numpy(), found.affine.numpy()
    else:
        found = torchio.ToCanonical()(torchio.ScalarImage(path))
        data, affine = found.numpy()[0], found.affine
    pairs = {"values": (ours.data, data), "affine": (ours.affine, affine)}
    tally.near(", ".join(f"{name} {value}" for name, value in case.items()), pairs, atol=1e-4)
