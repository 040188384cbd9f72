"""Pictures of clusters, on any machine, with a display or without."""

from pointcluster.viz.cluster_grid import cluster_grid
from pointcluster.viz.confusion import confusion_picture
from pointcluster.viz.draw import draw
from pointcluster.viz.figure_3d import figure_3d
from pointcluster.viz.model_clusters import model_clusters
from pointcluster.viz.picture import Picture
from pointcluster.viz.render import render
from pointcluster.viz.save import save
from pointcluster.viz.show import show
from pointcluster.viz.stage_clusters import stage_clusters

__all__ = [
    "Picture",
    "cluster_grid",
    "confusion_picture",
    "draw",
    "figure_3d",
    "model_clusters",
    "render",
    "save",
    "show",
    "stage_clusters",
]
