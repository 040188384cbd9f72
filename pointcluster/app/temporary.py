"""The folder that gradio keeps uploads in, and its other settings."""

from __future__ import annotations

import os
import tempfile
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
