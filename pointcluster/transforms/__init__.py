"""What images and 3D training need beside ``torch_geometric.transforms``."""

from pointcluster.transforms.first_points import FirstPoints
from pointcluster.transforms.image_to_points import ImageToPoints, images_to_points
from pointcluster.transforms.masked_block import MaskedBlock
from pointcluster.transforms.normals_as_features import NormalsAsFeatures
from pointcluster.transforms.precompute_hierarchy import PrecomputeHierarchy
from pointcluster.transforms.random_anisotropic_scale import RandomAnisotropicScale
from pointcluster.transforms.random_mirror import RandomMirror
from pointcluster.transforms.random_pixels import RandomPixels
from pointcluster.transforms.random_rotate_up import RandomRotateUp
from pointcluster.transforms.random_translate import RandomTranslate
from pointcluster.transforms.superpixels import Superpixels
from pointcluster.transforms.turn_up import TurnUp
from pointcluster.transforms.unit_cube import UnitCube

__all__ = [
    "FirstPoints",
    "ImageToPoints",
    "MaskedBlock",
    "NormalsAsFeatures",
    "PrecomputeHierarchy",
    "RandomAnisotropicScale",
    "RandomMirror",
    "RandomPixels",
    "RandomRotateUp",
    "RandomTranslate",
    "Superpixels",
    "TurnUp",
    "UnitCube",
    "images_to_points",
]
