"""What 3D training needs beside ``torch_geometric.transforms``."""

from pointcluster.transforms.first_points import FirstPoints
from pointcluster.transforms.normals_as_features import NormalsAsFeatures
from pointcluster.transforms.random_anisotropic_scale import RandomAnisotropicScale
from pointcluster.transforms.random_mirror import RandomMirror
from pointcluster.transforms.random_rotate_up import RandomRotateUp
from pointcluster.transforms.random_translate import RandomTranslate

__all__ = [
    "FirstPoints",
    "NormalsAsFeatures",
    "RandomAnisotropicScale",
    "RandomMirror",
    "RandomRotateUp",
    "RandomTranslate",
]
