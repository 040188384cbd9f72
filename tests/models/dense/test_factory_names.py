"""The paper's networks by name."""

from __future__ import annotations

import pytest
import torch

from pointcluster.models import create_model, list_models, load_model, save_model
from pointcluster.models.dense import MaskRCNN, SemanticFPN

pytest.importorskip("torchvision")


def test_names_by_task():
    assert "semantic_fpn_coc_medium_feat7" in list_models(task="segmentation of pictures")
    assert list_models("mask_rcnn_*", task="detection") == list_models(task="detection")
    assert not any("fpn" in name for name in list_models())
    everything = list_models(task=None)
    assert {"coc_micro", "mask_rcnn_coc_nano", "semantic_fpn_coc_nano"} <= set(everything)
    with pytest.raises(ValueError, match="task must be one of classification"):
        list_models(task="depth")
    with pytest.raises(ValueError, match="no network 'semantic_fpn_coc_micro'"):
        create_model("semantic_fpn_coc_micro")


def test_built_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    model = create_model("semantic_fpn_coc_nano", num_classes=4, in_channels=1).eval()
    assert isinstance(model, SemanticFPN) and model.num_classes == 4
    save_model(tmp_path / "net", model, {"classes": list("abcd")})
    loaded, about = load_model(tmp_path / "net")
    images = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images)) and about["classes"] == list("abcd")


def test_detectors(tmp_path):
    options = {"min_size": 64, "max_size": 96}
    model = create_model("mask_rcnn_coc_nano", num_classes=3, detector=options).eval()
    assert isinstance(model, MaskRCNN) and model.detector.transform.min_size == (64,)
    save_model(tmp_path / "net", model)
    loaded, _ = load_model(tmp_path / "net")
    assert loaded.detector.transform.max_size == 96
    with torch.no_grad():
        assert set(loaded([torch.rand(3, 64, 80)])[0]) == {"boxes", "labels", "scores", "masks"}
