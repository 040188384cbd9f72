"""Layers on point sets."""

from pointcluster.nn.block import ContextClusterBlock
from pointcluster.nn.context_cluster import Clusters, ContextCluster
from pointcluster.nn.drop_path import DropPath
from pointcluster.nn.norm import CloudNorm
from pointcluster.nn.point_reducer import PointReducer

__all__ = [
    "CloudNorm",
    "Clusters",
    "ContextCluster",
    "ContextClusterBlock",
    "DropPath",
    "PointReducer",
]
