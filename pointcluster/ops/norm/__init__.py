"""Normalisation over all points and channels of one cloud."""

from pointcluster.ops.norm.op import cloud_norm

__all__ = ["cloud_norm"]
