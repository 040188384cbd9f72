"""Who is near whom: functions of positions, without parameters or gradients."""

from pointcluster.geometry.anchors import (
    AnchorGeometry,
    anchor_geometry,
)
from pointcluster.geometry.carry import CarryGeometry
from pointcluster.geometry.fps import fps, voxel_anchors
from pointcluster.geometry.hierarchy import (
    AnchorPlan,
    Hierarchy,
    StageGeometry,
    StagePlan,
    anchor_hierarchy,
    build_hierarchy,
    planned_anchors,
)
from pointcluster.geometry.join import join_hierarchies
from pointcluster.geometry.knn import knn
from pointcluster.geometry.lattice import (
    LatticeGeometry,
    LatticePlan,
    LatticeStage,
    lattice_geometry,
    lattice_hierarchy,
    lattice_positions,
)
from pointcluster.geometry.pixels import image_hierarchy
from pointcluster.geometry.region import ClusterGeometry, cluster_geometry
from pointcluster.ops.report import backends
from pointcluster.ops.search.clouds import squared_distance

__all__ = [
    "AnchorGeometry",
    "AnchorPlan",
    "CarryGeometry",
    "ClusterGeometry",
    "Hierarchy",
    "LatticeGeometry",
    "LatticePlan",
    "LatticeStage",
    "StageGeometry",
    "StagePlan",
    "anchor_geometry",
    "anchor_hierarchy",
    "backends",
    "build_hierarchy",
    "cluster_geometry",
    "fps",
    "image_hierarchy",
    "join_hierarchies",
    "knn",
    "lattice_geometry",
    "lattice_hierarchy",
    "lattice_positions",
    "planned_anchors",
    "squared_distance",
    "voxel_anchors",
]
