"""Data sets of clouds in PyTorch Geometric's form, and of pictures in torchvision's."""

from pointcluster.datasets.fashion_mnist import FashionMNIST
from pointcluster.datasets.home_objects import HomeObjects
from pointcluster.datasets.image_folder import ImageFolder
from pointcluster.datasets.imagenet import ImageNet
from pointcluster.datasets.modelnet40 import ModelNet40
from pointcluster.datasets.point_folder import PointFolder
from pointcluster.datasets.readers.image import read_image
from pointcluster.datasets.readers.points import read_points
from pointcluster.datasets.scanobjectnn import ScanObjectNN

__all__ = [
    "FashionMNIST",
    "HomeObjects",
    "ImageFolder",
    "ImageNet",
    "ModelNet40",
    "PointFolder",
    "ScanObjectNN",
    "read_image",
    "read_points",
]
