"""Who may ask the page's server for what."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
READING = ("GET", "HEAD", "OPTIONS")
LOCAL = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Turns away what a browser was led to ask by a page of somebody else's, and too many uploads.

    - A name in `Host` that is not this server's: another site's name may be made to lead here (DNS
      rebinding), and the browser would take both for one.
    - Requests that change something, and sockets, from pages of another origin: an upload needs no
      permission to be asked for.
    - Uploads for which there is no room, or that do not say how large they are.

    A layer around an ASGI application.

    Args:
        app: The application.
        names: Names that this server has.
        folder: Where uploads are kept.
        quota: Most bytes in it.
    """

    def __init__(self, app: Any, *, names: Sequence[str], folder: str | Path, quota: int) -> None:
        self.app, self.names, self.folder, self.quota = app, frozenset(names), Path(folder), quota
        self._coming = 0  # bytes of uploads on their way

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1")
                   for key, value in scope["headers"]}  # fmt: skip
        reason = self._refusal(scope, headers)
        if reason is not None:
            await _refuse(scope, receive, send, *reason)
            return
        if scope["type"] == "http" and scope["path"].rstrip("/").endswith("/upload"):
            await self._upload(headers, scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
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
        if name in self.names:
            return True
        if any(mine.startswith(".") and name.endswith(mine) for mine in self.names):
            return True
        return "*" in self.names and _is_address(name)

    async def _upload(
        self, headers: dict[str, str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        length = headers.get("content-length", "")
        if not length.isdigit():
            await _refuse(scope, receive, send, 411, "an upload must say how large it is")
            return
        size = int(length)
        if _size_of(self.folder) + self._coming + size > self.quota:
            await _refuse(scope, receive, send, 507, "there is no room for more uploads now")
            return
        self._coming += size
        try:
            await self.app(scope, receive, send)
        finally:
            self._coming -= size


def names_of(host: str, *, share: bool = False, more: Sequence[str] = ()) -> list[str]:
    """Names by which a server may be asked that answers on an address.

    Args:
        host: The address; of one that others reach, any number of this machine's serves, and its
            name.
        share: It also has a public name, which gradio's makers give.
        more: Others that lead to it, such as that of a proxy.
    """
    names = {*LOCAL, *(name.lower() for name in more)}
    if host.lower() not in LOCAL:
        names |= {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower(), "*"}
    if share:
        names.add(".gradio.live")
    return sorted(names)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _size_of(folder: Path) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except OSError:  # gone in the meantime
                continue
    return total


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, reason: str) -> None:
    """Answer in one line; a socket is not opened."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    body = (reason + "\n").encode("ascii", errors="replace")
    length = str(len(body)).encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", length),
               (b"connection", b"close")]  # fmt: skip
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
