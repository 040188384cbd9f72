"""Serve the page, and clear away what it kept, however it ends."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pointcluster.app.guard import Guard, names_of
from pointcluster.app.style import CSS, theme

if TYPE_CHECKING:
    from gradio import Blocks

LOOPBACK = "127.0.0.1"


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
    """Start serving in the background.

    Args:
        app: The page, from :func:`build_app`.
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


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the program as Ctrl-C does, so that it clears away what it kept.

    Only the main thread can.
    """
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {name: signal.signal(getattr(signal, name), end) for name in names}
    try:
        yield
    except KeyboardInterrupt:  # before it served
        pass
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
