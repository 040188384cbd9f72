"""Networks are read from every form of file, with the answers that they gave before."""

from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Data

from pointcluster.app.checkpoint import read_checkpoint
from pointcluster.models import create_model, load_model, save_model
from tests.models.published import checkpoint

from .conftest import blob


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
