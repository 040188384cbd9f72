"""Files of scans, meshes and pictures, one reader a format."""

from pointcluster.datasets.readers.image import read_image
from pointcluster.datasets.readers.points import read_points

__all__ = ["read_image", "read_points"]
