"""The checks by name: what each needs, and how much of its grid runs unless the command says otherwise."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.verification import (
    attributions,
    causal_conv,
    cropping,
    influence,
    mae,
    mamba2,
    mamba_scan,
    orientation,
    prognosais,
    resampling,
    statistics,
    vim,
)
from tests.verification.options import Options
from tests.verification.tally import Tally


@dataclass(frozen=True)
class Check:
    about: str
    run: Callable[[Options], Tally]
    repository: str | None = None
    """On GitHub; its source tree is what --source names."""
    cases: int | None = None
    """Of each grid, drawn by the seed; None for all. Chosen so that the check takes minutes on one core."""
    longest: int | None = None
    """Tokens."""


CHECKS = {
    "mamba_scan": Check("mamba_ssm's tests of its selective scan", mamba_scan.run, "state-spaces/mamba", longest=128),
    "mamba2": Check("Mamba2's scan and mixer, three references", mamba2.run, "state-spaces/mamba", cases=300),
    "causal_conv": Check("causal_conv1d's tests", causal_conv.run, "Dao-AILab/causal-conv1d", cases=150, longest=512),
    "vim": Check("Vim's bidirectional mixer, weights loaded", vim.run, "hustvl/Vim"),
    "mae": Check("MAE's masks, patches and loss", mae.run, "facebookresearch/mae"),
    "statistics": Check("AUC, errors and tests by R's pROC", statistics.run),
    "prognosais": Check("PrognosAIs' published predictions", prognosais.run, "Svdvoort/PrognosAIs_glioma"),
    "orientation": Check("Orientation by MONAI and torchio", orientation.run),
    "cropping": Check("Box around the brain by MONAI", cropping.run),
    "resampling": Check("Resampling by MONAI and torchio", resampling.run),
    "attributions": Check("Class-specific maps by captum", attributions.run),
    "influence": Check("A scan's hidden attention written out", influence.run),
}
