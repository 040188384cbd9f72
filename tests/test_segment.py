from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

laspy = pytest.importorskip("laspy")
pytest.importorskip("lazrs")

from pointcluster import predict, segment  # noqa: E402
from pointcluster.datasets import Autzen, read_points  # noqa: E402
from pointcluster.models import (  # noqa: E402
    create_model,
    list_pretrained,
    save_model,
    segment_scene,
)
from pointcluster.models.factory import FOLDER  # noqa: E402
from tests.datasets.scans import ORIGIN, village, write_scan  # noqa: E402

FEATURES = ["intensity", "return_number", "number_of_returns", "height"]
CODES = [2, 5, 6]


def network(path, features=FEATURES, **prepared):
    torch.manual_seed(0)
    channels = sum(3 if name == "color" else 1 for name in features)
    model = create_model("point_coc_tiny_seg", num_classes=3, in_channels=channels, place=False)
    noted = {"features": features, "edge": 20.0, "num_points": 400, "voxel_size": 0.5,
             "codes": CODES} | prepared  # fmt: skip
    save_model(path, model.eval(), {"classes": ["ground", "tree", "house"], "preprocessing": noted})
    return f"{path}.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return network(tmp_path_factory.mktemp("network") / "model")


def run(*arguments):
    return segment.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_las_in_las_out(tmp_path, model, suffix, capsys):
    source = write_scan(tmp_path / f"scan{suffix}", village(3000), wkt='PROJCS["x"]')
    assert run(model, source, "--out", tmp_path / "out") == 0
    one, other = laspy.read(source), laspy.read(tmp_path / "out" / f"scan{suffix}")
    assert set(np.unique(other.classification)) <= {*CODES}
    for name in one.point_format.dimension_names:
        if name != "classification":
            assert np.array_equal(np.asarray(one[name]), np.asarray(other[name])), name
    start = one.header.offset_to_point_data
    out = tmp_path / "out" / f"scan{suffix}"
    assert source.read_bytes()[:start] == out.read_bytes()[:start]
    assert "3,000 points: ground" in capsys.readouterr().out
    # what it wrote is what the network says of the scene in memory
    loaded = segment.Segmenter.load(model)
    from pointcluster.datasets import read_scene
    from pointcluster.models.stitch import segment_scene

    scene = read_scene(source, features=FEATURES)
    told = segment_scene(loaded.model, scene, edge=20.0, num_points=400, voxel_size=0.5)
    expected = np.array(CODES)[told.argmax(dim=1).numpy()]
    assert (np.asarray(other.classification) == expected).mean() > 0.999


def test_pieces_change_nothing_and_a_field_leaves_the_classes(tmp_path, model, monkeypatch):
    source = write_scan(tmp_path / "scan.laz", village(2000))
    assert run(model, source, "--out", tmp_path / "a") == 0
    monkeypatch.setattr("pointcluster.datasets.scan_file.ScanFile.pieces.__defaults__", (333,))
    monkeypatch.setattr("pointcluster.datasets.scan_file.las_pieces.__defaults__", (250,))
    assert run(model, source, "--out", tmp_path / "b", "--field", "told", "--quiet") == 0
    one, other = laspy.read(tmp_path / "a" / "scan.laz"), laspy.read(tmp_path / "b" / "scan.laz")
    assert np.array_equal(np.asarray(one.classification), np.asarray(other["told"]))
    assert np.array_equal(np.asarray(other.classification), village(2000)["label"])


def test_ply_and_tables(tmp_path):
    model = network(tmp_path / "model", ["height"])
    points = village(800)
    np.save(tmp_path / "a.npy", points["pos"])
    np.savetxt(tmp_path / "b.xyz", points["pos"], fmt="%.3f")
    assert run(model, tmp_path / "a.npy", tmp_path / "b.xyz", "--out", tmp_path / "out") == 0
    rows = np.load(tmp_path / "out" / "a.npy")
    np.testing.assert_allclose(rows["x"], points["pos"][:, 0], rtol=0, atol=1e-4)
    assert set(np.unique(rows["classification"])) <= {*CODES}
    again = read_points(tmp_path / "out" / "b.ply")
    assert np.abs(again.pos.double().numpy() + again.origin - points["pos"]).max() < 2e-3
    assert run(model, tmp_path / "out" / "b.ply", "--out", tmp_path / "more", "--field", "k") == 0
    assert b"property uchar k" in (tmp_path / "more" / "b.ply").read_bytes()


