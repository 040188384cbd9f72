"""Look at clusters in a browser.

python -m pointcluster.app [--checkpoint model.safetensors ...] [--port 7860]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from pointcluster.app.page import build_app
from pointcluster.app.serve import LOOPBACK, ended_by_signals, gradio_settings, serve


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program until Ctrl-C."""
    options = _parser().parse_args(arguments)
    max_bytes = round(options.max_size * 1e6)
    with ended_by_signals(), gradio_settings():
        try:
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
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            print("error:", " ".join(str(error).split()), file=sys.stderr, flush=True)
            return 2
        print(f"Open {where} in a browser; Ctrl-C ends it.", flush=True)
        if options.share or options.host not in (LOOPBACK, "localhost", "::1"):
            print("Others can open it, too, as you asked.", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print("", flush=True)
        finally:
            app.close(verbose=False)
    return 0


def _parser() -> _Parser:
    def port(text: str) -> int:
        if not 1 <= (value := int(text)) <= 65535:
            raise argparse.ArgumentTypeError(f"is {text}, expected 1 to 65535")
        return value

    def megabytes(text: str) -> float:
        if not 0.001 <= (value := float(text)) <= 1e6:
            raise argparse.ArgumentTypeError(f"is {text}, expected 0.001 to 1,000,000")
        return value

    port.__name__, megabytes.__name__ = "int", "number"  # argparse's messages name them
    parser = _Parser(
        prog="python -m pointcluster.app",
        description="Look at clusters in a browser: choose a network, open a picture or a scan.",
        epilog="exit status: 0, or 2 where it could not start",
    )
    parser.add_argument("--host", default=LOOPBACK, help="the address to answer on (%(default)s: "
                        "this machine alone)")  # fmt: skip
    parser.add_argument("--port", type=port, help="its port (the first free one from 7860 on)")
    parser.add_argument("--share", action="store_true", help="also give it a public address for "
                        "some days, through a server of gradio's makers")  # fmt: skip
    parser.add_argument("--checkpoint", nargs="+", default=[], metavar="FILE", help="networks of "
                        "your own: model.safetensors with model.json beside it, the .ckpt of a "
                        "training run, or a published .pth.tar")  # fmt: skip
    parser.add_argument("--name", nargs="+", default=[], help="further names that lead to it, such "
                        "as that of a proxy; others are turned away")  # fmt: skip
    parser.add_argument("--quota", type=megabytes, default=2000, metavar="MB", help="most that is "
                        "kept of all uploads together, until it ends (%(default)s)")  # fmt: skip
    parser.add_argument("--max-size", type=megabytes, default=64, metavar="MB", help="the largest "
                        "upload (%(default)s)")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
