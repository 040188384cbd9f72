from __future__ import annotations

import argparse
import json
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch_geometric.data import Data

from pointcluster.models import create_model, load_model, save_model
from pointcluster.models.files import is_run, read_safely, saved_in_run
from tests.models.published import checkpoint


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


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused(tmp_path, zipped):
    path, trap = tmp_path / "evil.pth", tmp_path / "trap"
    torch.save(
        {"w": torch.ones(3), "args": Evil(trap)}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(ValueError, match=r"is refused: .*posix\.mkdir|nt\.mkdir"):
        read_safely(path)
    path.write_bytes(pickle.dumps({"state_dict": Evil(trap)}))
    with pytest.raises(ValueError, match="could run any code|is refused"):
        read_safely(path)
    assert not trap.exists()
    pickle.loads(path.read_bytes())  # ... while pickle itself would have run it
    assert trap.exists()


def test_only_the_one_class_is_allowed(tmp_path):
    torch.save({"args": argparse.ArgumentParser}, tmp_path / "class.pth")
    with pytest.raises(ValueError, match=r"is refused: .*argparse\.ArgumentParser"):
        read_safely(tmp_path / "class.pth")
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_damaged_checkpoints(tmp_path):
    options = argparse.Namespace(model="coc_tiny", opt_betas=[0.9])
    torch.save({"state_dict": checkpoint("coc_tiny"), "args": options}, tmp_path / "good.pth")
    assert read_safely(tmp_path / "good.pth")["args"] == options
    whole = (tmp_path / "good.pth").read_bytes()
    for content in (b"", b"hello world", whole[:300], whole[:-100], whole[1000:]):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(ValueError, match="bad.pth cannot be read: it is truncated"):
            read_safely(tmp_path / "bad.pth")
    torch.save({"w": torch.ones(1000)}, tmp_path / "small.pth")
    for part in (slice(-100), slice(1000, None)):
        (tmp_path / "bad.pth").write_bytes((tmp_path / "small.pth").read_bytes()[part])
        with pytest.raises(ValueError, match="bad.pth cannot be read"):
            read_safely(tmp_path / "bad.pth")
    with zipfile.ZipFile(tmp_path / "bad.pth", "w") as file:
        file.writestr("a", "b")
    with pytest.raises(ValueError, match="cannot be read"):
        read_safely(tmp_path / "bad.pth")
    with pytest.raises(FileNotFoundError, match="nothing.pth is not there"):
        read_safely(tmp_path / "nothing.pth")


def test_what_runs_hold(tmp_path):
    state = {"model.w": torch.ones(2), "average.module.w": torch.zeros(2), "step": 3}
    content = {"network": {"config": {"name": "net"}, "classes": ["a"]}, "state_dict": state}
    assert is_run(content) and not is_run(state)
    saved = saved_in_run("last.ckpt", content)
    assert saved.config == {"name": "net"} and saved.noted["classes"] == ["a"]
    assert saved.prefix == "average.module." and saved.weights == {"w": state["average.module.w"]}
    for key, value, message in (
        ("network", 3, "its entry 'network' is 3, expected a dictionary"),
        ("network", {"config": {}}, "its entry 'network' is {'config': {}}"),
        ("network", {"config": {"name": "net"}, "preprocessing": 3}, "its 'preprocessing' is 3"),
        ("state_dict", None, "its entry 'state_dict' is None, expected the weights"),
    ):
        with pytest.raises(ValueError, match=message):
            saved_in_run("last.ckpt", content | {key: value})
