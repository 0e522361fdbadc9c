"""The checks by name: their source trees, and the default size of their grids."""

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
    """A comparison with a peer."""

    about: str
    run: Callable[[Options], Tally]
    repository: str | None = None
    """GitHub repository of the source tree for --source."""
    cases: int | None = None
    """Number of cases of each grid, drawn with the seed. None: all. The check takes minutes on one core."""
    longest: int | None = None
    """Maximal number of tokens."""


CHECKS = {
    "mamba_scan": Check("Tests of the selective scan of mamba_ssm", mamba_scan.run, "state-spaces/mamba", longest=128),
    "mamba2": Check("Scan and mixer of Mamba2, three references", mamba2.run, "state-spaces/mamba", cases=300),
    "causal_conv": Check("Tests of causal_conv1d", causal_conv.run, "Dao-AILab/causal-conv1d", cases=150, longest=512),
    "vim": Check("Bidirectional mixer of Vim, with its weights", vim.run, "hustvl/Vim"),
    "mae": Check("Masks, patches and loss of MAE", mae.run, "facebookresearch/mae"),
    "statistics": Check("AUC, standard errors and tests by pROC (R)", statistics.run),
    "prognosais": Check("Published predictions of PrognosAIs", prognosais.run, "Svdvoort/PrognosAIs_glioma"),
    "orientation": Check("Orientation by MONAI and torchio", orientation.run),
    "cropping": Check("Bounding box of the brain by MONAI", cropping.run),
    "resampling": Check("Resampling by MONAI and torchio", resampling.run),
    "attributions": Check("Class-specific maps by Captum", attributions.run),
    "influence": Check("Hidden attention of a scan as an explicit matrix", influence.run),
}
