"""Who is near whom: functions of positions, without parameters or gradients."""

from pointcluster.geometry.backend import backends
from pointcluster.geometry.distance import squared_distance
from pointcluster.geometry.fps import fps, voxel_anchors
from pointcluster.geometry.hierarchy import (
    AnchorGeometry,
    Hierarchy,
    StageGeometry,
    StagePlan,
    anchor_geometry,
    build_hierarchy,
)
from pointcluster.geometry.knn import knn
from pointcluster.geometry.region import ClusterGeometry, cluster_geometry

__all__ = [
    "AnchorGeometry",
    "ClusterGeometry",
    "Hierarchy",
    "StageGeometry",
    "StagePlan",
    "anchor_geometry",
    "backends",
    "build_hierarchy",
    "cluster_geometry",
    "fps",
    "knn",
    "squared_distance",
    "voxel_anchors",
]
