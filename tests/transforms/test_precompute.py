from __future__ import annotations

import pickle
import warnings

import pytest
import torch
from torch.utils.data import DataLoader as TorchLoader
from torch_geometric.data import Batch, Data, InMemoryDataset
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Compose, RandomJitter

from pointcluster.geometry import LatticePlan, StagePlan
from pointcluster.models import clusters as clusters_module
from pointcluster.models import coc as coc_module
from pointcluster.models import create_model
from pointcluster.models import point_coc as point_coc_module
from pointcluster.models import pointmlp_coc as pointmlp_coc_module
from pointcluster.transforms import ImageToPoints, PrecomputeHierarchy, RandomPixels
from tests.geometry.same import assert_same

SIZES = [60, 90, 0, 60, 7]
# Of the paper's network, which is large.
SMALL = {"embedding": 8, "channels": (16, 32), "blocks": (1, 1), "depths": (1, 1),
         "ratios": (0.5, 0.5), "k": 8, "head_hidden": (16,)}  # fmt: skip


def clouds(sizes=SIZES, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [
        Data(pos=torch.randn(n, 3, generator=generator, dtype=dtype), y=torch.tensor([i % 3]))
        for i, n in enumerate(sizes)
    ]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return create_model("point_coc_tiny", num_classes=3).eval()


@pytest.fixture
def no_search(monkeypatch):
    """Any search in a network fails."""

    def fail(*args, **options):
        raise AssertionError("a neighbour search")

    for module, names in [
        (point_coc_module, ["build_hierarchy"]),
        (pointmlp_coc_module, ["planned_anchors"]),
        (coc_module, ["image_hierarchy"]),
        (clusters_module, ["knn"]),
    ]:
        for name in names:
            monkeypatch.setattr(module, name, fail)


class Clouds(torch.utils.data.Dataset):
    """A data set that applies a transform, as PyG's do."""

    def __init__(self, items, transform):
        self.items, self.transform = items, transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.transform(self.items[index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["point_coc_tiny", "point_coc_small", "pointmlp_coc"])
@pytest.mark.parametrize("whole", [False, True], ids=["clouds", "batch"])
def test_a_network_takes_it_and_answers_the_same(name, dtype, whole, request):
    torch.manual_seed(0)
    smaller = SMALL if name == "pointmlp_coc" else {}
    model = create_model(name, num_classes=3, **smaller).to(dtype).eval()
    plain = Batch.from_data_list(clouds(dtype=dtype))
    expected, hierarchy = model(plain), model.hierarchy(plain)
    transform = PrecomputeHierarchy(model)
    if whole:
        batch = transform.collate(clouds(dtype=dtype))
    else:
        batch = Batch.from_data_list([transform(cloud) for cloud in clouds(dtype=dtype)])
    assert_same(model.hierarchy(batch), hierarchy)
    request.getfixturevalue("no_search")
    assert torch.equal(model(batch), expected)
    assert torch.equal(model(batch), expected)  # and is still there


def test_clusters_take_it_too(model):
    batch = PrecomputeHierarchy(model.plans).collate(clouds())
    found, plain = model.clusters(batch), model.clusters(Batch.from_data_list(clouds()))
    for a, b in zip(found, plain, strict=True):
        assert torch.equal(a, b)


def test_one_cloud_without_a_batch(model, no_search):
    cloud = clouds([80])[0]
    given = PrecomputeHierarchy(model.plans)(cloud)
    assert "hierarchy" not in cloud and "hierarchy" in given
    assert torch.equal(model(given), model(Batch.from_data_list([given])))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_loaders(model, no_search, workers):
    transform = PrecomputeHierarchy(model.plans)
    items = clouds()
    options = {"batch_size": 3, "num_workers": workers}
    by_cloud = DataLoader(Clouds(items, transform), follow_batch=["y"], **options)
    by_batch = TorchLoader(Clouds(items, lambda x: x), collate_fn=transform.collate, **options)
    for start, a, b in zip((0, 3), by_cloud, by_batch, strict=True):
        assert torch.equal(a.y_batch, torch.arange(len(a)))
        assert_same(model.hierarchy(a), model.hierarchy(b))
        alone = [model(transform(item)) for item in items[start : start + 3]]
        torch.testing.assert_close(model(a), torch.cat(alone), rtol=0, atol=1e-5)
        assert torch.equal(model(a), model(b))


def test_follow_batch_of_the_hierarchy_itself(model, no_search):
    given = [PrecomputeHierarchy(model.plans)(cloud) for cloud in clouds()]
    batch = Batch.from_data_list(given, follow_batch=["pos", "hierarchy"])
    assert torch.equal(model(batch), model(Batch.from_data_list(given)))


def test_apart_again_and_together_again(model, no_search):
    given = [PrecomputeHierarchy(model.plans)(cloud) for cloud in clouds()]
    batch = Batch.from_data_list(given)
    for one, again in zip(given, batch.to_data_list(), strict=True):
        assert_same(model.hierarchy(again), model.hierarchy(one))
    assert_same(model.hierarchy(batch[3]), model.hierarchy(given[3]))
    some = Batch.from_data_list(batch[[3, 0]])
    assert_same(model.hierarchy(some), model.hierarchy(Batch.from_data_list([given[3], given[0]])))
    # Worked out for a whole batch, it is not divided: the clouds alone carry none.
    assert "hierarchy" not in PrecomputeHierarchy(model.plans).collate(clouds())[1]


@pytest.mark.parametrize("whole", [False, True], ids=["clouds", "batch"])
def test_moves_with_its_batch(model, no_search, whole):
    transform = PrecomputeHierarchy(model.plans)
    given = [transform(cloud) for cloud in clouds()]
    batch = transform.collate(clouds()) if whole else Batch.from_data_list(given)
    expected = model(batch)
    for moved in (batch.clone(), batch.to("cpu"), pickle.loads(pickle.dumps(batch)).contiguous()):
        assert torch.equal(model(moved), expected)
    tensors = list(tensors_in(batch.to("meta").hierarchy))
    assert len(tensors) > 20 and all(value.is_meta for value in tensors)


def tensors_in(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_in(part)


def test_a_hierarchy_moves(model):
    cloud = clouds([50])[0]
    hierarchy = model.hierarchy(cloud)
    assert_same(hierarchy.to("cpu"), hierarchy)
    moved = hierarchy.to("meta")
    assert type(moved) is type(hierarchy) and moved.batch_size == 1
    for value, was in zip(tensors_in(moved), tensors_in(hierarchy), strict=True):
        assert value.is_meta and value.shape == was.shape


def test_kept_on_disk_by_a_data_set(model, no_search, tmp_path):
    class Kept(InMemoryDataset):
        def __init__(self, root, pre_transform):
            super().__init__(root, pre_transform=pre_transform)
            self.load(self.processed_paths[0])

        @property
        def processed_file_names(self):
            return ["data.pt"]

        def process(self):
            self.save([self.pre_transform(cloud) for cloud in clouds()], self.processed_paths[0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            kept = Kept(str(tmp_path), PrecomputeHierarchy(model.plans))
    given = [PrecomputeHierarchy(model.plans)(cloud) for cloud in clouds()]
    for order in ([0, 1, 2, 3, 4], [4, 1]):
        batch = next(iter(DataLoader(kept[order], batch_size=5)))
        assert torch.equal(model(batch), model(Batch.from_data_list([given[i] for i in order])))


@pytest.mark.parametrize(
    ("name", "options"),
    [("point_coc_tiny", {"dropout": 0.0, "drop_path": 0.0}),
     ("pointmlp_coc", {**SMALL, "dropout": 0.0})],
)  # fmt: skip
def test_gradients_are_the_same(name, options):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **options).train()
    transform = PrecomputeHierarchy(model.plans)
    found = []
    for batch in (
        Batch.from_data_list(clouds()),
        transform.collate(clouds()),
        Batch.from_data_list([transform(cloud) for cloud in clouds()]),
    ):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(batch), batch.y).backward()
        found.append([p.grad.clone() for p in model.parameters()])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_augmentation_comes_before(model):
    jitter = RandomJitter(0.01)
    transform = PrecomputeHierarchy(model.plans)
    torch.manual_seed(0)
    assert torch.isfinite(model(Compose([jitter, transform])(clouds([40])[0]))).all()
    with pytest.raises(ValueError, match="comes after all that changes points"):
        model(Compose([transform, jitter])(clouds([40])[0]))


def test_another_networks_geometry(model):
    batch = PrecomputeHierarchy(create_model("point_coc_small").plans).collate(clouds())
    with pytest.raises(ValueError, match=r"use PrecomputeHierarchy\(model.plans\)"):
        model(batch)
    plain = Batch.from_data_list(clouds())
    assert torch.equal(model(batch, model.hierarchy(plain)), model(plain))  # what is said counts


def pictures(share=0.3, sizes=((32, 32), (40, 24), (32, 32))):
    generator = torch.Generator().manual_seed(0)
    drop = RandomPixels(share, seed=0)
    return [drop(ImageToPoints()(torch.rand(3, *size, generator=generator))) for size in sizes]


@pytest.mark.parametrize("whole", [False, True], ids=["pictures", "batch"])
@pytest.mark.parametrize("share", [0.05, 0.9])
def test_loose_pixels(whole, share, request):
    torch.manual_seed(0)
    network = create_model("coc_micro", num_classes=5).eval()
    transform = PrecomputeHierarchy(network.plans)
    plain = Batch.from_data_list(pictures(share))
    expected, hierarchy = network(plain), network.hierarchy(plain)
    given = [transform(picture) for picture in pictures(share)]
    batch = transform.collate(pictures(share)) if whole else Batch.from_data_list(given)
    assert_same(network.hierarchy(batch), hierarchy)
    request.getfixturevalue("no_search")
    assert torch.equal(network(batch), expected)
    assert torch.equal(network(batch.to("cpu")), expected)
    batch.pos = batch.pos.flip(0)
    with pytest.raises(ValueError, match="not where they were"):
        network(batch)


def test_whole_pictures_need_none():
    network = create_model("coc_micro", num_classes=5).eval()
    whole = ImageToPoints()(torch.rand(3, 28, 28))
    given = PrecomputeHierarchy(network.plans)(whole)
    assert "hierarchy" not in given and torch.equal(network(given), network(whole))
    with pytest.raises(ValueError, match="needs 'extent'"):
        PrecomputeHierarchy(network.plans)(Data(pos=whole.pos, x=whole.x))


def test_bad_input(model):
    for wrong in (model.plans[0], 3, "plans", [1], [model.plans[0], LatticePlan(4, 4, 0, 2, 2)]):
        with pytest.raises(TypeError, match=r"plans must be model\.plans"):
            PrecomputeHierarchy(wrong)
    with pytest.raises(ValueError, match="there are no plans"):
        PrecomputeHierarchy([])
    with pytest.raises(ValueError, match="needs points with 'pos'"):
        PrecomputeHierarchy(model.plans)(Data(x=torch.zeros(3, 3)))
    with pytest.raises(ValueError, match="NaN"):
        PrecomputeHierarchy(model.plans)(Data(pos=torch.full((3, 3), float("nan"))))


def test_says_what_it_is_and_leaves_the_model_behind(model):
    plan = StagePlan(0.5, 4, 8, 2, 3)
    assert repr(PrecomputeHierarchy([plan])) == f"PrecomputeHierarchy([{plan}])"
    assert len(pickle.dumps(PrecomputeHierarchy(model))) < 2000  # what a worker is sent
