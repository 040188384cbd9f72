"""Serve the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
) -> str:
    """Start serving in the background.

    Args:
        app: The page, from :func:`build_app`.
        host: The address that it answers on; by default one that only this machine reaches.
        port: Its port; the first free one from 7860 on, if not said.
        share: Also give it a public address, through a server of gradio's makers.
        max_bytes: The largest upload.

    Returns:
        Where the page is; with `share` the public address.

    Raises:
        OSError: The port is taken or the address is none of this machine.
    """
    _, local, public = app.launch(
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
