"""Training with Lightning: the module, the data, and one function that runs them."""

from pointcluster.training.arguments import Parser, add_training_arguments, number
from pointcluster.training.classifier import Classifier
from pointcluster.training.data_module import PointDataModule
from pointcluster.training.fit import fit_and_test, is_first_process
from pointcluster.training.run_folder import RunError, RunFolder, write_json
from pointcluster.training.summary import summarise

__all__ = [
    "Classifier",
    "Parser",
    "PointDataModule",
    "RunError",
    "RunFolder",
    "add_training_arguments",
    "fit_and_test",
    "is_first_process",
    "number",
    "summarise",
    "write_json",
]
