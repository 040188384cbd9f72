"""Dense prediction on pictures: segmentation and detection, on pyramids of context clusters."""

from pointcluster.models.dense.mask_rcnn import MaskRCNN, mask_rcnn, mask_rcnn_schedule
from pointcluster.models.dense.pyramid import PyramidBackbone
from pointcluster.models.dense.semantic_fpn import (
    SemanticFPN,
    semantic_fpn,
    semantic_fpn_schedule,
)
from pointcluster.models.dense.unpadded import Unpadded
from pointcluster.models.dense.unpadded_detector import UnpaddedDetector

__all__ = [
    "MaskRCNN",
    "PyramidBackbone",
    "SemanticFPN",
    "Unpadded",
    "UnpaddedDetector",
    "mask_rcnn",
    "mask_rcnn_schedule",
    "semantic_fpn",
    "semantic_fpn_schedule",
]
