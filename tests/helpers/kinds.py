"""One registered name of each kind and family, and small models of them."""

from models import create_model, list_models
from tests.conftest import SMALL

FAMILIES = sorted({name.split("_patch")[0].rsplit("_", 1)[0] for name in list_models()})  # mae_3d_vim, vit_3d, ...
ONE_EACH = [f"{family}_small_patch8" for family in FAMILIES]
CLASSIFIERS = [name for name in ONE_EACH if not name.startswith(("mae", "ar"))]


def small(name, create=create_model, **fields):
    """A model of two blocks for volumes (4, 16, 24, 32). In a hybrid, the second block has attention."""
    return create(name, **{**SMALL, "attention_layers": (1,) if "mha" in name else (), **fields})
