"""What happens on the page, without the page; broken uploads end in one line and leave nothing."""

from __future__ import annotations

import gc
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from pointcluster.app.desk import User, heading, network_for
from pointcluster.app.session import View, first_view
from pointcluster.predict import Predictor

from .conftest import blob, picture_source
from .files import NAN, Trap, bomb, huge_npy, npy, ply, png

pytest.importorskip("plotly")


def upload(tmp_path, name, seed=0):
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, blob(seed))
    else:
        path.write_bytes(png(30 + seed, 25))
    return path


def opened(desk, path, before=None):
    """What a user sees who opens a file."""
    return desk.open_file(User(before, View(), "blobs"), path)["shown"]


def offered_places(answer):
    """What the page lets choose after an answer: stages, blocks, heads and what is chosen."""
    return {
        side: [
            (answer[f"{part}_{side}"]["choices"], answer[f"{part}_{side}"]["value"])
            for part in ("stage", "block", "head")
        ]
        for side in "ab"
    }


def check_choices(network, answer):
    for boxes in offered_places(answer).values():
        (stages, stage), (blocks, block), (heads, head) = boxes
        assert stages == list(range(len(network.heads))) and stage in stages
        assert blocks == list(range(len(network.heads[stage]))) and block in blocks
        assert heads == list(range(network.heads[stage][block])) and head in heads


def test_something_is_on_the_page_at_once(desk):
    answer = desk.whole(desk.first, first_view(desk.first.network))
    assert desk.first.network.title == "blobs" and desk.first.source.kind == "scan"
    assert answer["plot_a"].data and answer["classes"]["value"] == desk.first.summary
    check_choices(desk.first.network, answer)
    assert answer["column_b"] == {"visible": False}
    assert answer["scans"] == {"visible": True} and answer["pictures"] == {"visible": False}


def test_an_upload_of_another_kind_brings_its_network_and_what_it_can_show(desk, tmp_path):
    before = desk.first.again()
    path = upload(tmp_path, "photo.png")
    answer = desk.open_file(User(before, first_view(before.network), "blobs"), path)
    model = desk.offered["hats"].model
    assert answer["network"]["value"] == "hats" and answer["shown"].network.model is model
    assert answer["title"] == "### photo.png" and desk.told == [
        "photo.png is a picture, so hats looks at it."
    ]
    check_choices(desk.offered["hats"], answer)
    assert answer["up"]["visible"] is False and answer["size"]["choices"][0] == 28
    assert answer["opacity"] == 0.6 and answer["borders"] is True
    assert answer["upload"] is None


def test_whatever_the_fields_hold_the_answer_is_of_a_place_that_exists(desk):
    shown = desk.first.again()
    for wanted in ((99, 99, 99), (-5, None, 7), (1, 3, 0), (None, None, None)):
        places = zip(("stage", "block", "head"), wanted, strict=True)
        sides = {f"{name}_{side}": value for name, value in places for side in "ab"}
        answer = desk.redraw(User(shown, View(**sides, compare=True)))
        check_choices(shown.network, answer)
        place = [answer[f"{part}_a"]["value"] for part in ("stage", "block", "head")]
        assert answer["plot_a"].layout.title.text == "stage {}, block {}, head {}".format(*place)
        assert "stage={}, block={}, head={}".format(*place) in answer["code"]


def test_what_is_right_is_not_written_again(desk):
    """A late answer must not undo what the user chose while it was on its way."""
    shown = desk.first.again()
    fields = {f"{part}_{side}" for part in ("stage", "block", "head") for side in "ab"}
    view = first_view(shown.network)
    listed = desk.redraw(User(shown, view))["listed"]
    assert set(listed) == fields
    assert not fields & set(desk.redraw(User(shown, view._replace(listed=listed))))
    moved = desk.redraw(User(shown, view._replace(listed=listed, stage_a=2, block_a=9)))
    assert "stage_a" not in moved and moved["block_a"]["value"] != 9
    heads = shown.network.heads[2][moved["block_a"]["value"]]
    assert moved["listed"]["head_a"] == list(range(heads))
    assert not {"stage_b", "block_b", "head_b"} & set(moved)


def test_another_network_takes_the_same_input_and_resets_the_place(desk):
    own = {"blobs again": desk.offered["blobs"]}
    shown = desk.first.again()
    view = first_view(shown.network)._replace(stage_a=0, point="3", opacity=0.4)
    kept = desk.change_input(User(shown, view), 256, "x")
    assert kept["shown"].source is shown.source and kept["shown"].count == 256
    assert kept["stage_a"]["value"] == 0 and kept["opacity"] == 0.4 and kept["point"] == ""
    other = desk.change_network(User(shown, view, "hats", own))
    assert other["shown"].source.kind == "picture" and other["opacity"] == 0.6
    check_choices(desk.offered["hats"], other)
    with pytest.raises(ValueError, match="was forgotten"):
        desk.change_network(User(shown, view, "gone", own))


