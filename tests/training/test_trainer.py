from __future__ import annotations

import pickle

import pytest
import torch

from pointcluster.training import RunError
from pointcluster.training.trainer import AtomicCheckpointIO


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": torch.ones(2), "epoch": 3}, path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["epoch"] == 3 and torch.equal(loaded["a"], torch.ones(2))
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 3}, path)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        AtomicCheckpointIO().save_checkpoint({"a": torch.ones(9), "b": lambda: 0}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"epoch": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


class Code:
    def __reduce__(self):
        return print, ("this ran",)


@pytest.mark.parametrize("content", ["code", "cut", "text", "empty"])
def test_what_is_no_checkpoint(tmp_path, content, capsys):
    path = tmp_path / "last.ckpt"
    torch.save({"a": torch.ones(500), "b": Code() if content == "code" else 0}, path)
    whole = path.read_bytes()
    path.write_bytes({"code": whole, "cut": whole[:-400], "text": b"hello", "empty": b""}[content])
    with pytest.raises(RunError, match="last.ckpt is damaged or is no training checkpoint"):
        AtomicCheckpointIO().load_checkpoint(path)
    assert "this ran" not in capsys.readouterr().out


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")


def test_inverted_bytes_are_noticed(tmp_path):
    path = tmp_path / "last.ckpt"
    state = {"weights": torch.arange(20_000.0), "epoch": 3}
    AtomicCheckpointIO().save_checkpoint(state, path)
    data = bytearray(path.read_bytes())
    for place in range(30_000, 30_040):
        data[place] ^= 0xFF
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["epoch"] == 3  # torch notices nothing
    with pytest.raises(RunError, match=r"last\.ckpt is damaged .*CRC-32"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def full(*arguments, **options):
        raise RuntimeError("[enforce fail at inline_container.cc:603] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(RunError, match=r"last\.ckpt cannot be written: .*the last epoch is lost"):
        AtomicCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert AtomicCheckpointIO().load_checkpoint(path) == {"epoch": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]
