"""Tumours of phantoms: their position, their shape, and the appearance of each molecular class.

The appearance follows the imaging markers that radiologists use: ring enhancement around necrosis for IDH wild type;
the T2-FLAIR mismatch sign for IDH mutants without 1p/19q co-deletion (Patel et al., Clin Cancer Res 23, 2017);
cortical, frontal, heterogeneous tumours without mismatch for co-deleted ones. It is simplified for demos and tests and
makes no clinical claim.

A marker strength below 1 interpolates every marker towards a tumour without a class: signals, ring and rim, size,
texture, and the probability of the position that is typical of the class. At 0 nothing depends on the class.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.ndimage import gaussian_filter, label

from util.data.folder import CONTRASTS
from util.data.phantom.anatomy import Anatomy
from util.data.phantom.fields import smooth_field

TumourClass = Literal["wildtype", "mutant", "codeleted"]
NECROSIS, OEDEMA, ENHANCING = 1, 2, 4  # the labels of BraTS; 1 includes the core that does not enhance

# Signal of each tumour part, in units in which white matter of t1 is 0.85 and fluid of t2 is 1.
APPEARANCE: dict[TumourClass, dict[int, dict[str, float]]] = {
    "wildtype": {
        NECROSIS: {"t1": 0.36, "t1ce": 0.34, "t2": 0.92, "flair": 0.60},
        OEDEMA: {"t1": 0.56, "t1ce": 0.56, "t2": 0.86, "flair": 0.92},
        ENHANCING: {"t1": 0.56, "t1ce": 1.90, "t2": 0.72, "flair": 0.84},
    },
    "mutant": {
        NECROSIS: {"t1": 0.42, "t1ce": 0.43, "t2": 1.00, "flair": 0.38},
        OEDEMA: {"t1": 0.52, "t1ce": 0.53, "t2": 0.88, "flair": 0.96},
    },
    "codeleted": {
        NECROSIS: {"t1": 0.52, "t1ce": 0.54, "t2": 0.82, "flair": 0.86},
        OEDEMA: {"t1": 0.58, "t1ce": 0.58, "t2": 0.80, "flair": 0.86},
        ENHANCING: {"t1": 0.54, "t1ce": 0.90, "t2": 0.78, "flair": 0.84},
    },
}
RADIUS_MM: dict[TumourClass, tuple[float, float]] = {  # of the core; with the rim all classes have similar sizes
    "wildtype": (18, 25),
    "mutant": (17, 26),
    "codeleted": (18, 27),
}
RIM_MM: dict[TumourClass, tuple[float, float]] = {"wildtype": (5, 11), "mutant": (3, 4.5), "codeleted": (2, 5)}
TEXTURE: dict[TumourClass, float] = {"wildtype": 0.06, "mutant": 0.02, "codeleted": 0.20}
# A tumour without a class has the mean signals of all classes, and an enhancing part that looks like the core.
NO_CLASS = {
    part: {name: float(np.mean([kind[part][name] for kind in APPEARANCE.values()])) for name in CONTRASTS}
    for part in (NECROSIS, OEDEMA)
}
NO_CLASS[ENHANCING] = NO_CLASS[NECROSIS]
NO_CLASS_RADIUS_MM, NO_CLASS_RIM_MM, NO_CLASS_TEXTURE = (18, 26), (3, 6), 0.06
FLUID, ANY_FLUID = 0.6, 1.1  # upper bounds of the fluid fraction: in tissue, and in any voxel (no bound)


@dataclass(frozen=True)
class Tumour:
    """A tumour of the class `kind`. labels: (X, Y, Z) uint8, 0 = none; texture: (X, Y, Z), a factor around 1;
    appearance: the signal of each label and contrast."""

    kind: TumourClass
    labels: np.ndarray
    texture: np.ndarray
    appearance: dict[int, dict[str, float]]


def check_marker_strength(strength: float) -> None:
    """Raise ValueError unless it lies in [0, 1]."""
    if not 0 <= strength <= 1:
        raise ValueError(f"--marker_strength is {strength}; choose between 0 (no marker) and 1")


def random_tumour(
    generator: np.random.Generator, anatomy: Anatomy, kind: TumourClass, spacing: float, strength: float = 1.0
) -> Tumour:
    """A tumour of `kind` in the cerebrum of `anatomy`: an irregular, stretched core with a rim.

    strength: the strength of the markers of its class, 0 to 1.
    """

    def towards(no_class: float, of_kind: Any) -> Any:
        return (1 - strength) * no_class + strength * of_kind  # exactly of_kind at 1

    # Below 1 markers draw from a generator of their own: classes draw different amounts of random numbers, which must
    # not change the numbers that do not depend on the class.
    marker_generator = generator if strength == 1 else generator.spawn(1)[0]
    shape = anatomy.brain.shape
    is_typical_position = strength == 1 or marker_generator.random() < strength
    centre = _centre(generator, anatomy, frontal=kind == "codeleted" and is_typical_position)
    index = np.stack(np.meshgrid(*(np.arange(side, dtype=np.float32) for side in shape), indexing="ij"))
    stretch = generator.uniform(0.8, 1.25, 3)
    stretch /= stretch.prod() ** (1 / 3)
    offset_mm = (index - centre[:, None, None, None]) * (spacing / stretch[:, None, None, None]).astype(np.float32)
    distance_mm = np.sqrt((offset_mm**2).sum(0))
    distance_mm *= 1 + 0.22 * smooth_field(generator, shape, 22 / spacing)  # lobes
    distance_mm += 1.5 * smooth_field(generator, shape, 9 / spacing)  # a rough outline
    tissue = anatomy.brain & (anatomy.csf < FLUID)
    radius = generator.uniform(*map(towards, NO_CLASS_RADIUS_MM, RADIUS_MM[kind]))
    rim = marker_generator.uniform(*map(towards, NO_CLASS_RIM_MM, RIM_MM[kind]))  # bright on flair
    core = (distance_mm < radius) & anatomy.brain
    labels = np.zeros(shape, np.uint8)
    if kind == "wildtype":
        along_fibres = 0.4 + 1.2 * gaussian_filter(anatomy.wm, 3 / spacing)
        labels[(distance_mm < radius + rim * towards(1.0, along_fibres)) & tissue] = OEDEMA
        labels[core] = ENHANCING
        labels[(distance_mm < radius - strength * marker_generator.uniform(5.5, 8)) & anatomy.brain] = NECROSIS
    elif kind == "mutant":
        labels[(distance_mm < radius + rim) & tissue] = OEDEMA
        labels[core] = NECROSIS
    else:
        labels[(distance_mm < radius + rim) & tissue] = OEDEMA
        core &= anatomy.csf < towards(ANY_FLUID, FLUID)
        labels[core] = NECROSIS
        patches = strength * smooth_field(marker_generator, shape, 10 / spacing) > 1.2
        labels[core & patches] = ENHANCING  # only faintly
    labels[~_largest_component(labels > 0)] = 0
    roughness = towards(NO_CLASS_TEXTURE, TEXTURE[kind])
    texture = np.clip(1 + roughness * smooth_field(generator, shape, 8 / spacing), 0.5, 1.5)
    appearance = {
        part: {name: towards(NO_CLASS[part][name], signal) for name, signal in signals.items()}
        for part, signals in APPEARANCE[kind].items()
    }
    return Tumour(kind, labels, texture, appearance)


def _largest_component(tumour: np.ndarray) -> np.ndarray:
    """The largest connected component: a rough outline leaves separate voxels, and a phantom has one tumour."""
    components = np.asarray(label(tumour, output=np.int32)[0])  # pyright: ignore[reportGeneralTypeIssues,reportIndexIssue]
    return components == np.bincount(components[tumour]).argmax()


def _centre(generator: np.random.Generator, anatomy: Anatomy, frontal: bool) -> np.ndarray:
    """A random voxel (3,) of the cerebrum off the midline: in frontal cortex, or else in white matter."""
    x_mm, y_mm, z_mm = anatomy.mni_mm
    place = anatomy.brain & (np.abs(x_mm) > 16) & (z_mm > -8) & (z_mm < 55)
    if frontal:
        place &= (anatomy.gm > 0.5) & (y_mm > 12) & (gaussian_filter(anatomy.brain.astype(np.float32), 4) < 0.95)
    else:
        place &= (anatomy.wm > 0.6) & (np.abs(x_mm) > 22) & (y_mm > -80)
    candidates = np.argwhere(place)
    return candidates[generator.integers(len(candidates))].astype(np.float32)
