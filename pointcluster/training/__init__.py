"""Training with Lightning: the modules, the data, and one function that runs them."""

from pointcluster.training.arguments import (
    Parser,
    add_machine_arguments,
    add_training_arguments,
    number,
)
from pointcluster.training.classifier import Classifier
from pointcluster.training.data_module import PointDataModule
from pointcluster.training.fit import evaluate, fit_and_test, is_first_process
from pointcluster.training.image_checkpoint import read_network
from pointcluster.training.image_classifier import ImageClassifier
from pointcluster.training.image_data_module import ImageDataModule
from pointcluster.training.image_recipe import (
    RECIPES,
    ImageRecipe,
    add_recipe_arguments,
    chosen_recipe,
)
from pointcluster.training.image_transforms import data_config, eval_transform, train_transform
from pointcluster.training.optional import installed_by
from pointcluster.training.run_folder import RunError, RunFolder, write_json
from pointcluster.training.summary import summarise

__all__ = [
    "RECIPES",
    "Classifier",
    "ImageClassifier",
    "ImageDataModule",
    "ImageRecipe",
    "Parser",
    "PointDataModule",
    "RunError",
    "RunFolder",
    "add_machine_arguments",
    "add_recipe_arguments",
    "add_training_arguments",
    "chosen_recipe",
    "data_config",
    "eval_transform",
    "evaluate",
    "fit_and_test",
    "installed_by",
    "is_first_process",
    "number",
    "read_network",
    "summarise",
    "train_transform",
    "write_json",
]