def fails(capsys, *arguments):
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err


def test_bad_input_is_told_in_one_line(tmp_path, model, capsys):
    out = ("--out", tmp_path / "out")
    points = village(200)
    np.save(tmp_path / "a.npy", points["pos"])
    assert "a.npy has no intensity, which is needed; it has positions alone" in fails(
        capsys, model, tmp_path / "a.npy", *out
    )
    points["intensity"][:] = 0
    write_scan(tmp_path / "dark.las", points)
    assert "dark.las has no intensity: it is 0" in fails(capsys, model, tmp_path / "dark.las", *out)
    write_scan(tmp_path / "none.las", village(0))
    assert "holds no points" in fails(capsys, model, tmp_path / "none.las", *out)
    assert "gone.las is not there" in fails(capsys, model, tmp_path / "gone.las", *out)
    wkt = 'GEOGCS["g",UNIT["degree",0.0174532925]]'
    write_scan(tmp_path / "earth.las", village(50), wkt=wkt)
    assert "degrees" in fails(capsys, model, tmp_path / "earth.las", *out)
    assert "is not there" in fails(capsys, tmp_path / "no.safetensors", tmp_path / "a.npy", *out)
    assert not (tmp_path / "out").exists()


def test_feet_become_metres_and_that_is_said(tmp_path, model, capsys):
    points = village(1500)
    metres = write_scan(tmp_path / "m.las", points)
    points["pos"] = (points["pos"] - ORIGIN) / 0.3048 + ORIGIN
    wkt = 'PROJCS["p",GEOGCS["g",UNIT["degree",0.0174532925]],UNIT["foot",0.3048]]'
    write_scan(tmp_path / "f.las", points, wkt=wkt)
    assert run(model, metres, tmp_path / "f.las", "--out", tmp_path / "out") == 0
    assert "f.las is in feet, as it says (foot)" in capsys.readouterr().out
    one, other = (laspy.read(tmp_path / "out" / f"{name}.las") for name in "mf")
    assert (np.asarray(one.classification) == np.asarray(other.classification)).mean() > 0.97
    write_scan(tmp_path / "u.las", points)
    assert run(model, tmp_path / "u.las", "--unit", "foot", "--out", tmp_path / "out") == 0


def test_networks_of_another_kind_are_refused(tmp_path, capsys):
    whole = create_model("point_coc_tiny", num_classes=3)
    save_model(tmp_path / "whole", whole, {"classes": list("abc")})
    scan = write_scan(tmp_path / "a.las", village(50))
    assert "holds 'point_coc_tiny' for whole clouds" in fails(capsys, tmp_path / "whole.json", scan)
    assert predict.main([network(tmp_path / "points"), str(scan)]) == 2
    assert "use python -m pointcluster.segment" in capsys.readouterr().err
    odd = network(tmp_path / "odd", codes=[1, 2])
    assert "names 3 classes with 2 codes" in fails(capsys, odd, scan)
    odd = tmp_path / "odd.json"
    note = json.loads(odd.read_text())
    note["metadata"]["preprocessing"] |= {"codes": CODES, "features": ["height"]}
    odd.write_text(json.dumps(note))
    assert "its network takes 4 channels" in fails(capsys, odd, scan)


