"""Layers on point sets."""

from pointcluster.nn.batch_norm import BatchNorm
from pointcluster.nn.block import ContextClusterBlock
from pointcluster.nn.carry_back import CarryBack
from pointcluster.nn.context_cluster import Clusters, ContextCluster
from pointcluster.nn.drop_path import DropPath
from pointcluster.nn.group_encoder import GroupEncoder
from pointcluster.nn.norm import CloudNorm
from pointcluster.nn.point_reducer import PointReducer
from pointcluster.nn.residual_mlp import ResidualMLP

__all__ = [
    "BatchNorm",
    "CarryBack",
    "CloudNorm",
    "Clusters",
    "ContextCluster",
    "ContextClusterBlock",
    "DropPath",
    "GroupEncoder",
    "PointReducer",
    "ResidualMLP",
]
