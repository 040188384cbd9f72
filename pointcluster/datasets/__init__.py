"""Data sets of clouds in PyTorch Geometric's form, and of pictures in torchvision's."""

from pointcluster.datasets.autzen import Autzen
from pointcluster.datasets.box_folder import BoxFolder
from pointcluster.datasets.fashion_mnist import FashionMNIST
from pointcluster.datasets.home_objects import HomeObjects
from pointcluster.datasets.image_folder import ImageFolder
from pointcluster.datasets.imagenet import ImageNet
from pointcluster.datasets.lidar_hd import LidarHD
from pointcluster.datasets.mask_folder import MaskFolder
from pointcluster.datasets.modelnet40 import ModelNet40
from pointcluster.datasets.point_folder import PointFolder
from pointcluster.datasets.readers.image import read_image
from pointcluster.datasets.readers.points import read_points
from pointcluster.datasets.scanobjectnn import ScanObjectNN
from pointcluster.datasets.scene_folder import SceneFolder
from pointcluster.datasets.scenes import read_scene
from pointcluster.datasets.shapenet_part import ShapeNetPart

__all__ = [
    "Autzen",
    "BoxFolder",
    "FashionMNIST",
    "HomeObjects",
    "ImageFolder",
    "ImageNet",
    "LidarHD",
    "MaskFolder",
    "ModelNet40",
    "PointFolder",
    "ScanObjectNN",
    "SceneFolder",
    "ShapeNetPart",
    "read_image",
    "read_points",
    "read_scene",
]
