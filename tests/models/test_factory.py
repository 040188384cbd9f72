from __future__ import annotations

import pytest

from pointcluster.models import create_model, list_models


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