def test_a_chosen_point_is_told_for_both_blocks(desk):
    shown = desk.first.again()
    view = first_view(shown.network)._replace(compare=True, point="7")
    places = view.sides(shown.network)
    assert len(set(places)) == 2
    answer = desk.redraw(User(shown, view))
    for side, place in zip("ab", places, strict=True):
        stage, block, head, *_ = place
        named = f"*stage {stage}, block {block}, head {head}*  \n**Point 7**"
        assert answer[f"words_{side}"].startswith(named)
    assert answer["column_b"] == {"visible": True} and answer["plot_b"].data
    alone = desk.redraw(User(shown, view._replace(compare=False)))
    assert alone["words_a"].startswith("**Point 7**")
    assert alone["words_b"] == "" and "plot_b" not in alone


def test_a_session_that_was_forgotten_is_not_mistaken_for_a_new_one(desk):
    first = desk.current(None, heading(desk.first))
    assert first is not desk.first and first.source is desk.first.source
    with pytest.raises(ValueError, match="load it again"):
        desk.current(None, "### my scan.ply")
    assert desk.current(first, "### anything") is first


def test_a_download_before_anything_was_opened_is_there_after_the_request(desk):
    view = first_view(desk.first.network)
    saved = desk.save(User(desk.current(None, heading(desk.first)), view), ".png")
    gc.collect()
    assert Path(saved["file"]).read_bytes().startswith(b"\x89PNG")
    folder = Path(saved["file"]).parent
    del saved
    gc.collect()
    assert not folder.exists()


def test_examples_are_chosen_by_their_number(desk):
    shown = desk.first.again()
    view = first_view(shown.network)
    answer = desk.choose_example(User(shown, view, "hats"), "scan", 1)
    assert answer["title"] == f"### {desk.examples['scan'][1].name}"
    with pytest.raises(ValueError, match="no example"):
        desk.choose_example(User(shown, view, "hats"), "scan", 2)


