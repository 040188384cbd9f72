"""Training with Lightning: the modules, the data, and one function that runs them."""

from pointcluster._optional import installed_by
from pointcluster.training.arguments import (
    Parser,
    add_machine_arguments,
    add_training_arguments,
    nonempty,
    number,
    processes,
)
from pointcluster.training.callbacks import TestEachEpoch
from pointcluster.training.classifier import Classifier
from pointcluster.training.cluster_film import ClusterFilm
from pointcluster.training.data_module import PointDataModule, hold_out
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
from pointcluster.training.point_classifier import PointClassifier
from pointcluster.training.point_recipe import POINT_RECIPES, PointRecipe
from pointcluster.training.program import (
    bad_input,
    begin,
    each_seed,
    finish,
    log,
    program,
    say,
    versions,
)
from pointcluster.training.recipe import add_settings, chosen, recipe_name
from pointcluster.training.run_folder import RunError, RunFolder, write_json
from pointcluster.training.searches import searching_collate
from pointcluster.training.summary import spread, summarise
from pointcluster.training.survey import Survey, fingerprint, fingerprint_images, survey
from pointcluster.training.voting import vote

__all__ = [
    "POINT_RECIPES",
    "RECIPES",
    "Classifier",
    "ClusterFilm",
    "ImageClassifier",
    "ImageDataModule",
    "ImageRecipe",
    "Parser",
    "PointClassifier",
    "PointDataModule",
    "PointRecipe",
    "RunError",
    "RunFolder",
    "Survey",
    "TestEachEpoch",
    "add_machine_arguments",
    "add_recipe_arguments",
    "add_settings",
    "add_training_arguments",
    "bad_input",
    "begin",
    "chosen",
    "chosen_recipe",
    "data_config",
    "each_seed",
    "eval_transform",
    "evaluate",
    "fingerprint",
    "fingerprint_images",
    "finish",
    "fit_and_test",
    "hold_out",
    "installed_by",
    "is_first_process",
    "log",
    "nonempty",
    "number",
    "processes",
    "program",
    "read_network",
    "recipe_name",
    "say",
    "searching_collate",
    "spread",
    "summarise",
    "survey",
    "train_transform",
    "versions",
    "vote",
    "write_json",
]
