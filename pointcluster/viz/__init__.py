"""Pictures of clusters and of labelled scans, on any machine, with a display or without."""

from pointcluster.viz.clusters import cluster_grid, model_clusters, stage_clusters
from pointcluster.viz.confusion import confusion_picture
from pointcluster.viz.draw import draw, render
from pointcluster.viz.film import write_films
from pointcluster.viz.html import figure_3d
from pointcluster.viz.labels import draw_labels, save_labels
from pointcluster.viz.picture import Picture
from pointcluster.viz.save import KINDS, save
from pointcluster.viz.scene import make_scenes
from pointcluster.viz.show import show

__all__ = [
    "KINDS",
    "Picture",
    "cluster_grid",
    "confusion_picture",
    "draw",
    "draw_labels",
    "figure_3d",
    "make_scenes",
    "model_clusters",
    "render",
    "save",
    "save_labels",
    "show",
    "stage_clusters",
    "write_films",
]
