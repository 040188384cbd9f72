from __future__ import annotations

import numpy as np
import pytest
import torch

from pointcluster.datasets import ModelNet40
from pointcluster.datasets import modelnet40_meshes as module

SIZES = (41, 40)
CLASSES = [f"class{i:02}" for i in range(40)]
# A box of 1 x 2 x 4 around (5, 5, 5), the third axis up; squares, as some genuine files have.
VERTICES = [[5 + x / 2, 5 + y, 5 + 2 * z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]
SQUARES = [[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]]
FACES = [face for a, b, c, d in SQUARES for face in ([a, b, c], [a, c, d])]


def off(vertices=VERTICES, faces=FACES, *, head="OFF\n", end="\n"):
    lines = [f"{len(vertices)} {len(faces)} 0"]
    lines += [" ".join(map(str, vertex)) for vertex in vertices]
    lines += [" ".join(map(str, [len(face), *face])) for face in faces]
    return head + "\n".join(lines) + end


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "ModelNet40"
    for name in CLASSES:
        for split, number in (("train", 1), ("test", 2)):
            (folder / name / split).mkdir(parents=True)
            (folder / name / split / f"{name}_{number:04}.off").write_text(off())
    (folder / "class03" / "train" / "class03_0009.off").write_text(off(head="OFF"))
    return folder


@pytest.fixture
def one(tmp_path):
    def write(text):
        path = tmp_path / "a.off"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("above", [False, True])
def test_draws_points(folder, above):
    root = folder.parent if above else folder
    data = ModelNet40(root, form="meshes", num_points=500, sizes=SIZES)
    assert (len(data), data.num_points, data.classes) == (41, 500, CLASSES)
    assert data.y.tolist() == sorted([*range(40), 3])
    assert data.describe() == "ModelNet40 meshes, sampled with seed 0, 500 points"
    item = data[0]
    assert item.pos.shape == item.normal.shape == (500, 3)
    assert item.pos.mean(dim=0).abs().max() < 1e-5
    assert item.pos.norm(dim=1).max() == pytest.approx(1, abs=1e-6)
    # up, which is the third axis of the mesh, is the second here
    assert (item.pos.amax(dim=0) - item.pos.amin(dim=0)).argsort().tolist() == [0, 2, 1]
    # normals stand on the sides of the box, each axis as often as its sides are large
    length = item.normal.abs()
    assert torch.allclose(length.amax(dim=1), torch.ones(500))
    share = length.argmax(dim=1).bincount().float() / 500
    assert torch.allclose(share, torch.tensor([8.0, 2, 4]) / 14, atol=0.08)
    assert ModelNet40(root, "test", form="meshes", num_points=8, sizes=SIZES)[39].y == 39


def test_up_becomes_the_second_axis_and_nothing_is_mirrored(folder):
    # One triangle without any symmetry, in a plane that no axis is in.
    corners = torch.tensor([[0.0, 0, 0], [0, 3, 1], [6, 3, 8]])
    (folder / "class00" / "train" / "class00_0001.off").write_text(
        off(corners.tolist(), [[0, 1, 2]])
    )
    item = ModelNet40(folder, form="meshes", num_points=4000, sizes=SIZES)[0]
    x, y, z = corners.unbind(dim=1)
    turned = torch.stack([x, z, -y], dim=1)
    normal = torch.linalg.cross(turned[1] - turned[0], turned[2] - turned[0])
    normal = normal / normal.norm()
    assert torch.allclose(item.normal, normal.expand(4000, 3), atol=1e-6)
    assert (item.pos @ normal).abs().max() < 1e-5
    turned = turned - turned.mean(dim=0)
    turned = turned / turned.norm(dim=1).max()
    assert torch.allclose(item.pos.amax(dim=0), turned.amax(dim=0), atol=0.05)
    assert torch.allclose(item.pos.amin(dim=0), turned.amin(dim=0), atol=0.05)


def test_two_thousand_points_by_default(folder):
    data = ModelNet40(folder, form="meshes", sizes=SIZES)
    assert data.num_points == 2048 and data[0].pos.size(0) == 2048


def test_drawn_from_the_seed_and_the_name(folder, monkeypatch):
    def read(seed=None):
        torch.manual_seed(17)
        return ModelNet40(folder, form="meshes", num_points=64, seed=seed, sizes=None)

    first, state = read(), torch.get_rng_state()
    torch.manual_seed(17)
    assert torch.equal(state, torch.get_rng_state())  # the caller's generator stays
    again = read(0)
    assert torch.equal(first[5].pos, again[5].pos)
    other = read(1)
    assert other.name == "ModelNet40 meshes, sampled with seed 1"
    assert not torch.equal(first[5].pos, other[5].pos)
    assert not torch.equal(first[0].pos, first[1].pos)  # the same box under another name
    (folder / "class00" / "train" / "class00_0001.off").unlink()  # what follows stays as it was
    assert torch.equal(read()[4].pos, first[5].pos)
    calls, sample = [], module._sample
    monkeypatch.setattr(module, "_sample", lambda *a: calls.append(a) or sample(*a))
    read()
    assert not calls
    mesh = folder / "class07" / "train" / "class07_0001.off"
    mesh.write_text(off(np.array(VERTICES) * [1, 2, 3]))
    read()
    assert len(calls) == 40


def test_folder_of_pyg(folder, tmp_path):
    folder.rename(tmp_path / "raw")
    assert len(ModelNet40(tmp_path, form="meshes", num_points=4, sizes=SIZES)) == 41


def test_mesh_without_a_line_end_at_its_end(one):
    assert module.read_mesh(one(off(end=""))).face.size(1) == 12
    squares = module.read_mesh(one(off(faces=SQUARES, head="OFF \n# a box\n\n")))
    assert squares.face.size(1) == 12


@pytest.mark.parametrize(("faces", "area"), [
    ([[0, 1, 2, 3, 4]], 10.0),  # not convex
    ([[0, 1, 2, 3, 4], [0, 1, 2], [4, 3]], 18.0),  # beside a triangle, and an edge
    ([[0, 3, 4, 5]], 3.0),  # a quad whose last corner points inwards
])  # fmt: skip
def test_polygons_count_whole_and_alone(one, faces, area):
    flat = [[0, 0, 3], [4, 0, 3], [4, 4, 3], [2, 1, 3], [0, 4, 3], [0.5, 1.5, 3]]
    mesh = module.read_mesh(one(off(flat, faces)))
    a, b, c = mesh.pos.double()[mesh.face]
    assert mesh.pos.shape == (6, 3) and mesh.pos.dtype == torch.float32
    assert float((b - a).cross(c - a, dim=1).norm(dim=1).sum() / 2) == pytest.approx(area)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "does not begin with OFF"),
        ("ply\n", "does not begin with OFF"),
        ("OFF\n", ""),
        (off()[:60], "announced, 7 there"),
        (off().rsplit("\n", 2)[0] + "\n", "20 vertices and faces announced, 19 there"),
        (off(faces=[[0, 1, 8]]), "a face has vertex 8 as a corner, of 8"),
        (off(faces=[[0, 1, -1]]), "a face has vertex -1 as a corner"),
        (off(faces=[[0, 1]]), "no triangles"),
        (off(faces=[]), "no triangles"),
        (off().replace("5.5", "five"), ""),
        ("OFF\nmany 1 0\n", ""),
    ],
)
def test_damaged_mesh(one, text, message):
    with pytest.raises(
        ValueError, match=f"a.off is damaged or is no mesh in OFF form: .*{message}"
    ):
        module.read_mesh(one(text))


@pytest.mark.parametrize("vertices", [np.zeros((8, 3)), [["nan"] * 3, *VERTICES[1:]]])
def test_mesh_without_a_surface(folder, vertices):
    (folder / "class07" / "train" / "class07_0001.off").write_text(off(vertices))
    with pytest.raises(ValueError, match=r"class07_0001.off: its surface is empty, or a vertex"):
        ModelNet40(folder, form="meshes", sizes=SIZES)
    assert not list(folder.glob("*.safetensors"))


def test_classes_and_numbers_are_checked(folder):
    with pytest.raises(ValueError, match="train split has 41 clouds, not 9,843"):
        ModelNet40(folder, form="meshes", num_points=2)
    (folder / "class39" / "train").rename(folder / "class39" / "training")
    with pytest.raises(ValueError, match="names 39 classes, expected 40"):
        ModelNet40(folder, form="meshes")


def test_no_mesh_of_a_split(folder):
    for path in folder.glob("*/test/*.off"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no mesh in .*: expected CLASS/test/\*.off"):
        ModelNet40(folder, "test", form="meshes")
