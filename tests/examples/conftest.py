"""What tests of several examples share."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def interrupted(program, monkeypatch):
    """Ctrl-C comes while the program trains."""

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(program.module, "train_epochs", stop)


@pytest.fixture
def pixels():
    """Reads a picture as an array."""

    def read(file):
        with Image.open(file) as image:
            return np.array(image)

    return read
