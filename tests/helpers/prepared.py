"""A small prepared folder in the paper's bare layout, for tests of training: bright blobs mark class 1."""

from pathlib import Path

import numpy as np
import openpyxl

SIDE = 16
ROOT = Path(__file__).resolve().parents[2]


def make_prepared(root, count=12, side=SIDE, unknown=1):
    """`count` subjects of side^3, alternating classes; the last `unknown` have IDH = -1. Returns root."""
    rng = np.random.default_rng(0)
    book = openpyxl.Workbook()
    book.active.append(["Subject", "Age", "1p19q", "IDH", "Grade"])
    for index in range(count):
        name, label = f"sub-{index:02d}", index % 2
        for contrast in ("t1", "t2", "t1ce", "flair"):
            volume = np.zeros((side,) * 3, np.uint8)
            volume[2:-2, 2:-2, 2:-2] = rng.integers(60, 120, (side - 4,) * 3)
            if label:
                volume[4:8, 4:8, 4:8] = 250
            (root / contrast).mkdir(parents=True, exist_ok=True)
            np.save(root / contrast / f"{name}_{contrast}.npy", volume)
        known = index < count - unknown
        book.active.append([name, 50, label, label if known else -1, 4])
    book.save(root / "Genetic_and_Histological_labels.xlsx")
    return root


TINY = [
    "--input_size", str(SIDE), "--model_kwargs", "patch_size=8", "embed_dim=12", "depth=2", "decoder_embed_dim=12",
    "decoder_depth=1", "d_state=2", "--device", "cpu", "--num_workers", "0",
]  # fmt: skip
