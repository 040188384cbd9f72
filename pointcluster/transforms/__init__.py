"""What images and 3D training need beside ``torch_geometric.transforms``."""

from pointcluster.transforms.clouds import (
    FirstPoints,
    NormalsAsFeatures,
    RandomAnisotropicScale,
    RandomMirror,
    RandomRotateUp,
    RandomTranslate,
    TurnUp,
    UnitCube,
    reduce_points,
    to_unit_sphere,
)
from pointcluster.transforms.images import (
    ImageToPoints,
    MaskedBlock,
    RandomPixels,
    Superpixels,
    images_to_points,
)
from pointcluster.transforms.precompute import PrecomputeHierarchy
from pointcluster.transforms.random_block import RandomBlock

__all__ = [
    "FirstPoints",
    "ImageToPoints",
    "MaskedBlock",
    "NormalsAsFeatures",
    "PrecomputeHierarchy",
    "RandomAnisotropicScale",
    "RandomBlock",
    "RandomMirror",
    "RandomPixels",
    "RandomRotateUp",
    "RandomTranslate",
    "Superpixels",
    "TurnUp",
    "UnitCube",
    "images_to_points",
    "reduce_points",
    "to_unit_sphere",
]
