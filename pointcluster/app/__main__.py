"""Look at clusters and at labelled scans in a browser: choose a network, open a picture or a scan.

exit status: 0, or 2 where it could not start
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Sequence

from pointcluster._command import Parser, complain, number
from pointcluster.app.page import build_app
from pointcluster.app.serve import LOCAL, LOOPBACK, gradio_settings, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program until Ctrl-C."""
    options = _parse(arguments)
    if threading.current_thread() is threading.main_thread():
        # They end it as Ctrl-C does, so that it clears away what it kept.
        for name in ("SIGTERM", "SIGHUP"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.default_int_handler)
    try:
        with gradio_settings():
            _run(options)
    except KeyboardInterrupt:
        print("", flush=True)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return complain(error)
    return 0


def _run(options: argparse.Namespace) -> None:
    max_bytes = round(options.max_size * 1e6)
    app = build_app(options.checkpoint, max_bytes=max_bytes)
    where = serve(
        app,
        host=options.host,
        port=options.port,
        share=options.share,
        max_bytes=max_bytes,
        quota=round(options.quota * 1e6),
        names=options.name,
    )
    print(f"Open {where} in a browser; Ctrl-C ends it.", flush=True)
    if options.share or options.host not in LOCAL:
        print("Others can open it, too, as you asked.", flush=True)
    try:
        while True:
            time.sleep(3600)
    finally:
        app.close(verbose=False)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m pointcluster.app", doc=__doc__)
    add, megabytes = parser.add_argument, number(float, 0.001, 1_000_000)
    add("--host", default=LOOPBACK, help="the address to answer on (%(default)s: this machine "
        "alone)")  # fmt: skip
    add("--port", type=number(int, 1, 65535), help="its port (the first free one from 7860 on)")
    add("--share", action="store_true", help="also give it a public address for some days, through "
        "a server of gradio's makers")  # fmt: skip
    add("--checkpoint", nargs="+", default=[], metavar="FILE", help="networks of your own: "
        "model.safetensors with model.json beside it, the .ckpt of a training run, or a published "
        ".pth.tar")  # fmt: skip
    add("--name", nargs="+", default=[], help="further names that lead to it, such as that of a "
        "proxy; others are turned away")  # fmt: skip
    add("--quota", type=megabytes, default=2000, metavar="MB", help="most that is kept of all "
        "uploads together, until it ends (%(default)s)")  # fmt: skip
    add("--max-size", type=megabytes, default=64, metavar="MB", help="the largest upload "
        "(%(default)s)")  # fmt: skip
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
