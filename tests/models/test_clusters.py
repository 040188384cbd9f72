from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pointcluster.models import create_model
from pointcluster.models.clusters import anchor_of_input, chosen_block, evaluating
from pointcluster.models.coc import CoC
from pointcluster.models.point_coc import PointCoC
from pointcluster.models.pointmlp_coc import PointMLPCoC
from pointcluster.transforms import ImageToPoints, RandomPixels
from pointcluster.viz import stage_clusters
from pointcluster.viz.colours import PALETTE
from pointcluster.viz.scene import make_scene, painted, pixels

EACH = 40


def coc(rng):
    stages = rng.choice([1, 2, 3])
    several = [rng.choice([1, 2]) for _ in range(stages)]
    return CoC(
        3, rng.choice([1, 3]), channels=[8] * stages, depths=several, head_channels=4,
        heads=[rng.choice([1, 2, 3]) for _ in range(stages)], mlp_ratios=[1] * stages,
        fold=[rng.choice([1, 2, 3]) for _ in range(stages)], patch=rng.choice([1, 2, 4]),
        centers=[rng.choice([1, 2, 3]) for _ in range(stages)],
    )  # fmt: skip


def picture(model, rng):
    return torch.rand(model.in_channels, rng.randint(5, 30), rng.randint(5, 30))


def make(kind, rng):
    """A random network, with data for it."""
    torch.manual_seed(rng.randrange(10**6))
    if kind in ("tensor", "lattices", "loose"):
        model = coc(rng)
        if kind == "tensor":
            return model, torch.stack([picture(model, rng)] * rng.choice([1, 2]))
        items = [ImageToPoints()(picture(model, rng)) for _ in range(rng.choice([1, 3]))]
        if kind == "loose":
            items = [RandomPixels(rng.choice([0.2, 0.7]), seed=1)(item) for item in items]
        return model, Batch.from_data_list(items)
    sizes = [rng.randint(1, 150) for _ in range(rng.choice([1, 3]))]
    if kind == "mlp":
        model = PointMLPCoC(
            3, embedding=8, channels=(8, 8), blocks=(1, 2), depths=(1, 1), ratios=(0.5, 0.5), k=4,
            head_hidden=(8,),
        )  # fmt: skip
        sizes = [size + 8 for size in sizes]
    else:
        stages = rng.choice([1, 2, 3])
        model = PointCoC(
            3, channels=[8] * stages, depths=[rng.choice([1, 2]) for _ in range(stages)],
            heads=[rng.choice([1, 2, 4]) for _ in range(stages)], ratios=[0.5] * stages,
            encode=[0] * stages, k=4, center_k=3, num_centers=rng.choice([1, 3, 4]),
            region_size=rng.choice([8, 20]), head_hidden=8,
        )  # fmt: skip
    return model, Batch.from_data_list([Data(pos=torch.randn(size, 3)) for size in sizes])


