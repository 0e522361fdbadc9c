from pathlib import Path

import pytest

from util.options.protocol import ProtocolOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [({"select": "best_val"}, "--select best_val chooses on a validation part.*--val_fraction 0.2"),
     ({"calibrate": "temperature"}, "--calibrate temperature chooses"), ({"threshold": "val"}, "--threshold val"),
     ({"patience": 3, "val_fraction": 0.2}, "use best_val"),
     ({"folds_csv": Path("x"), "stratify_by": "Site"}, "drop --stratify_by"),
     ({"folds_csv": Path("x"), "repeats": 2}, "drop --stratify_by and --repeats")],
)  # fmt: skip
def test_contradictions_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        ProtocolOptions(**options)


def test_sound_options_pass():
    ProtocolOptions(val_fraction=0.2, select="best_val", patience=3, calibrate="temperature", threshold="val")


def test_fold_numbers():
    assert ProtocolOptions().fold_numbers(3) == [0, 1, 2]
    assert ProtocolOptions(folds="2,0,2").fold_numbers(3) == [0, 2]
    with pytest.raises(ValueError, match="folds are 0 to 2"):
        ProtocolOptions(folds="3").fold_numbers(3)
    with pytest.raises(ValueError, match="separated by commas"):
        ProtocolOptions(folds="a").fold_numbers(3)
