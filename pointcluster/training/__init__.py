"""Training with Lightning: the modules, the data, and one function that runs them."""

from pointcluster._optional import installed_by
from pointcluster.training.arguments import (
    Parser,
    add_machine_arguments,
    add_settings,
    chosen,
    machine,
    nonempty,
    number,
    processes,
    recipe_name,
)
from pointcluster.training.callbacks import ClusterFilm, TestEachEpoch
from pointcluster.training.classifier import Classifier, ImageClassifier
from pointcluster.training.data import ImageDataModule, PointDataModule, searching_collate
from pointcluster.training.fit import evaluate, fit_and_test, vote
from pointcluster.training.folders import cloud_folder, image_folder
from pointcluster.training.pictures import (
    data_config,
    eval_transform,
    read_network,
    train_transform,
)
from pointcluster.training.program import (
    accuracies,
    bad_input,
    begin,
    each_seed,
    finish,
    log,
    program,
    say,
    spread,
    summarise,
    versions,
)
from pointcluster.training.recipe import (
    POINT_RECIPES,
    RECIPES,
    ImageRecipe,
    PointRecipe,
    Recipe,
)
from pointcluster.training.run import RunError, RunFolder, is_first_process, write_json, write_table
from pointcluster.training.survey import (
    Survey,
    fingerprint,
    fingerprint_images,
    hold_out,
    survey,
)

__all__ = [
    "POINT_RECIPES",
    "RECIPES",
    "Classifier",
    "ClusterFilm",
    "ImageClassifier",
    "ImageDataModule",
    "ImageRecipe",
    "Parser",
    "PointDataModule",
    "PointRecipe",
    "Recipe",
    "RunError",
    "RunFolder",
    "Survey",
    "TestEachEpoch",
    "accuracies",
    "add_machine_arguments",
    "add_settings",
    "bad_input",
    "begin",
    "chosen",
    "cloud_folder",
    "data_config",
    "each_seed",
    "eval_transform",
    "evaluate",
    "fingerprint",
    "fingerprint_images",
    "finish",
    "fit_and_test",
    "hold_out",
    "image_folder",
    "installed_by",
    "is_first_process",
    "log",
    "machine",
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
    "write_table",
]
