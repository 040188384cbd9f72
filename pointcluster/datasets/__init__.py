"""Data sets in PyTorch Geometric's form."""

from pointcluster.datasets.home_objects import HomeObjects
from pointcluster.datasets.modelnet40 import ModelNet40

__all__ = ["HomeObjects", "ModelNet40"]
