"""Farthest and nearest points of packed clouds."""

from pointcluster.ops.search.op import fps, knn

__all__ = ["fps", "knn"]
