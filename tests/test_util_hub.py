"""Models on the hub: names."""

from pathlib import Path

import pytest

from util.hub import is_hub_name, located, pinned


def test_names_of_the_hub_and_paths_are_told_apart(tmp_path):
    assert is_hub_name(Path("hf-hub:user/name@v1.0"))
    assert not is_hub_name(tmp_path)
    assert located(tmp_path) == tmp_path
    assert pinned("runs/../a.pth") == str(Path.cwd() / "a.pth")


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:name", "hf-hub:a/b/c", "hf-hub:a/b@", "hf-hub:a/b c"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match=r"is no name of a model on the hub: write hf-hub:user/name"):
        located(name)
