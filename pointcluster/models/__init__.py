"""Networks, by name, and on disk."""

from pointcluster.models.checkpoint import load_model, save_model
from pointcluster.models.factory import create_model, list_models
from pointcluster.models.point_coc import Features, PointClusters, PointCoC

__all__ = [
    "Features",
    "PointClusters",
    "PointCoC",
    "create_model",
    "list_models",
    "load_model",
    "save_model",
]
