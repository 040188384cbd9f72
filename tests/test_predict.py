from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from pointcluster.models import create_model, load_model, save_model
from pointcluster.predict import Predictor, find_scans, main

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ["bed", "cup", "jar"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network, one that takes normals, and two scans."""
    folder = tmp_path_factory.mktemp("predict")
    torch.manual_seed(0)
    plain = {"num_points": 100, "normalize": True, "up": "y", "features": []}
    for name, channels, features in (("net", 0, []), ("normals", 3, ["normal"])):
        model = create_model("point_coc_tiny", num_classes=3, in_channels=channels)
        noted = plain | {"features": features}
        save_model(folder / name, model, {"classes": CLASSES, "preprocessing": noted})
    rng = np.random.default_rng(0)
    (folder / "scans" / "deeper").mkdir(parents=True)
    np.save(folder / "scans" / "a.npy", rng.normal(size=(300, 3)))
    points = rng.normal(size=(80, 6))
    points[:, 3:] /= np.linalg.norm(points[:, 3:], axis=1, keepdims=True)
    np.savetxt(folder / "scans" / "deeper" / "b.xyzn", points)
    return folder


@pytest.fixture
def run(folder, capsys):
    def run(*arguments, model="net"):
        status = main([str(folder / model), *map(str, arguments)])
        return (status, *capsys.readouterr())

    return run


def test_prints_classes_and_probabilities(folder, run):
    status, out, err = run(folder / "scans")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == str(folder / "scans" / "a.npy") and len(lines) == 8
    assert lines[4] == str(folder / "scans" / "deeper" / "b.xyzn")
    assert sorted(line.split()[-1] for line in lines[1:4]) == CLASSES
    shares = [float(line.split("%")[0]) for line in lines[1:4]]
    assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) < 0.2


def test_json_and_top(folder, run):
    status, out, _ = run(folder / "scans" / "a.npy", "--json", "--top", 2)
    [entry] = json.loads(out)
    assert status == 0 and entry["file"].endswith("a.npy") and len(entry["classes"]) == 2
    expected = Predictor(folder / "net")(folder / "scans" / "a.npy")
    assert [(e["class"], e["probability"]) for e in entry["classes"]] == expected[:2]
    assert abs(sum(value for _, value in expected) - 1) < 1e-9


def test_clouds_are_prepared_as_the_network_was_trained(folder):
    predictor = Predictor(folder / "net")
    cloud = predictor.prepare(folder / "scans" / "a.npy")
    assert cloud.num_nodes == 100 and abs(float(cloud.pos.norm(dim=1).max()) - 1) < 1e-6
    with torch.no_grad():
        logits = predictor.model(Data(pos=cloud.pos))[0].softmax(dim=0)
    for name, value in predictor(folder / "scans" / "a.npy"):
        assert abs(float(logits[CLASSES.index(name)]) - value) < 1e-6
    assert (
        Predictor(folder / "net", num_points=7).prepare(folder / "scans" / "a.npy").num_nodes == 7
    )
    turned = Predictor(folder / "net", up="z").prepare(folder / "scans" / "a.npy")
    torch.testing.assert_close(turned.pos[:, 1], cloud.pos[:, 2])
    torch.testing.assert_close(turned.pos[:, 2], -cloud.pos[:, 1])
    other = Predictor(folder / "net", seed=1).prepare(folder / "scans" / "a.npy")
    assert not torch.equal(other.pos, cloud.pos)
    with_normals = Predictor(folder / "normals").prepare(folder / "scans" / "deeper" / "b.xyzn")
    assert with_normals.x.shape == (80, 3)


def test_three_points_have_an_answer(folder, tmp_path, run):
    np.save(tmp_path / "a.npy", np.eye(3))
    np.save(tmp_path / "b.npy", np.ones((3, 3)))  # coincident
    status, out, _ = run(tmp_path, "--json")
    values = [e["probability"] for each in json.loads(out) for e in each["classes"]]
    assert status == 0 and len(values) == 6 and np.isfinite(values).all()


def test_a_bad_file_is_one_line_and_the_others_go_on(folder, tmp_path, run):
    (tmp_path / "bad.xyz").write_text("no\nnumbers\n")
    status, out, err = run(tmp_path / "bad.xyz", folder / "scans" / "a.npy", "--json")
    assert status == 2 and len(json.loads(out)) == 1
    assert err.startswith("error: ") and "bad.xyz" in err and err.count("\n") == 1
    status, _, err = run(folder / "scans" / "a.npy", model="normals")
    assert status == 2 and "has no normal, which the network needs" in err
    np.save(tmp_path / "nan.npy", [[np.nan, 0, 0], [1, 2, 3]])
    assert run(tmp_path / "nan.npy")[0] == 2
    assert run(tmp_path / "nan.npy", "--drop-invalid")[0] == 0


def test_columns_of_tables(folder, tmp_path, run):
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(90, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    table = [normal, rng.normal(size=(90, 3)), np.full((90, 1), 7.5)]
    np.save(tmp_path / "a.npy", np.hstack(table))
    columns = ["--columns", "nx ny nz x y z -"]
    status, out, err = run(tmp_path, *columns, "--json", model="normals")
    assert (status, err) == (0, "") and len(json.loads(out)) == 1
    (tmp_path / "a.npy").rename(tmp_path / "b.npy")
    for options, message in (
        ((), "b.npy: its 7 columns are none of 'x y z nx ny nz label'"),
        (("--columns", "nx ny mz x y z -"), "mz is no known column"),
        (("--columns", "x y z"), "b.npy: columns= names 3 columns (x, y, z) and the file has 7"),
    ):
        status, out, err = run(tmp_path, *options, model="normals")
        assert (status, out) == (2, "") and message in err and err.count("\n") == 1


def test_scores_that_are_no_numbers(folder, tmp_path, run):
    model, metadata = load_model(folder / "net")
    with torch.no_grad():
        model.head.weight.fill_(torch.nan)
    save_model(tmp_path / "bad", model, metadata)
    status, out, err = run(folder / "scans" / "a.npy", model=tmp_path / "bad")
    assert (status, out) == (2, "") and "a.npy: the network's scores are no finite numbers" in err


def test_more_points_than_memory(folder, tmp_path, run):
    (tmp_path / "a.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")
    good = folder / "scans" / "a.npy"
    status, out, err = run(tmp_path / "a.off", good, "--num-points", 10**15)
    assert status == 2 and f"{tmp_path / 'a.off'}: there is not enough memory" in err
    assert err.count("\n") == 1 and str(good) in out


@pytest.mark.parametrize(
    ("suffix", "package", "command"),
    [(".ply", "trimesh", "trimesh"), (".pcd", "pypcd4", "pypcd4"), (".las", "laspy", "laspy")],
)
def test_a_missing_package_is_named_once_a_file_and_the_others_go_on(
    folder, tmp_path, monkeypatch, run, suffix, package, command
):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / f"a{suffix}").write_text("anything")
    status, out, err = run(tmp_path / f"a{suffix}", folder / "scans" / "a.npy", "--json")
    assert status == 2 and len(json.loads(out)) == 1
    assert err.startswith("error: ") and err.count("\n") == 1
    assert f"needs {package}" in err and f"pip install {command}" in err.replace("'", "")


@pytest.mark.parametrize("normalize", [True, "cube", False])
def test_a_cloud_is_a_part_of_a_scan(folder, tmp_path, normalize):
    noted = {"num_points": 50, "sampled": 200, "normalize": normalize}
    save_model(tmp_path / "net", create_model("point_coc_tiny", num_classes=3),
               {"preprocessing": noted})  # fmt: skip
    predictor = Predictor(tmp_path / "net")
    part = predictor.prepare(folder / "scans" / "a.npy").pos
    whole = Predictor(tmp_path / "net", num_points=200).prepare(folder / "scans" / "a.npy").pos
    assert len(part) == 50 and torch.equal(part, whole[:50])
    if normalize == "cube":
        assert abs(float(whole.abs().max()) - 1) < 1e-5
    elif normalize:
        assert abs(float(whole.norm(dim=1).max()) - 1) < 1e-6
    else:
        rows = torch.from_numpy(np.load(folder / "scans" / "a.npy")).float().tolist()
        assert all(row in rows for row in part.tolist())


def test_the_papers_network(folder, tmp_path):
    torch.manual_seed(0)
    small = {"embedding": 6, "channels": (8, 12), "blocks": (1, 1), "depths": (1, 1),
             "ratios": (0.5, 0.5), "k": 7, "head_hidden": (9,)}  # fmt: skip
    model = create_model("pointmlp_coc", num_classes=3, **small)
    save_model(tmp_path / "net", model, {"classes": CLASSES})
    found = Predictor(tmp_path / "net")(folder / "scans" / "a.npy")
    assert sorted(name for name, _ in found) == CLASSES


def test_nothing_there(folder, tmp_path, run):
    for arguments, message in [
        ((tmp_path / "no.ply",), "no.ply is not there"),
        ((tmp_path,), "has no scans: expected files such as .ply"),
        ((folder / "scans", "--device", "cuda:99"), ""),
    ]:
        status, out, err = run(*arguments)
        assert status == 2 and not out and message in err and err.count("\n") == 1
    status, _, err = run(folder / "scans", model="nothing")
    assert status == 2 and "nothing.safetensors is not there" in err


@pytest.mark.parametrize(
    "arguments", [["--top", "0"], ["--num-points", "x"], ["--up", "w"], ["--device", "abacus"], []]
)
def test_arguments(folder, arguments, capsys):
    scans = [str(folder / "scans")] if arguments else []
    with pytest.raises(SystemExit) as caught:
        main([str(folder / "net"), *scans, *arguments])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("value", "message"),
    [("-1", "argument --seed: is -1, expected at least 0"), ("x", "argument --seed: invalid int")],
)
def test_a_seed_that_is_none(folder, capsys, value, message):
    with pytest.raises(SystemExit) as caught:
        main([str(folder / "net"), str(folder / "scans"), "--seed", value])
    err = capsys.readouterr().err
    assert caught.value.code == 2 and message in err and err.count("\n") == 1
    with pytest.raises(ValueError, match="seed is -1, expected at least 0"):
        Predictor(folder / "net", seed=-1)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"classes": ["a"]}, "'classes' must be 3 names, found 1"),
        ({"preprocessing": 3}, "'preprocessing' must be an object"),
        ({"preprocessing": {"voxels": 3}}, r"the preprocessing \['voxels'\]"),
        ({"preprocessing": {"num_points": "many"}}, "'num_points' is 'many', expected a number"),
        ({"preprocessing": {"num_points": 0}}, "'num_points' is 0"),
        ({"preprocessing": {"normalize": 1}}, "'normalize' is 1"),
        ({"preprocessing": {"normalize": "sphere"}}, "'normalize' is 'sphere', expected true"),
        ({"preprocessing": {"sampled": 0}}, "'sampled' is 0, expected at least 1"),
        ({"preprocessing": {"sampled": True}}, "'sampled' is True, expected a number"),
        ({"preprocessing": {"up": "up"}}, "'up' is 'up'"),
        ({"preprocessing": {"features": ["age"]}}, "'features' is"),
        ({"preprocessing": {"features": ["normal"]}}, "takes 0 features a point, normal said"),
    ],
)
def test_metadata_that_makes_no_sense(tmp_path, metadata, message):
    save_model(tmp_path / "net", create_model("point_coc_tiny", num_classes=3), metadata)
    with pytest.raises(ValueError, match=message):
        Predictor(tmp_path / "net")


def test_features_that_nothing_names(folder, tmp_path):
    model = create_model("point_coc_tiny", num_classes=3, in_channels=3)
    save_model(tmp_path / "net", model, {})
    with pytest.raises(ValueError, match="takes 3 features a point, none said: --features says"):
        Predictor(tmp_path / "net")
    found = Predictor(tmp_path / "net", features=["normal"])(folder / "scans" / "deeper" / "b.xyzn")
    assert sorted(name for name, _ in found) == ["class 0", "class 1", "class 2"]


def test_other_networks(tmp_path):
    save_model(tmp_path / "net", create_model("coc_tiny", num_classes=3))
    with pytest.raises(ValueError, match="coc_tiny, a network of pictures"):
        Predictor(tmp_path / "net")
    save_model(tmp_path / "net", create_model("point_coc_tiny", num_classes=0))
    with pytest.raises(ValueError, match="without a classifier"):
        Predictor(tmp_path / "net")


def test_hidden_files_in_folders_are_passed_over(tmp_path):
    for name in (".cache/a.ply", "b.txt", ".c.ply", "d.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_scans([tmp_path]) == [tmp_path / "b.txt"]


@pytest.mark.slow
def test_as_a_program(folder):
    command = [sys.executable, "-m", "pointcluster.predict", folder / "net.safetensors"]
    done = subprocess.run(
        [*map(str, command), str(folder / "scans")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("%") == 6 and "error" not in done.stderr