def test_users_at_the_same_time_see_their_own(desk, tmp_path):
    """Two users, each with a picture and a scan, again and again, from two threads."""
    expected = {}
    for user in (0, 1):
        for name in ("scan.npy", "photo.png"):
            folder = tmp_path / f"expected-{user}-{name}"
            folder.mkdir()
            path = upload(folder, name, seed=user + 1)
            shown = opened(desk, path)
            expected[user, name] = (shown.data, shown.summary)
    wrong = []

    def use(user):
        shown, view = desk.current(None, heading(desk.first)), View()
        for turn in range(4):
            name = ("scan.npy", "photo.png")[(turn + user) % 2]
            folder = tmp_path / f"{user}-{turn}"
            folder.mkdir()
            path = upload(folder, name, seed=user + 1)
            answer = desk.open_file(User(shown, view, "blobs"), path)
            shown = answer["shown"]
            data, probabilities = expected[user, name]
            same = data.pos if name == "scan.npy" else data
            own = shown.data.pos if name == "scan.npy" else shown.data
            found = desk.redraw(User(shown, View(stage_a=turn % 3, point=str(turn))))
            index = shown.network.model.clusters(shown.data, turn % 3, 0).index
            told = next(t for t in found["plot_a"].data if t.customdata is not None).customdata
            told = torch.tensor(np.asarray(told)).reshape(-1, 3)[:, 1]
            if not (
                torch.equal(own, same)
                and shown.summary == probabilities
                and torch.equal(told.long(), index[:, 0])
            ):
                wrong.append((user, turn))

    threads = [threading.Thread(target=use, args=(user,)) for user in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not any(network.model.training for network in desk.offered.values())


BROKEN = {
    "empty.png": (b"", "is empty"),
    "truncated.png": (png()[:-300], "damaged, ends early"),
    "text.png": (b"hello there", "is no image"),
    "scan.png": (ply(blob()), "is no image"),
    "script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is no image"),
    "bomb.png": (bomb(), "too much memory"),
    "empty.ply": (b"", "is empty"),
    "truncated.ply": (ply(blob(), announced=400), "damaged, ends early"),
    "text.ply": (b"hello there", "damaged, ends early or is no .ply"),
    "picture.ply": (png(), "damaged, ends early or is no .ply"),
    "nan.ply": (ply(NAN), "NaN or infinite"),
    "three.ply": (ply(blob()[:3]), "3 points, expected at least"),
    "no-area.obj": (b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "area"),
    "pickle.npy": (npy(np.array([Trap()], dtype=object)), "refused"),
    "bare-pickle.npy": (pickle.dumps(Trap()), "refused"),
    "truncated.npy": (npy(blob())[:-100], "truncated"),
    "huge.npy": (huge_npy(), "truncated|too much memory"),
    "nan.npy": (npy(NAN), "NaN or infinite"),
    "three.npy": (npy(blob()[:3]), "3 points, expected at least"),
    "none.npy": (npy(np.zeros((0, 3), np.float32)), "holds no points"),
    "wide.npy": (npy(np.zeros((50, 5), np.float32)), "5 columns"),
    "words.xyz": (b"a b c\n", "no table of points"),
    "program.exe": (b"MZ", "not taken here"),
    "packed.laz": (b"LASF", "damaged, ends early"),
    "packed.pcd": (b"VERSION", "Unpack it first"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_upload_is_refused_in_one_line(tmp_path, desk, name, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    content, expected = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=expected) as caught:
        opened(desk, path)
    assert str(caught.value).startswith(name), caught.value
    assert str(tmp_path) not in str(caught.value)
    assert not path.exists() and not list(temporary.iterdir())
    assert not Trap.ran


def test_no_upload_reaches_files_beside_it(tmp_path, desk):
    """A material library or a texture that a mesh names is not looked for."""
    (tmp_path / "secret.mtl").write_text("newmtl a\nKd 1 0 0\n")
    corners = "".join(f"v {x} {y} {z}\n" for x, y, z in blob()[:30].tolist())
    faces = "".join(f"f {i} {i + 1} {i + 2}\n" for i in range(1, 28))
    path = tmp_path / "mesh.obj"
    path.write_text(f"mtllib {tmp_path}/secret.mtl\n{corners}usemtl a\n{faces}")
    assert opened(desk, path).count == 128


def test_a_scan_gets_the_probabilities_that_predict_prints(tmp_path, desk, cloud_weights):
    path = tmp_path / "scan.npy"
    np.save(path, blob(3, 1000))
    expected = Predictor(cloud_weights)(path)
    found = opened(desk, path)
    assert list(found.summary.items()) == expected
    turned = desk.change_input(User(found, View()), None, "-x")["shown"]
    np.save(path, blob(3, 1000))
    expected = Predictor(cloud_weights, up="-x")(path)
    again = opened(desk, path, before=turned)  # from the same scanner
    for each in (turned, again):
        assert list(each.summary.items()) == expected and each.up == "-x"
    assert found.up == "z"


def test_an_upload_goes_to_a_network_of_its_kind(tmp_path, desk, networks):
    path = tmp_path / "picture.png"
    path.write_bytes(png())
    shown = opened(desk, path)
    assert shown.network.title == "hats" and shown.data.shape == (1, 1, 28, 28)
    assert not path.exists()
    assert list(shown.summary) and sum(shown.summary.values()) == pytest.approx(1)
    assert set(shown.summary) == {"hat", "left shoe", "right shoe"}
    only = {"blobs": networks["blobs"]}
    with pytest.raises(ValueError, match="none of the networks here takes a picture"):
        network_for(picture_source(), "blobs", only)


def test_a_survey_goes_to_a_network_of_scenes_unless_another_is_asked_for(desk, tmp_path, las):
    def upload_scan(shown, chosen):
        path = tmp_path / "land.las"
        path.write_bytes(las.read_bytes())
        view = View() if shown is None else first_view(shown.network)
        return desk.open_file(User(shown, view, chosen), path)

    answer = upload_scan(desk.first.again(), "blobs")
    shown = answer["shown"]
    assert answer["network"]["value"] == shown.network.title == "land"
    assert desk.told == ["land.las is a scene, so land looks at it."]
    check_choices(desk.offered["land"], answer)
    assert answer["colour_a"]["value"] == "class" and answer["colour_b"]["value"] == "clusters"
    seen = [answer[part]["visible"] for part in ("colours_a", "places_a", "places_b", "kinds_a")]
    assert seen == [True, False, True, False]
    assert not any(answer[part]["visible"] for part in ("input", "looks", "scans"))
    assert answer["classes"]["value"] == shown.summary
    assert answer["format"]["value"] == ".las"
    view = first_view(shown.network)._replace(compare=True, colour_a="probability", point="3")
    both = desk.redraw(User(shown, view))
    assert both["kinds_a"]["visible"] and both["kind_a"]["value"] == "other"
    assert both["words_a"].startswith("*probability of other*") and "Cluster" in both["words_b"]
    saved = desk.save(User(shown, view), ".las")
    assert Path(saved["file"]).is_file()
    # As a whole, where somebody wants that; then the next one, too.
    whole = desk.change_network(User(shown, view, "blobs"))
    assert whole["shown"].source is shown.source and whole["input"]["visible"]
    assert upload_scan(whole["shown"], "blobs")["network"]["value"] == "blobs"
    assert len(desk.told) == 1
