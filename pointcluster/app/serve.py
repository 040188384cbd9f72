"""Serve the page, decide who may ask for what, and clear away what it kept, however it ends."""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pointcluster.app.style import CSS, theme

if TYPE_CHECKING:
    from gradio import Blocks
    from starlette.types import Receive, Scope, Send

LOOPBACK = "127.0.0.1"
LOCAL = ("localhost", LOOPBACK, "::1")
READING = ("GET", "HEAD", "OPTIONS")


def serve(
    app: Blocks,
    *,
    host: str = LOOPBACK,
    port: int | None = None,
    share: bool = False,
    max_bytes: int = 64_000_000,
    quota: int = 2_000_000_000,
    names: Sequence[str] = (),
) -> str:
    """Start serving a page of :func:`build_app` in the background.

    Args:
        app: The page.
        host: The address that it answers on; by default one that only this machine reaches.
        port: Its port; the first free one from 7860 on, if not said.
        share: Also give it a public address, through a server of gradio's makers.
        max_bytes: The largest upload.
        quota: Most bytes of all uploads together.
        names: Names that lead to it beside its own, such as that of a proxy.

    Returns:
        Where the page is; with `share` the public address.

    Raises:
        OSError: The port is taken or the address is none of this machine.
    """
    from gradio.utils import get_upload_folder
    from starlette.middleware import Middleware

    guard = Middleware(
        Guard,
        names=names_of(host, share=share, more=names),
        folder=get_upload_folder(),
        quota=quota,
    )
    _, local, public = app.launch(
        app_kwargs={"middleware": [guard]},
        server_name=host,
        server_port=port,
        share=share,
        inbrowser=False,
        prevent_thread_lock=True,
        quiet=True,
        max_file_size=max_bytes,
        state_session_capacity=100,  # of more users the longest idle are forgotten, and told so
        ssr_mode=False,  # no other program beside this one
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        theme=theme(),
        css=CSS,
    )
    return public or local


class Guard:
    """Turns away what a browser was led to ask by a page of somebody else's, and too many uploads.

    - A name in `Host` that is not this server's: another site's name may be made to lead here (DNS
      rebinding), and the browser would take both for one.
    - Requests that change something, and sockets, from pages of another origin: an upload needs no
      permission to be asked for.
    - Uploads for which there is no room in their folder, or that do not say how large they are.
    """

    def __init__(self, app: Any, *, names: Sequence[str], folder: str | Path, quota: int) -> None:
        self.app, self.names, self.folder, self.quota = app, frozenset(names), Path(folder), quota
        self._coming = 0  # bytes of uploads on their way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal, size = None, 0
        if scope["type"] in ("http", "websocket"):
            headers = {key.decode("latin-1").lower(): value.decode("latin-1")
                       for key, value in scope["headers"]}  # fmt: skip
            refusal = self._foreign(scope, headers)
            if refusal is None and scope["path"].rstrip("/").endswith("/upload"):
                text = headers.get("content-length", "")
                size = int(text) if text.isdigit() else 0
                refusal = self._no_room(text, size)
        if refusal is not None:
            await _refuse(scope, receive, send, *refusal)
            return
        self._coming += size
        try:
            await self.app(scope, receive, send)
        finally:
            self._coming -= size

    def _foreign(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._is_mine(host):
            return 421, f"this server is not called {host[:100]!r}"
        if scope["type"] == "http" and scope["method"] in READING:
            return None
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site is not None:  # what browsers say themselves
            foreign = site not in ("same-origin", "none")
        else:  # an older one; programs that are no browser send neither
            foreign = origin is not None and origin.partition("://")[2] != host
        return (403, "this was asked for by a page of another site") if foreign else None

    def _is_mine(self, host: str) -> bool:
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        name = name.strip("[]").lower().rstrip(".")
        if name in self.names or any(n.startswith(".") and name.endswith(n) for n in self.names):
            return True
        return "*" in self.names and _is_address(name)

    def _no_room(self, text: str, size: int) -> tuple[int, str] | None:
        if not text.isdigit():
            return 411, "an upload must say how large it is"
        kept = 0
        for place, _, files in os.walk(self.folder):
            for name in files:
                with suppress(OSError):  # gone in the meantime
                    kept += os.lstat(os.path.join(place, name)).st_size
        if kept + self._coming + size > self.quota:
            return 507, "there is no room for more uploads now"
        return None


def names_of(host: str, *, share: bool = False, more: Sequence[str] = ()) -> list[str]:
    """Names by which a server may be asked that answers on an address: where others reach it, any
    number, and the machine's name; where it is shared, what gradio's makers call it."""
    names = {*LOCAL, *(name.lower() for name in more)}
    if host.lower() not in LOCAL:
        names |= {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower(), "*"}
    if share:
        names.add(".gradio.live")
    return sorted(names)


@contextmanager
def gradio_settings() -> Iterator[Path]:
    """Give gradio a folder of its own for uploads and downloads, and switch its analytics off.

    The folder and all that is in it go when the block is left. Gradio takes these settings from the
    environment alone, some when it is imported: enter the block before that.
    """
    with tempfile.TemporaryDirectory(prefix="pointcluster-app-") as folder:
        settings = {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        before = {name: os.environ.get(name) for name in settings}
        os.environ.update(settings)
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, reason: str) -> None:
    """Answer in one line; a socket is not opened."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    from starlette.responses import PlainTextResponse

    answer = PlainTextResponse(reason + "\n", status, headers={"connection": "close"})
    await answer(scope, receive, send)