@pytest.mark.parametrize("kind", ["tensor", "lattices", "loose", "cloud", "mlp"])
def test_every_point_has_one_centre_of_its_region_and_the_colour_of_its_cluster(kind):
    rng = random.Random(kind)
    for _ in range(EACH):
        model, data = make(kind, rng)
        stage = rng.randrange(len(model.num_blocks))
        block = rng.randrange(model.num_blocks[stage])
        every = model.clusters(data, stage, block)
        heads = every.index.size(1)
        head = rng.randrange(-heads, heads)
        found = model.clusters(data, stage, block, head)
        batch = data.batch if isinstance(data, Data) else every.batch
        assert torch.equal(found.index, every.index[:, head, None])
        assert torch.equal(found.similarity, every.similarity[:, head, None])
        assert found.index.shape == found.similarity.shape == (len(batch), 1)
        assert ((found.similarity > 0) & (found.similarity < 1)).all()
        index = found.index[:, 0]
        assert torch.equal(found.batch, batch) and torch.equal(found.center_batch[index], batch)
        axes = 3 if kind in ("cloud", "mlp") else 2
        assert found.center_pos.shape == (len(found.center_batch), axes)
        per_region = {  # the regions of a block have the same number of centres
            "cloud": lambda m, s: m.stages[s][0].cluster.num_centers,
            "mlp": lambda m, s: 1,
        }.get(kind, lambda m, s: m.plans[s].centers ** 2)(model, stage)
        assert torch.equal(index // per_region, found.region)
        counts = torch.bincount(index, minlength=len(found.center_batch))
        clouds = torch.bincount(batch)
        assert torch.equal(
            torch.zeros_like(clouds).index_add(0, found.center_batch, counts), clouds
        )
        cloud = rng.randrange(len(clouds))
        _colours_match(data, found, cloud, rng)


def _colours_match(data, found, cloud, rng):
    scene = make_scene(data, found, cloud=cloud, opacity=1, borders=False)
    (panel,) = scene.panels
    colours = painted(scene, panel)
    own = found.index[found.batch == cloud, 0].tolist()
    assert len(own) == len(colours)
    of = {}
    for point in rng.sample(range(len(own)), min(30, len(own))):
        colour = tuple(colours[point])
        assert of.setdefault(own[point], colour) == colour
        assert (abs(PALETTE - colour).sum(axis=1) == 0).sum() == 1
        if scene.subject.is_picture:
            row, column = scene.subject.pos[point].round().astype(int)
            assert tuple(pixels(scene, panel)[row, column]) == colour
    if len(set(own)) <= len(PALETTE):
        assert len(set(of.values())) == len(of)


def test_errors_list_what_exists():
    model = create_model("coc_micro", num_classes=2, in_channels=1)
    image = torch.rand(1, 1, 28, 28)
    stages = len(model.num_blocks)
    with pytest.raises(IndexError, match=f"no stage number 9: choose 0 to {stages - 1}"):
        model.clusters(image, 9)
    with pytest.raises(IndexError, match="no block of stage 0 number 7"):
        model.clusters(image, 0, 7)
    heads = model.stages[0][0].cluster.heads
    with pytest.raises(
        IndexError,
        match=f"head of stage 0, block 0 number -9: choose 0 to {heads - 1}, or -{heads}",
    ):
        model.clusters(image, 0, 0, -9)
    with pytest.raises(IndexError, match="there is only 0"):
        chosen_block([[1]], 0, 0, 1)


def test_parts_keep_their_modes():
    model = create_model("point_coc_tiny", num_classes=2).train()
    model.stages[0].eval()
    before = {name: part.training for name, part in model.named_modules()}
    model.clusters(Data(pos=torch.randn(60, 3)))
    assert before == {name: part.training for name, part in model.named_modules()}
    with pytest.raises(ZeroDivisionError), evaluating(model):
        assert not model.training
        1 / 0  # noqa: B018
    assert model.training and not model.stages[0].training


def test_a_hierarchy_worked_out_before_gives_the_same_and_another_is_refused():
    model = create_model("point_coc_tiny", num_classes=2).eval()
    data = Data(pos=torch.randn(80, 3))
    hierarchy = model.hierarchy(data)
    same = model.clusters(data, 1, hierarchy=hierarchy)
    assert torch.equal(same.index, model.clusters(data, 1).index)
    with pytest.raises(ValueError, match=r"shape \[81, 3\], .* worked out for \[80, 3\]"):
        model.clusters(Data(pos=torch.randn(81, 3)), hierarchy=hierarchy)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_anchors_are_followed_as_a_loop_does(dtype):
    model = create_model("point_coc_tiny", num_classes=2).eval()
    data = Batch.from_data_list([Data(pos=torch.randn(n, 3, dtype=dtype)) for n in (70, 40)])
    stages = [stage.anchors for stage in model.hierarchy(data).stages]
    found = anchor_of_input(data, stages)
    for point in range(0, len(data.pos), 7):
        pos, cloud = data.pos[point], data.batch[point]
        for anchors in stages:
            own = (anchors.batch == cloud).nonzero()[:, 0]
            away = (anchors.pos[own].to(dtype) - pos).norm(dim=1)
            nearest = own[away.argmin()]
            pos = anchors.pos[nearest].to(dtype)
        assert found[point] == nearest
    assert torch.equal(anchor_of_input(data, []), torch.arange(110))


def test_centres_of_pictures_sit_in_the_middle_of_their_pixels():
    model = create_model("coc_tiny", num_classes=2).eval()
    found = model.clusters(torch.rand(1, 3, 64, 64), 3, 0)
    # 2 x 2 points, each a centre: of 32 x 32 pixels each
    expected = torch.tensor([15.5, 47.5]) / 63 - 0.5
    expected = torch.cartesian_prod(expected, expected)
    torch.testing.assert_close(found.center_pos, expected)


def test_a_notebook_shows_how_many_points_centres_have():
    model = create_model("point_coc_tiny", num_classes=2).eval()
    found = model.clusters(Data(pos=torch.randn(100, 3)), 0)
    text = found._repr_html_()
    assert "100 points of 1 cloud," in text and text.count("<tr>") == 1 + found.index.size(1)
    assert text.count("<td>") == text.count("</td>") == 6 * found.index.size(1)
    assert set(stage_clusters(model, Data(pos=torch.randn(30, 3)))) == {
        f"stage {s}, block {n - 1}" for s, n in enumerate(model.num_blocks)
    }


def test_a_notebook_shows_clusters_of_no_points():
    model = create_model("point_coc_tiny", num_classes=2).eval()
    found = model.clusters(Data(pos=torch.randn(0, 3)), 0)
    text = found._repr_html_()
    assert "0 points of 0 cloud," in text and text.count("<td>") == 6 * found.index.size(1)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (("0", 0), r"a stage is chosen by an integer, found '0': choose 0 to 2, or -3 to -1"),
        ((0.5, 0), r"a stage is chosen by an integer, found 0.5: choose 0 to 2"),
        ((0, "first"), r"a block of stage 0 is chosen by an integer, found 'first': there is only"),
        ((0, 0, "all"), r"a head of stage 0, block 0 is chosen by an integer, found 'all': choose"),
    ],
)
def test_places_are_integers(chosen, message):
    model = create_model("point_coc_tiny", num_classes=2).eval()
    with pytest.raises(TypeError, match=message):
        model.clusters(Data(pos=torch.randn(20, 3)), *chosen)
    found = model.clusters(Data(pos=torch.randn(20, 3)), np.int64(-1), torch.tensor(0))
    assert len(found.index) == 20
    with pytest.raises(TypeError, match="a head is chosen by an integer, found 'x'"):
        found.of_head("x")
