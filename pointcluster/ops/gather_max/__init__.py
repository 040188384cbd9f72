"""The maximum over what anchors gather."""

from pointcluster.ops.gather_max.op import gather_max

__all__ = ["gather_max"]
