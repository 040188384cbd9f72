from __future__ import annotations

import json
import sys

import pytest
import torch
from torch_geometric.data import Data

pytest.importorskip("huggingface_hub")

from pointcluster.models import create_model, hub


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = create_model("coc_micro", num_classes=4, layer_scale=0.5).eval()
    hub.HubCoC.of(model).save_pretrained(tmp_path / "net")
    return model, tmp_path / "net"


def test_a_folder_comes_back_the_same(saved):
    model, folder = saved
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    assert "library_name: pointcluster" in (folder / "README.md").read_text()
    config = json.loads((folder / "config.json").read_text())
    assert config == {"name": "coc_micro", "num_classes": 4, "in_channels": 3, "layer_scale": 0.5}
    again = hub.HubCoC.from_pretrained(folder)
    images = torch.randn(2, 3, 28, 28)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))
    assert not again.training
    again.reset_classifier(9)
    again.save_pretrained(folder)
    assert hub.HubCoC.from_pretrained(folder).head.out_features == 9


def test_clouds(tmp_path):
    torch.manual_seed(0)
    model = create_model("point_coc_tiny", num_classes=4).double().eval()
    hub.HubPointCoC.of(model).save_pretrained(tmp_path)
    again = hub.HubPointCoC.from_pretrained(tmp_path)
    data = Data(pos=torch.randn(100, 3).double())
    assert torch.equal(again(data), model(data))


def test_the_papers_network_of_clouds(tmp_path):
    torch.manual_seed(0)
    size = {"embedding": 4, "channels": (6, 8), "blocks": (1, 1), "depths": (1, 1)}
    model = create_model("pointmlp_coc", num_classes=4, ratios=(0.5, 0.5), k=5, **size).eval()
    hub.HubPointMLPCoC.of(model).save_pretrained(tmp_path)
    again = hub.HubPointMLPCoC.from_pretrained(tmp_path)
    data = Data(pos=torch.randn(50, 3))
    assert torch.equal(again(data), model(data))


def test_weights_that_do_not_fit(saved):
    _, folder = saved
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_classes": 5}))
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold the network"):
        hub.HubCoC.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="does not hold the network"):
        hub.HubCoC.from_pretrained(folder)


def test_another_network():
    with pytest.raises(ValueError, match="no network 'point_coc_tiny' here"):
        hub.HubCoC("point_coc_tiny")
    with pytest.raises(TypeError, match="takes no PointCoC"):
        hub.HubCoC.of(create_model("point_coc_tiny"))


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delitem(sys.modules, "pointcluster.models.hub")
    with pytest.raises(ImportError, match=r"pip install 'pointcluster\[hub\]'"):
        import pointcluster.models.hub  # noqa: F401
