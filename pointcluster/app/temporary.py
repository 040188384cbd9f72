"""The folder that gradio keeps uploads in, and its other settings."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
