"""Training with Lightning: the module, the data, the checkpoint, and one function that runs them."""

from pointcluster.training.classifier import Classifier
from pointcluster.training.data_module import PointDataModule
from pointcluster.training.fit import fit_and_test
from pointcluster.training.run_folder import RunFolder

__all__ = ["Classifier", "PointDataModule", "RunFolder", "fit_and_test"]
