"""Networks, by name, and on disk."""

from pointcluster.models.coc import CoC
from pointcluster.models.factory import create_model, list_models, list_pretrained, load_model
from pointcluster.models.files import save_model
from pointcluster.models.point_coc import PointCoC
from pointcluster.models.point_coc_seg import PointCoCSeg
from pointcluster.models.pointmlp_coc import PointMLPCoC
from pointcluster.models.results import Features, PointClusters
from pointcluster.models.stitch import segment_scene

__all__ = [
    "CoC",
    "Features",
    "PointClusters",
    "PointCoC",
    "PointCoCSeg",
    "PointMLPCoC",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_model",
    "save_model",
    "segment_scene",
]
