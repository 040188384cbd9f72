"""The page's server turns away what other sites' pages ask, and more uploads than there is room;
what was set for the page is put back, and its folder goes."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pointcluster.app.serve import Guard, gradio_settings, names_of

BOUNDARY = "----x"


def start(folder, *arguments):
    """The program in a process of its own, and its port."""
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "pointcluster.app", *map(str, arguments)],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"TMPDIR": str(folder)},
    )  # fmt: skip
    line = program.stdout.readline()
    return program, int(line.split()[1].rstrip("/").rpartition(":")[2])


def end(program):
    program.kill()
    program.wait()
    program.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, picture_weights):
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("uploads")
    program, port = start(
        folder, "--checkpoint", picture_weights, "--max-size", 0.1, "--quota", 0.3,
        "--name", "clusters.example.org",
    )  # fmt: skip
    yield port, folder
    end(program)


def ask(port, method="GET", path="/", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def upload(port, size, **headers):
    content = bytes(size)
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n'
    body = f"{part}Content-Type: application/octet-stream\r\n\r\n".encode() + content
    body += f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    return ask(port, "POST", "/gradio_api/upload", body, Content_Type=kind, **headers)


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1:{}", 200), ("localhost:{}", 200), ("LOCALHOST", 200), ("[::1]:{}", 200),
    ("clusters.example.org", 200), ("evil.example.com:{}", 421), ("127.0.0.1.evil.com", 421),
    ("10.0.0.1:{}", 421), ("", 421), ("localhost.evil.com:{}", 421),
])  # fmt: skip
def test_only_its_own_names_are_answered(server, host, status):
    port, _ = server
    for path in ("/", "/config", "/gradio_api/info"):
        found, said = ask(port, path=path, Host=host.format(port))
        assert found == status, said
    assert status == 200 or "this server is not called" in said


@pytest.mark.parametrize(("headers", "accepted"), [
    ({}, True),  # a program that is no browser
    ({"Sec_Fetch_Site": "same-origin"}, True),
    ({"Sec_Fetch_Site": "none"}, True),
    ({"Sec_Fetch_Site": "cross-site"}, False),
    ({"Sec_Fetch_Site": "same-site"}, False),  # another port of this machine
    ({"Origin": "http://127.0.0.1:{}"}, True),
    ({"Origin": "http://127.0.0.1:1"}, False),
    ({"Origin": "http://evil.example.com"}, False),
    ({"Origin": "null"}, False),
], ids=str)  # fmt: skip
def test_other_sites_pages_change_nothing(server, headers, accepted):
    port, folder = server
    headers = {name: value.format(port) for name, value in headers.items()}
    before = sum(1 for _ in Path(folder).rglob("*.bin"))
    status, said = upload(port, 10, **headers)
    assert (status == 200) == accepted, said
    for path in ("/gradio_api/queue/join", "/gradio_api/call/x", "/gradio_api/reset"):
        status, said = ask(port, "POST", path, b"{}", Content_Type="application/json", **headers)
        assert (status == 403) == (not accepted)
    assert accepted or sum(1 for _ in Path(folder).rglob("*.bin")) == before
    # To look is allowed: a browser keeps the answer from other sites by itself.
    assert ask(port, **headers)[0] == 200


def test_uploads_have_a_quota_and_must_say_their_size(server):
    port, _ = server
    found = [upload(port, 90_000 + i)[0] for i in range(5)]
    assert found[:2] == [200, 200] and 507 in found and set(found) == {200, 507}
    head = (
        "POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 411 ")


def test_sockets_of_other_sites_are_closed():
    import asyncio

    sent = []

    async def app(scope, receive, send):
        sent.append("app")

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append(message)

    guard = Guard(app, names=names_of("127.0.0.1"), folder=".", quota=1)
    scope = {"type": "websocket", "path": "/x", "headers": [
        (b"host", b"127.0.0.1:7860"), (b"origin", b"http://evil.example.com")]}  # fmt: skip
    asyncio.run(guard(scope, receive, send))
    assert sent[0]["type"] == "websocket.close" and "app" not in sent


def test_names():
    assert names_of("127.0.0.1") == ["127.0.0.1", "::1", "localhost"]
    open_to_all = names_of("0.0.0.0", share=True, more=["Demo.example.org"])
    assert {"*", ".gradio.live", "demo.example.org", "0.0.0.0"} <= set(open_to_all)
    guard = Guard(None, names=open_to_all, folder=".", quota=1)
    for name in ("192.168.1.7:7860", "abc123.gradio.live", "demo.example.org", "[fe80::1]:80"):
        assert guard._is_mine(name)
    for name in ("evil.org", "gradio.live.evil.org", "192.168.1.7.evil.org"):
        assert not guard._is_mine(name)


def test_settings_are_put_back_and_the_folder_goes(monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "mine")
    monkeypatch.delenv("GRADIO_ANALYTICS_ENABLED", raising=False)
    with gradio_settings() as folder:
        assert folder.is_dir() and os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert not folder.exists() and os.environ["GRADIO_TEMP_DIR"] == "mine"
    assert "GRADIO_ANALYTICS_ENABLED" not in os.environ


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_uploads_go_however_it_ends(tmp_path, name):
    pytest.importorskip("gradio")
    program, port = start(tmp_path)
    try:
        assert upload(port, 500)[0] == 200
        assert any(tmp_path.glob("pointcluster-app-*/**/a.bin"))
        program.send_signal(getattr(signal, name))
        assert program.wait(timeout=60) == 0
    finally:
        end(program)
    until = time.monotonic() + 10
    while any(tmp_path.glob("pointcluster-app-*")) and time.monotonic() < until:
        pass
    assert not list(tmp_path.glob("pointcluster-app-*"))
