"""Options of main_pretrain.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from util import ranges
from util.options.build import option
from util.options.groups import DataOptions, ModelOptions, RunOptions, TrainingOptions, check_options

MASK_RATIO = 0.75


@dataclass(frozen=True)
class PretrainModelOptions(ModelOptions):
    objective: Literal["mae", "ar"] = option(
        "mae", "mae: predict removed patches; ar: predict every patch from those before it in scan order"
    )
    mask_ratio: float | None = option(
        None, f"part of the patches that --objective mae removes; default {MASK_RATIO}", check=ranges.part
    )
    masking: str | None = option(
        None,
        "which patches --objective mae removes: random (default), block (cubes of neighbours) or grid (all but a "
        "regular lattice)",
        metavar="WAY",
    )
    norm_pix_loss: bool = option(False, "reconstruct each patch normalised by its own mean and variance")

    @property
    def removed_part(self) -> float | None:
        """Part of the patches that is removed; None for the autoregressive objective, which removes none."""
        if self.objective == "ar":
            return None
        return MASK_RATIO if self.mask_ratio is None else self.mask_ratio

    @property
    def registered_name(self) -> str:
        """The name that --model and --objective mean together: with ar, mae_3d_... stands for ar_3d_..."""
        return self.model.replace("mae_3d_", "ar_3d_", 1) if self.objective == "ar" else self.model


@dataclass(frozen=True)
class PretrainRunOptions(RunOptions):
    picture_freq: int = option(20, "epochs between pictures in TensorBoard, 0 for none", check=ranges.count, free=True)


@dataclass(frozen=True)
class PretrainOptions:
    data_key: ClassVar[str] = "BASE_PATH"  # of config.ini
    model: PretrainModelOptions = PretrainModelOptions(model="mae_3d_vim_small_patch16")
    data: DataOptions = DataOptions()
    training: TrainingOptions = TrainingOptions(epochs=1000, blr=2.5e-4, warmup_epochs=40.0)
    run: PretrainRunOptions = PretrainRunOptions(output_dir=Path("runs/pretrain"))

    def __post_init__(self) -> None:
        check_options(self)
        if self.model.objective == "ar":
            for flag, value in (("mask_ratio", self.model.mask_ratio), ("masking", self.model.masking)):
                if value is not None:
                    raise ValueError(f"--{flag} {value}: --objective ar removes no patches; drop one of the two")