def test_one_bad_scan_keeps_nobody_from_the_others(tmp_path, model, capsys):
    folder = tmp_path / "scans"
    (folder / "more").mkdir(parents=True)
    write_scan(folder / "a.laz", village(300))
    write_scan(folder / "more" / "c.laz", village(300))
    (folder / "b.laz").write_bytes((folder / "a.laz").read_bytes()[:500])
    assert run(model, folder, "--out", tmp_path / "out") == 2
    assert "b.laz" in capsys.readouterr().err
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.laz"))
    assert found == ["a.laz", "more/c.laz"]
    assert "would both be written" in fails(capsys, model, folder / "a.laz", folder / "a.laz")


def test_the_scan_itself_is_never_overwritten(tmp_path, model, capsys):
    source = write_scan(tmp_path / "a.las", village(300))
    before = source.read_bytes()
    assert "is the scan itself" in fails(capsys, model, source, "--out", tmp_path)
    assert source.read_bytes() == before


def test_ctrl_c_and_a_full_disk_leave_nothing(tmp_path, model, capsys, monkeypatch):
    source = write_scan(tmp_path / "a.las", village(300))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(segment.SceneSegmenter, "run", stop)
        assert run(model, source, "--out", tmp_path / "out") == 130
    assert "interrupted" in capsys.readouterr().err

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        assert "pos: No space left on device" in fails(
            capsys, model, source, "--out", tmp_path / "out"
        )
    assert not (tmp_path / "out").exists() and not list(temporary.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_result_that_has_no_room_leaves_nothing(tmp_path, capsys):
    import resource

    np.save(tmp_path / "a.npy", village(300)["pos"])
    write_scan(tmp_path / "b.las", village(300))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    kinds = (("a.npy", network(tmp_path / "heights", ["height"])),
             ("b.las", network(tmp_path / "model")))  # fmt: skip
    for name, model in kinds:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
        try:
            assert "File too large" in fails(
                capsys, model, tmp_path / name, "--out", tmp_path / "out"
            )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_as_a_program(tmp_path, model):
    source = write_scan(tmp_path / "a.laz", village(300))
    command = [sys.executable, "-m", "pointcluster.segment", str(model), str(source)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "segmented" / "a.laz").is_file()


def test_weights_that_ship():
    segmenter = segment.Segmenter.load("lidar_hd")
    assert segmenter.features == FEATURES and segmenter.codes == [2, 3, 4, 5, 6]
    assert ("point_coc_small_seg", "lidar_hd") in list_pretrained(task="segmentation")
    assert ("point_coc_small_seg", "lidar_hd") not in list_pretrained()
    for path in FOLDER.glob("point_coc_small_seg-lidar_hd.*"):
        assert path.stat().st_size <= 6e6
    model = create_model("point_coc_small_seg", pretrained="lidar_hd")
    assert not model.training and model.head.weight.dtype == torch.float32
    for one, other in zip(model.parameters(), segmenter.model.parameters(), strict=True):
        assert torch.equal(one, other)
    fresh = create_model("point_coc_small_seg", pretrained=True, num_classes=3)
    assert fresh.num_classes == 3 and fresh.head.weight.shape[0] == 3


@pytest.mark.slow
def test_the_weights_tell_ground_they_never_saw_and_borders_move_little():
    """In Oregon, from a network that was trained in France; with the blocks' borders moved."""
    segmenter = segment.Segmenter.load("lidar_hd")
    (scene,) = Autzen("test")
    options = {"edge": segmenter.edge, "num_points": segmenter.num_points,
               "voxel_size": segmenter.voxel_size}  # fmt: skip
    told = segment_scene(segmenter.model, scene, **options).argmax(dim=1)
    known = scene.y >= 0
    right = (told == 0) == (scene.y == 0)
    assert right[known].float().mean() > 0.85
    inner = scene.pos[:, 0] > scene.pos[:, 0].min() + 20
    part = Data(pos=scene.pos[inner], x=scene.x[inner])
    again = segment_scene(segmenter.model, part, **options).argmax(dim=1)
    away = part.pos[:, 0] > part.pos[:, 0].min() + 60
    assert (again == told[inner])[away].float().mean() > 0.95
