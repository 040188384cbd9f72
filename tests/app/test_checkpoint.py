"""Networks are read from every form of file, with their answers; broken ones end in one line."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.app import checkpoint as module
from pointcluster.app.checkpoint import offered_networks, open_checkpoint, read_checkpoint
from pointcluster.models import create_model, list_pretrained, load_model, save_model
from pointcluster.models.factory import FOLDER
from tests.models.published import checkpoint

from .conftest import blob
from .files import Trap


def test_a_saved_network_keeps_its_classes_and_answers(picture_weights, cloud_weights):
    for path, data in (
        (picture_weights, torch.rand(1, 1, 28, 28)),
        (cloud_weights, Data(pos=torch.from_numpy(blob()))),
    ):
        network = read_checkpoint(path)
        expected = load_model(path)[0](data)
        assert torch.equal(network.model(data), expected)
        assert len(network.classes) == expected.size(1)
        assert sum(network.classify(data).values()) == pytest.approx(1)


@pytest.mark.parametrize("features", [[], ["normal"]])
def test_the_checkpoint_of_a_run_on_scans(tmp_path, features):
    prepared = {"num_points": 100, "features": features, "up": "z"}
    model = create_model("point_coc_tiny", num_classes=2, in_channels=3 * len(features)).eval()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    noted = {"config": model.config, "classes": ["a", "b"], "preprocessing": prepared}
    torch.save({"network": noted, "state_dict": state}, tmp_path / "last.ckpt")
    network = read_checkpoint(tmp_path / "last.ckpt")
    assert (network.kind, network.classes, network.up) == ("scan", ("a", "b"), "z")
    assert network.sizes[0] == 100 and network.title == "last.ckpt"
    pos = torch.from_numpy(blob())
    data = Data(pos=pos, x=torch.randn(len(pos), 3) if features else None)
    assert torch.equal(network.model(data), model(data))
    del noted["preprocessing"]
    torch.save({"network": noted, "state_dict": state}, tmp_path / "last.ckpt")
    if features:
        with pytest.raises(
            ValueError, match=r"^\S*/last\.ckpt takes 3 features a point, none said"
        ):
            read_checkpoint(tmp_path / "last.ckpt")
    else:
        assert read_checkpoint(tmp_path / "last.ckpt").up == "y"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preprocessing": 3}, "its 'preprocessing' is 3, expected a dictionary"),
        ({"preprocessing": {"up": "w"}}, "'up' is 'w', expected one of"),
        ({"classes": ["a"]}, "'classes' must be 2 names, found 1"),
        ({"classes": torch.zeros(2)}, "notes what is no plain text or number"),
    ],
)
def test_notes_of_a_run_that_make_no_sense(tmp_path, change, message):
    model = create_model("point_coc_tiny", num_classes=2)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    noted = {"config": model.config, "classes": ["a", "b"]} | change
    torch.save({"network": noted, "state_dict": state}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(tmp_path / "last.ckpt")
    assert str(tmp_path / "last.ckpt") in str(caught.value)


def write_published(path, name):
    entries = {key: value.float() for key, value in checkpoint(name).items()}
    torch.save({"state_dict": entries}, path)
    return path


def test_a_published_network_of_clouds_is_told_by_its_entries(tmp_path):
    network = read_checkpoint(write_published(tmp_path / "best.pth", "pointmlp_coc"))
    expected = create_model("pointmlp_coc", num_classes=len(network.classes)).eval()
    expected.load_published(checkpoint("pointmlp_coc"))
    data = Data(pos=torch.from_numpy(blob()))
    assert network.kind == "scan" and torch.equal(network.model(data), expected(data))


def test_a_published_network_of_pictures_is_told_by_its_name_where_entries_do_not(tmp_path):
    network = read_checkpoint(write_published(tmp_path / "CoC-tiny.pth.tar", "coc_tiny"))
    assert network.kind == "picture" and network.model.config["name"] == "coc_tiny"
    assert network.sizes == (224, 448) and network.title == "CoC-tiny.pth.tar"
    with pytest.raises(ValueError, match="name the file after it"):
        read_checkpoint(write_published(tmp_path / "best.pth.tar", "coc_tiny"))


def test_code_in_a_checkpoint_is_refused(tmp_path):
    path = tmp_path / "bad.pth.tar"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "trap": pytest.raises}, path)
    with pytest.raises(ValueError, match=r"would have to be called|could run any code"):
        read_checkpoint(path)


def test_weights_that_are_nan_are_refused(tmp_path):
    model = create_model("point_coc_tiny", num_classes=2)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    path = save_model(tmp_path / "model", model)
    with pytest.raises(ValueError, match="NaN or infinite"):
        read_checkpoint(path)


def test_all_weights_that_came_along_are_offered_clouds_first():
    found = offered_networks()
    names = list_pretrained(task=None)
    assert set(found) == {f"{name}, {data.replace('_', ' ')}" for name, data in names}
    kinds = [network.kind for network in found.values()]
    assert kinds == ["scan", "scan", "picture", "scene"]
    for title, network in found.items():
        assert network.title == title and not network.model.training and network.about
        assert network.kind == "scene" or network.sizes[0] > 0
        assert list(network.sizes) == sorted(network.sizes)


def test_weights_that_are_absent_are_not_offered(tmp_path, monkeypatch, cloud_weights):
    name, data = list_pretrained()[0]
    for suffix in (".safetensors", ".json"):
        shutil.copy(FOLDER / f"{name}-{data}{suffix}", tmp_path)
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    assert list(offered_networks()) == [f"{name}, {data.replace('_', ' ')}"]
    (tmp_path / f"{name}-{data}.json").unlink()
    with pytest.raises(ValueError, match="--checkpoint"):
        offered_networks()
    assert list(offered_networks([cloud_weights])) == ["blobs"]


def test_a_network_of_scenes_is_read_from_its_files_and_its_run(tmp_path, scene_weights):
    saved = read_checkpoint(scene_weights)
    assert saved.kind == "scene" and saved.classes == ("ground", "high vegetation", "other")
    assert saved.segmenter.codes == [2, 5, 1] and saved.segmenter.features == ["height"]
    model, noted = load_model(scene_weights)
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"network": {"config": model.config, **noted}, "state_dict": state},
               tmp_path / "last.ckpt")  # fmt: skip
    run = read_checkpoint(tmp_path / "last.ckpt")
    assert (run.classes, run.segmenter[1:]) == (saved.classes, saved.segmenter[1:])
    path = save_model(tmp_path / "bare", model)
    with pytest.raises(ValueError, match="bare"):
        read_checkpoint(path)


def test_a_network_of_another_task_is_refused_in_one_line(tmp_path):
    pytest.importorskip("torchvision")
    model = create_model("semantic_fpn_coc_tiny", num_classes=2)
    path = save_model(tmp_path / "parts", model)
    with pytest.raises(
        ValueError, match=r"parts\.safetensors holds 'semantic_fpn_coc_tiny', which"
    ):
        read_checkpoint(path)


def test_networks_of_one_name_are_told_apart(tmp_path):
    paths = []
    for run in ("a", "b"):
        model = create_model("point_coc_tiny", num_classes=2)
        paths.append(save_model(tmp_path / run / "model", model))
    assert list(offered_networks(paths))[:2] == ["model", str(paths[1])]


def test_a_network_without_classes_is_refused(tmp_path):
    path = save_model(tmp_path / "model", create_model("point_coc_tiny", num_classes=0))
    with pytest.raises(ValueError, match="without a classifier"):
        offered_networks([path])
    with pytest.raises(FileNotFoundError):
        offered_networks([tmp_path / "nowhere.safetensors"])


def saved_files(weights, folder):
    """Copies of the two files of a network, each in a folder of its own as browsers send them."""
    paths = []
    for number, each in enumerate([weights.with_suffix(".json"), weights]):
        path = folder / str(number) / each.name
        path.parent.mkdir()
        path.write_bytes(each.read_bytes())
        paths.append(path)
    return paths


def test_a_network_is_opened_from_two_files_in_any_order(tmp_path, picture_weights):
    paths = saved_files(picture_weights, tmp_path)
    network = open_checkpoint(paths)
    assert network.kind == "picture" and network.classes[0] == "hat"
    assert network.title == "yours: hats.safetensors"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", ["alone", "note alone", "damaged", "other note", "pickle", "text"])
def test_a_broken_network_is_refused_in_one_line(tmp_path, picture_weights, cloud_weights, kind):
    note, weights = saved_files(picture_weights, tmp_path)
    paths = [note, weights]
    if kind == "alone":
        paths, expected = [weights], "choose both files together"
        note.unlink()
    elif kind == "note alone":
        paths, expected = [note], "choose one network"
        weights.unlink()
    elif kind == "damaged":
        weights.write_bytes(weights.read_bytes()[:-10])
        expected = "damaged or of another run"
    elif kind == "other note":
        note.write_bytes(cloud_weights.with_suffix(".json").read_bytes())
        expected = "damaged or of another run"
    else:
        note.unlink()
        weights.unlink()
        path = tmp_path / "net.pth.tar"
        path.write_bytes(pickle.dumps(Trap()) if kind == "pickle" else b"hello there")
        paths, expected = [path], "could run any code|would have to be called|cannot be read"
    with pytest.raises(ValueError, match=expected) as caught:
        open_checkpoint(paths)
    assert str(tmp_path) not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not Trap.ran


def test_the_note_of_a_network_cannot_name_other_files(tmp_path, picture_weights):
    note, weights = saved_files(picture_weights, tmp_path)
    content = json.loads(note.read_text())
    content["config"]["name"] = "../../etc/passwd"
    note.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="no network"):
        open_checkpoint([note, weights])
