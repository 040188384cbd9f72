from __future__ import annotations

import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from pointcluster.datasets.fetch import (
    DamagedArchive,
    check_digest,
    check_zip,
    download,
    https_session,
    unpack,
)

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><title>Sign in</title>"
# What a server may answer that is asked for what follows the first bytes.
WRONG = {
    "/refused": (416, {"Content-Range": "bytes */*"}, b""),
    "/silent": (416, {}, b""),
    "/shorter": (416, {"Content-Range": f"bytes */{len(CONTENT)}"}, b""),
    "/elsewhere": (206, {"Content-Range": "bytes 1-5/6"}, b"12345"),
    "/unsaid": (206, {}, b"12345"),
    "/parted": (206, {"Content-Type": "multipart/byteranges; boundary=a"}, b"--a\r\n"),
}


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT at /whole, cut short at /short, and nothing elsewhere.

    Those of WRONG serve it too, but not to whoever asks for the rest alone; /always not to anyone.
    """

    def do_GET(self) -> None:
        self.server.ranges.append((self.path, self.headers.get("Range")))
        if self.path == "/page":
            self.send_response(200)
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)
            return
        if self.path not in ("/whole", "/short", *WRONG, "/always"):
            self.send_error(404)
            return
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if (start and self.path in WRONG) or self.path == "/always":
            status, headers, content = WRONG.get(self.path, WRONG["/elsewhere"])
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            whole = len(CONTENT)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = len(CONTENT) // 2 if self.path == "/short" else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def session():
    """A session for tests alone, which speaks http to this machine."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


def url(server, name):
    return f"http://127.0.0.1:{server.server_port}/{name}"


def test_plain_http_is_refused(tmp_path):
    with pytest.raises(OSError, match="No connection adapters"):
        download(["http://127.0.0.1:9/a.zip"], tmp_path / "a.zip", session=https_session())
    assert not (tmp_path / "a.zip").exists()


def test_certificates_are_verified():
    assert https_session().verify is True


def test_next_mirror_and_digest(tmp_path, server, session):
    path = tmp_path / "new" / "a.zip"
    digest = download([url(server, "gone"), url(server, "whole")], path, session=session)
    assert digest == DIGEST
    assert path.read_bytes() == CONTENT
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.zip", "a.zip.sha256"]
    assert path.with_name("a.zip.sha256").read_text().split() == [DIGEST, "a.zip"]


def test_short_answer_is_an_error_and_is_resumed(tmp_path, server, session):
    path = tmp_path / "a.zip"
    with pytest.raises(OSError, match="no mirror gave the file"):
        download([url(server, "short")], path, session=session)
    half = tmp_path / "a.zip.part"
    have = half.stat().st_size
    assert 0 < have <= len(CONTENT) // 2
    (tmp_path / "a.zip.part.url").write_text(url(server, "whole"))
    download([url(server, "whole")], path, session=session)
    assert server.ranges[-1] == ("/whole", f"bytes={have}-")
    assert path.read_bytes() == CONTENT


def test_part_of_another_mirror_is_not_joined(tmp_path, server, session):
    path = tmp_path / "a.zip"
    with pytest.raises(OSError):
        download([url(server, "short")], path, session=session)
    download([url(server, "whole")], path, session=session)
    assert server.ranges[-1] == ("/whole", None)
    assert path.read_bytes() == CONTENT


def test_part_that_is_longer_than_the_file_is_thrown_away(tmp_path, server, session):
    path, part = tmp_path / "a.zip", tmp_path / "a.zip.part"
    part.write_bytes(CONTENT + b"more")
    part.with_name("a.zip.part.url").write_text(url(server, "whole"))
    with pytest.raises(OSError, match=r"1,280,004 bytes came where the server announced 1,280,000"):
        download([url(server, "whole")], path, session=session)
    assert not part.exists() and not path.exists()
    download([url(server, "whole")], path, session=session)
    assert path.read_bytes() == CONTENT
    assert [sent for _, sent in server.ranges] == ["bytes=1280004-", None]


def test_part_that_is_the_whole_file(tmp_path, server, session):
    path, part = tmp_path / "a.zip", tmp_path / "a.zip.part"
    part.write_bytes(CONTENT)
    part.with_name("a.zip.part.url").write_text(url(server, "whole"))
    assert download([url(server, "whole")], path, session=session) == DIGEST
    assert server.ranges == [("/whole", "bytes=1280000-")] and path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_not_joined(tmp_path, server, session, name):
    path, part = tmp_path / "a.zip", tmp_path / "a.zip.part"
    part.write_bytes(CONTENT[:4])
    part.with_name("a.zip.part.url").write_text(url(server, name[1:]))
    assert download([url(server, name[1:])], path, session=session) == DIGEST
    assert path.read_bytes() == CONTENT and not part.exists()
    assert server.ranges == [(name, "bytes=4-"), (name, None)]


def test_a_part_where_all_was_asked_for(tmp_path, server, session):
    with pytest.raises(OSError, match="a part of the file came where all of it was asked for"):
        download([url(server, "always")], tmp_path / "a.zip", session=session)
    assert not (tmp_path / "a.zip").exists() and not (tmp_path / "a.zip.sha256").exists()


