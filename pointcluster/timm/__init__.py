"""The networks of pictures under timm's own names: importing this registers them with timm."""

from pointcluster.timm.coc import TimmCoC

__all__ = ["TimmCoC"]
