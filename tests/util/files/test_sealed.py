import random

import pytest
import torch

from util.files.sealed import SEAL_BYTES, HashingFile, check_seal, write_sealed


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "a.pth"
    write_sealed(path, lambda file: torch.save({"a": torch.arange(100)}, file))
    return path


def test_torch_reads_what_is_sealed(sealed):
    assert check_seal(sealed)
    assert torch.equal(torch.load(sealed, weights_only=True)["a"], torch.arange(100))


def test_every_flipped_bit_of_the_content_is_recognised(sealed):
    whole, draw = sealed.read_bytes(), random.Random(0)
    for _ in range(200):
        place = draw.randrange(len(whole) - SEAL_BYTES)
        sealed.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << draw.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"a.pth is damaged"):
            check_seal(sealed)


def test_a_file_without_a_seal_is_not_damaged(tmp_path):
    torch.save({}, tmp_path / "published.pth")
    assert not check_seal(tmp_path / "published.pth")
    (tmp_path / "empty.pth").touch()
    assert not check_seal(tmp_path / "empty.pth")


def test_what_reads_back_differently_never_replaces_the_old_file(sealed, monkeypatch):
    before = sealed.read_bytes()
    monkeypatch.setattr(HashingFile, "write", lambda self, data: self.file.write(data))  # a disk that lost bytes
    with pytest.raises(OSError, match="reads back differently"):
        write_sealed(sealed, lambda file: file.write(b"new"))
    assert sealed.read_bytes() == before
    assert list(sealed.parent.iterdir()) == [sealed]
