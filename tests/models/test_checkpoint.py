from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch_geometric.data import Data

from pointcluster.models import create_model, load_model, save_model


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = create_model("point_coc_tiny", num_classes=4)
    return model.eval(), save_model(tmp_path / "net", model, {"classes": ["a", "b", "c", "d"]})


def test_comes_back_the_same(saved):
    model, path = saved
    data = Data(pos=torch.randn(100, 3))
    for name in (path, path.with_suffix(".json"), path.with_suffix("")):
        again, metadata = load_model(name, name="point_coc_tiny")
        assert torch.equal(again(data), model(data))
        assert metadata == {"classes": ["a", "b", "c", "d"]} and not again.training
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]


def test_a_reset_classifier_is_kept(tmp_path):
    model = create_model("point_coc_tiny", num_classes=4)
    model.reset_classifier(9)
    again, _ = load_model(save_model(tmp_path / "net", model))
    assert again.head.out_features == 9


def test_names_with_dots_and_other_precisions(tmp_path):
    torch.manual_seed(0)
    for name in ("net-0.5", "net-0.7"):
        save_model(tmp_path / name, create_model("point_coc_tiny").double(), {"name": name})
    for name in ("net-0.5", "net-0.7.json"):
        model, metadata = load_model(tmp_path / name)
        assert metadata["name"] == name.removesuffix(".json")
        assert model.head.weight.dtype == torch.float64


def test_missing_half(saved):
    _, path = saved
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"net\.json is not there: a network is two files"):
        load_model(path)


def test_truncated_weights(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged or of another run"):
        load_model(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"config": 1}', "\x00\xff"])
def test_damaged_description(saved, text):
    _, path = saved
    path.with_suffix(".json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match="does not describe a network"):
        load_model(path)


def rewrite(path, **changes):
    import hashlib

    note = json.loads(path.with_suffix(".json").read_text())
    note["config"] |= changes
    note["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_suffix(".json").write_text(json.dumps(note))


def test_another_network(saved):
    _, path = saved
    with pytest.raises(ValueError, match="holds 'point_coc_tiny', expected 'point_coc_small'"):
        load_model(path, name="point_coc_small")
    rewrite(path, name="point_coc_small")
    with pytest.raises(ValueError, match="weights of another network than 'point_coc_small'"):
        load_model(path)
    rewrite(path, name="resnet")
    with pytest.raises(ValueError, match="no network 'resnet'"):
        load_model(path)


def test_missing_entry_and_no_safetensors(saved):
    _, path = saved
    state = load_file(path)
    state.pop("head.bias")
    save_file(state, path)
    rewrite(path)
    with pytest.raises(ValueError, match=r"1 entries differ, first head\.bias"):
        load_model(path)
    path.write_bytes(b"not weights at all")
    rewrite(path)
    with pytest.raises(ValueError, match="does not hold a network"):
        load_model(path)


def test_unwritable_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file"):
        save_model(tmp_path / "file" / "net", create_model("point_coc_tiny"))


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    _, path = saved
    before = path.read_bytes()

    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_model(path, create_model("point_coc_tiny", num_classes=4))
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.json", "net.safetensors"]


def test_metadata_must_be_json(tmp_path):
    with pytest.raises(TypeError):
        save_model(tmp_path / "net", create_model("point_coc_tiny"), {"x": torch.zeros(1)})
    assert not list(tmp_path.iterdir())