def test_a_part_that_ends_early_is_not_the_whole(tmp_path, server, session, monkeypatch):
    monkeypatch.setitem(WRONG, "/elsewhere", (206, {"Content-Range": "bytes 4-8/99"}, b"45678"))
    path, part = tmp_path / "a.zip", tmp_path / "a.zip.part"
    part.write_bytes(b"0123")
    part.with_name("a.zip.part.url").write_text(url(server, "elsewhere"))
    with pytest.raises(OSError, match="9 bytes came where the server announced 99"):
        download([url(server, "elsewhere")], path, session=session)
    assert part.read_bytes() == b"012345678" and not path.exists()  # it goes on from here


def test_a_page_in_the_place_of_an_archive_is_thrown_away(tmp_path, server, session):
    path = tmp_path / "a.zip"
    with pytest.raises(OSError, match=r"page\n.*what came is not the file: .*<!DOCTYPE html>"):
        download([url(server, "page")], path, check=check_zip, session=session)
    assert [file.name for file in tmp_path.iterdir()] == []

    def check(path):
        if path.read_bytes() != CONTENT:
            raise ValueError("a page")

    mirrors = [url(server, "page"), url(server, "whole")]
    assert download(mirrors, path, check=check, session=session) == DIGEST
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip", "a.zip.sha256"]


def test_a_page_that_was_recorded_once_is_replaced(tmp_path, server, session):
    """As a version without a check kept it: the page itself, under the archive's name."""

    def check(path):
        if path.read_bytes() == PAGE:
            raise ValueError("a page")

    path, url = tmp_path / "a.bin", f"http://127.0.0.1:{server.server_port}/whole"
    path.write_bytes(PAGE)
    check_digest(path, tmp_path / "a.bin.sha256")
    assert download([url], path, session=session, check=check) == DIGEST
    assert path.read_bytes() == CONTENT and DIGEST in (tmp_path / "a.bin.sha256").read_text()


def test_whatever_is_wrong_with_a_zip_is_a_damaged_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("b.txt", "text")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + 6] = 225  # the version that is needed: 22.5
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DamagedArchive, match="version 22.5"):
        check_zip(tmp_path / "a.zip")


def test_no_mirror(tmp_path, server, session):
    with pytest.raises(OSError, match=r"(?s)gone.*404.*lost.*404"):
        download([url(server, "gone"), url(server, "lost")], tmp_path / "a.zip", session=session)


def test_changed_file_is_refused(tmp_path, server, session):
    (tmp_path / "a.zip.sha256").write_text("0" * 64 + "  a.zip\n")
    with pytest.raises(ValueError, match=f"SHA-256 {DIGEST}"):
        download([url(server, "whole")], tmp_path / "a.zip", session=session)
    assert not (tmp_path / "a.zip").exists()


def test_digest_is_recorded_then_compared(tmp_path):
    path, record = tmp_path / "a", tmp_path / "a.sha256"
    path.write_bytes(b"one")
    assert check_digest(path, record) == check_digest(path, record)
    path.write_bytes(b"two")
    with pytest.raises(ValueError, match="damaged or has changed"):
        check_digest(path, record)


@pytest.mark.parametrize("content", ["", "\n", "  a\n", "0" * 63, "g" * 64 + "  a\n"])
def test_a_record_without_a_digest(tmp_path, content):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "a.sha256").write_text(content)
    with pytest.raises(ValueError, match=r"a\.sha256 does not begin with a SHA-256, .*: delete it"):
        check_digest(tmp_path / "a", tmp_path / "a.sha256")


@pytest.mark.parametrize(
    "name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:x"]
)
def test_archive_cannot_leave_its_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("good.txt", "good")
        file.writestr(name, "bad")
    with pytest.raises(ValueError, match="would be written outside"):
        unpack(tmp_path / "a.zip", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc")
    with pytest.raises(ValueError, match="'link'"):
        unpack(tmp_path / "a.zip", tmp_path / "folder")


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_archive(tmp_path, damage):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("good.txt", "good" * 100)
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[100] ^= 255
    path.write_bytes(content[:200] if damage == "cut" else content)
    with pytest.raises(ValueError, match="not a whole zip archive"):
        unpack(path, tmp_path / "folder")


def test_only_what_is_named_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("in/a.txt", "in/b.txt", "c.txt"):
            file.writestr(name, name * 1000)
    folder = tmp_path / "folder"
    unpack(tmp_path / "a.zip", folder, ["in/b.txt"])
    assert [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*"))] == [
        "in", "in/b.txt",
    ]  # fmt: skip
    assert (folder / "in" / "b.txt").read_text() == "in/b.txt" * 1000
    with pytest.raises(ValueError, match="holds no in/d.txt"):
        unpack(tmp_path / "a.zip", folder, ["in/d.txt"])


def test_nothing_is_unpacked_beside_a_member_that_climbs_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("good.txt", "good")
        file.writestr("../out.txt", "bad")
    with pytest.raises(ValueError, match="would be written outside"):
        unpack(tmp_path / "a.zip", tmp_path / "folder", ["good.txt"])
    assert not (tmp_path / "folder").exists()


def test_encrypted_archive(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("good.txt", "good")
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the bit that says so, in both of the member's headers
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    for names in (None, ["good.txt"]):
        with pytest.raises(ValueError, match="not a whole zip archive: .*encrypted"):
            unpack(path, tmp_path / "folder", names)
