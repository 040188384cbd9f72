from __future__ import annotations

import pytest
import torch
from torch_geometric.data import Batch, Data


@pytest.fixture
def clouds():
    generator = torch.Generator().manual_seed(0)
    return Batch.from_data_list([Data(pos=torch.rand(256, 3, generator=generator))] * 2)


@pytest.mark.parametrize("base", ["point_coc_tiny", "point_coc_small"])
def test_every_variant_is_another_network_that_trains(script, clouds, base):
    ablation = script("ablation")
    variants = ablation.variants(base)
    seen = set()
    for build in [
        lambda classes: ablation.create_model(base, num_classes=classes),
        *variants.values(),
    ]:
        torch.manual_seed(0)
        model = build(5)
        logits = model(clouds)
        logits.logsumexp(dim=1).sum().backward()
        assert logits.shape == (2, 5) and logits.isfinite().all()
        model.eval()
        seen.add(tuple(model(clouds)[0].tolist()))
    assert len(seen) == 1 + len(variants)


def test_the_page_is_of_the_network_that_was_asked_for(script, monkeypatch):
    ablation = script("ablation")
    seen = []
    monkeypatch.setattr(
        ablation.peers, "compare", lambda args, *rest, **more: seen.append((args, *rest)) or 0
    )
    assert ablation.main(["--budget", "0"]) == 0
    assert ablation.main(["--base", "point_coc_tiny", "--models", "point_coc_tiny", "1 head"]) == 0
    small, tiny = seen
    assert small[1] == "ablation" and small[0].models[0] == "point_coc_small"
    assert tiny[1] == "ablation_tiny" and tiny[0].models == ["point_coc_tiny", "1 head"]
    assert ablation.peers.create("1 head", 5).config["name"] == "point_coc_tiny"


def test_soft_clusters_agree_with_a_loop(script):
    ablation = script("ablation")
    layer = ablation.SoftCluster(6, heads=2, head_channels=3, num_centers=2, k=3, region_size=8)
    layer = layer.double()
    x, pos = torch.randn(2, 8, 6).double()[0], torch.randn(8, 3).double()
    geometry = layer.geometry(pos)
    x = x[geometry.order]
    found = layer(x, geometry)
    expected = torch.zeros(8, 6, dtype=torch.float64)
    f, v = layer.fv(x).view(8, 2, 2, 3).unbind(1)
    for head in range(2):
        pool = (geometry.regions.pool / geometry.regions.filled[..., None]).double()[0]
        c, g = pool @ f[:, head], pool @ v[:, head]
        for n in range(8):
            cos = [torch.cosine_similarity(f[n, head], c[m], dim=0) for m in range(2)]
            share = torch.softmax(4 * torch.stack(cos), dim=0)
            expected[n, 3 * head : 3 * head + 3] = 0
            for m in range(2):
                h, mass = g[m].clone(), 1.0
                for other in range(8):
                    near = [torch.cosine_similarity(f[other, head], c[j], dim=0) for j in range(2)]
                    w = torch.sigmoid(layer.beta + layer.alpha * near[m])
                    w = w * torch.softmax(4 * torch.stack(near), dim=0)[m]
                    h, mass = h + w * v[other, head], mass + w
                own = torch.sigmoid(layer.beta + layer.alpha * cos[m]) * share[m]
                expected[n, 3 * head : 3 * head + 3] += own * h / mass
    torch.testing.assert_close(found, layer.proj(expected), rtol=0, atol=1e-10)


def test_soft_clusters_have_no_one_cluster_to_tell(script, clouds):
    model = script("ablation").variants("point_coc_tiny")["soft clusters"](5)
    with pytest.raises(ValueError, match="no one cluster"):
        model.clusters(clouds)
