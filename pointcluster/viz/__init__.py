"""Pictures that need no display."""

from pointcluster.viz.cluster_grid import cluster_grid
from pointcluster.viz.confusion import confusion_picture
from pointcluster.viz.model_clusters import model_clusters

__all__ = ["cluster_grid", "confusion_picture", "model_clusters"]
