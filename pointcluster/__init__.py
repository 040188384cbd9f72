"""Point-cloud-first geometric learning: pictures and 3D scans are both point sets."""

from pointcluster import _quiet  # noqa: F401
from pointcluster.ops.report import backends

__version__ = "0.1.0"

__all__ = ["__version__", "backends"]
