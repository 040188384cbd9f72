"""Functions of features and positions, without parameters: a reference to read, and backends."""

from pointcluster.ops.backend import use_backend
from pointcluster.ops.context_cluster import Weights, context_cluster, gather_around
from pointcluster.ops.gather_max import gather_max
from pointcluster.ops.mlp import mlp
from pointcluster.ops.norm import cloud_norm
from pointcluster.ops.regions import Regions
from pointcluster.ops.search import fps, knn

__all__ = [
    "Regions",
    "Weights",
    "cloud_norm",
    "context_cluster",
    "fps",
    "gather_around",
    "gather_max",
    "knn",
    "mlp",
    "use_backend",
]
