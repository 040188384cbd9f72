"""The context cluster: the project's one operator."""

from pointcluster.ops.context_cluster.op import context_cluster, gather_around
from pointcluster.ops.context_cluster.weights import Weights

__all__ = ["Weights", "context_cluster", "gather_around"]
