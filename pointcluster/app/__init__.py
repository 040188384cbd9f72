"""The demo in a browser: python -m pointcluster.app."""

from pointcluster.app.page import build_app
from pointcluster.app.serve import serve

__all__ = ["build_app", "serve"]
