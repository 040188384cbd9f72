from __future__ import annotations

import hashlib
import shutil

import pytest
import torch

from pointcluster.datasets import FashionMNIST, HomeObjects
from pointcluster.models import (
    create_model,
    factory,
    list_models,
    list_pretrained,
    load_model,
    save_model,
)
from pointcluster.models.dense import MaskRCNN, SemanticFPN
from pointcluster.transforms import FirstPoints


def test_names():
    assert {"point_coc_small", "point_coc_tiny"} <= set(list_models())
    with pytest.raises(ValueError, match=r"no network 'point_net': choose one of .*point_coc_tiny"):
        create_model("point_net")


def test_config_builds_the_same_network():
    model = create_model("point_coc_tiny", num_classes=5, in_channels=2, k=9)
    again = create_model(**model.config)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (model, again)]
    assert shapes[0] == shapes[1]
    assert again.plans == model.plans


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="colour"):
        create_model("point_coc_tiny", colour="red")


@pytest.mark.parametrize(("name", "data"), list_pretrained())
def test_answers_as_it_did_when_it_was_trained(name, data):
    _, metadata = load_model(factory.FOLDER / f"{name}-{data}")
    result, model = metadata["result"], create_model(name, pretrained=data)
    assert not model.training
    with torch.inference_mode():
        if data == "home_objects":
            test = HomeObjects(split="test")
            points = FirstPoints(result["num_points"])
            found = torch.cat([model(points(cloud)) for cloud in test])
            expected = torch.tensor([int(cloud.y) for cloud in test])
        else:
            test = FashionMNIST(split="test")
            (mean,), (std,) = (metadata["data_config"][key] for key in ("mean", "std"))
            found = model((test.images[:, None].float() / 255 - mean) / std)
            expected = test.targets
    assert metadata["classes"] == list(test.classes)
    right = int((found.argmax(dim=1) == expected).sum())
    # Rounding differs between machines: two inputs may fall on the other side.
    assert abs(right - result["test_accuracy"] * len(test)) <= 2


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Weights made for the test."""
    torch.manual_seed(0)
    model = create_model("point_coc_tiny", num_classes=3, in_channels=3)
    path = save_model(tmp_path / "point_coc_tiny-shapes", model, {"classes": ["a", "b", "c"]})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(factory, "FOLDER", tmp_path)
    monkeypatch.setattr(factory, "PRETRAINED", {("point_coc_tiny", "shapes"): digest})
    return model, path


@pytest.mark.parametrize("data", ["shapes", True])
def test_the_weights_and_a_classifier_for_other_classes(own, data):
    model, _ = own
    found = create_model("point_coc_tiny", pretrained=data, dropout=0.5)
    assert found.config == model.config | {"dropout": 0.5} and found.neck[2].p == 0.5
    for key, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)
    other = create_model("point_coc_tiny", pretrained=data, num_classes=7, in_channels=3)
    assert other.head.out_features == other.config["num_classes"] == 7
    assert torch.equal(other.neck[0].weight, model.neck[0].weight)
    assert create_model("point_coc_tiny", pretrained=False).num_classes == 40


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("point_coc_tiny", {"pretrained": "sky"}, "'shapes' for point_coc_tiny"),
        ("point_coc_small", {"pretrained": True}, "no weights of point_coc_small"),
        ("point_coc_tiny", {"pretrained": True, "in_channels": 6}, "in_channels = 3, found 6"),
        ("point_coc_tiny", {"pretrained": True, "depths": (2, 1, 1)}, "do not fit the options"),
    ],
)
def test_weights_that_are_not_there_or_do_not_fit(own, name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **options)


def test_damaged_exchanged_and_missing_weights(own, tmp_path):
    model, path = own
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged"):
        create_model("point_coc_tiny", pretrained=True)
    with torch.no_grad():
        model.head.bias += 1
    save_model(path, model)  # whole, with a description of its own, but not what was recorded
    with pytest.raises(ValueError, match="its SHA-256 is .*, expected"):
        create_model("point_coc_tiny", pretrained=True)
    shutil.move(path, tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="is not there"):
        create_model("point_coc_tiny", pretrained=True)


# Segmentation and detection, by name.


def test_dense_names_by_task():
    assert "semantic_fpn_coc_medium_feat7" in list_models(task="segmentation of pictures")
    assert list_models("mask_rcnn_*", task="detection") == list_models(task="detection")
    assert not any("fpn" in name for name in list_models())
    everything = list_models(task=None)
    assert {"coc_micro", "mask_rcnn_coc_nano", "semantic_fpn_coc_nano"} <= set(everything)
    with pytest.raises(ValueError, match="task must be one of classification"):
        list_models(task="depth")
    with pytest.raises(ValueError, match="no network 'semantic_fpn_coc_micro'"):
        create_model("semantic_fpn_coc_micro")


def test_segmentation_built_saved_and_loaded(tmp_path):
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = create_model("semantic_fpn_coc_nano", num_classes=4, in_channels=1).eval()
    assert isinstance(model, SemanticFPN) and model.num_classes == 4
    save_model(tmp_path / "net", model, {"classes": list("abcd")})
    loaded, about = load_model(tmp_path / "net")
    images = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images)) and about["classes"] == list("abcd")


def test_detectors_built_saved_and_loaded(tmp_path):
    pytest.importorskip("torchvision")
    options = {"min_size": 64, "max_size": 96}
    model = create_model("mask_rcnn_coc_nano", num_classes=3, detector=options).eval()
    assert isinstance(model, MaskRCNN) and model.detector.transform.min_size == (64,)
    save_model(tmp_path / "net", model)
    loaded, _ = load_model(tmp_path / "net")
    assert loaded.detector.transform.max_size == 96
    with torch.no_grad():
        assert set(loaded([torch.rand(3, 64, 80)])[0]) == {"boxes", "labels", "scores", "masks"}
