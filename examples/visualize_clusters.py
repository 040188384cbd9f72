"""Look at the clusters of a picture or a 3D scan.

With no more than a file's name, the networks whose weights come with the package are used.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
try:
    import numpy as np
    import torch
    from torch_geometric.data import Data

    from pointcluster import viz
    from pointcluster.datasets import HomeObjects, read_points
    from pointcluster.datasets.readers.image import read_image
    from pointcluster.datasets.readers.points import SUFFIXES
    from pointcluster.models import create_model, list_models, list_pretrained, load_model
    from pointcluster.models.factory import FOLDER, network_of_run
    from pointcluster.models.files import is_run, read_safely
    from pointcluster.models.published import unwrapped
    from pointcluster.transforms import TurnUp
    from pointcluster.transforms.clouds import AXES, reduce_points, to_unit_sphere
    from pointcluster.viz import KINDS
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: pip install 'pointcluster[viz,image,scans]'")

# Photographs inside other packages, which need no download: the function that gives each.
PHOTOGRAPHS = {
    "astronaut": ("skimage.data", "astronaut", "scikit-image"),
    "cat": ("skimage.data", "chelsea", "scikit-image"),
    "coffee": ("skimage.data", "coffee", "scikit-image"),
    "rocket": ("skimage.data", "rocket", "scikit-image"),
    "china": ("sklearn.datasets", "load_sample_image", "scikit-learn"),
    "flower": ("sklearn.datasets", "load_sample_image", "scikit-learn"),
}
DEFAULTS = {"cloud": "point_coc_tiny", "picture": "coc_micro"}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

EPILOG = f"""examples:
  python examples/visualize_clusters.py chair --out chair.png chair.html chair.gif
  python examples/visualize_clusters.py coffee --stage 0 --block 0 --highlight 20000
  python examples/visualize_clusters.py photo.jpg --model coc_tiny --weights published.pth.tar --all
  python examples/visualize_clusters.py scan.ply --up z --weights runs/modelnet40/model.safetensors

Where no file is named: the photographs {", ".join(PHOTOGRAPHS)} (of scikit-image and
scikit-learn), or a class of HomeObjects such as chair or table.
exit status: 0, or 2 where anything is wrong."""


class Network(NamedTuple):
    """A network and what it was trained on."""

    model: Any
    about: dict[str, Any]

    @property
    def takes_clouds(self) -> bool:
        """Whether it is one of clouds, not of pictures."""
        return not hasattr(self.model, "out_indices")


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("input", nargs="?", default="chair", help="a picture or a scan, or one of "
                        "the names below (%(default)s)")  # fmt: skip
    parser.add_argument("--model", choices=list_models(), metavar="NAME", help="the network; by "
                        "default one whose weights come with the package")  # fmt: skip
    parser.add_argument("--weights", metavar="FILE", help="of that network: the "
                        ".safetensors of save_model() or a training run, a run's .ckpt, a "
                        "published checkpoint, the data of weights that come with the package, or "
                        "none for the random start")  # fmt: skip
    parser.add_argument("--stage", type=int, metavar="S", help="one stage; by default all")
    parser.add_argument("--block", type=int, metavar="B", help="which block of the stage; by "
                        "default the last")  # fmt: skip
    parser.add_argument("--head", metavar="H", help="one head, or all; by default all of one "
                        "block, or head 0 of several")  # fmt: skip
    parser.add_argument("--all", action="store_true", help="all blocks of all stages")
    parser.add_argument("--out", nargs="+", type=Path, default=[Path("clusters.png")],
                        metavar="FILE", help=f"what is written: {' '.join(KINDS)} "
                        "(clusters.png)")  # fmt: skip
    parser.add_argument("--show", action="store_true", help="open Open3D's window, too")
    parser.add_argument("--opacity", type=float, metavar="X", help="how much of the clusters' "
                        "colours lies over the others, 0 to 1")  # fmt: skip
    parser.add_argument("--highlight", type=int, metavar="N", help="number of a point whose "
                        "cluster stands out")  # fmt: skip
    parser.add_argument("--size", type=int, default=224, metavar="PIXELS", help="longer side of a "
                        "picture (%(default)s)")  # fmt: skip
    parser.add_argument("--num-points", type=int, default=2048, metavar="N", help="points of a "
                        "scan (%(default)s)")  # fmt: skip
    parser.add_argument("--columns", metavar="NAMES", help="what the columns of a table are, such "
                        "as 'x y z nx ny nz label'; - is one to leave out")  # fmt: skip
    parser.add_argument("--up", choices=AXES, default="y", metavar="AXIS", help="the axis of a "
                        "scan that points up (%(default)s)")  # fmt: skip
    return parser.parse_args(arguments)


def read_input(args: argparse.Namespace) -> tuple[str, Any]:
    """A title, and the scan as Data or the picture as a PIL image."""
    for name in ("size", "num_points"):
        if getattr(args, name) < 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is {getattr(args, name)}, expected at least 1")
    path = Path(args.input)
    if path.exists():
        if path.is_dir():
            raise ValueError(f"{path} is a folder, expected a file")
        if path.name.lower().endswith(SUFFIXES):
            data = read_points(path, mesh_points=args.num_points, columns=args.columns)
            return path.name, reduce_points(data, args.num_points)
        return path.name, read_image(path)
    if args.input in PHOTOGRAPHS:
        return args.input, photograph(args.input)
    objects = HomeObjects(split="test")
    names = [name.replace("_", " ") for name in objects.classes]
    if args.input.replace("_", " ") in names:
        label = names.index(args.input.replace("_", " "))
        item = next(item for item in objects if int(item.y) == label)
        return names[label], Data(pos=item.pos[: args.num_points], origin=(0.0, 0.0, 0.0))
    raise FileNotFoundError(
        f"{args.input} is not there, and is none of {', '.join([*PHOTOGRAPHS, *names])}"
    )


def photograph(name: str) -> Any:
    """A picture that another package carries."""
    import importlib

    from PIL import Image

    module, function, package = PHOTOGRAPHS[name]
    try:
        found = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the photograph {name} needs {package}: pip install {package}"
        ) from error
    values = found(f"{name}.jpg") if function == "load_sample_image" else found()
    return Image.fromarray(np.asarray(values))


def read_network(args: argparse.Namespace, cloud: bool) -> Network:
    """The network, by --model and --weights."""
    shipped = dict(list_pretrained())
    name, weights = args.model, args.weights
    if weights is None:
        name = name or DEFAULTS["cloud" if cloud else "picture"]
        if name not in shipped:
            raise ValueError(f"no weights of {name} come with the package: name a file by "
                             "--weights, or its random start by --weights none")  # fmt: skip
        weights = shipped[name]
    if weights == "none":
        if name is None:
            raise ValueError("--weights none: which network is said by --model")
        torch.manual_seed(0)
        return Network(create_model(name).eval(), {})
    known = [model for model, data in list_pretrained() if data == weights]
    if not Path(weights).exists() and known:
        if name is not None and name not in known:
            raise ValueError(f"the weights for {weights} are of {', '.join(known)}, not of {name}")
        name = name or next((each for each in DEFAULTS.values() if each in known), known[0])
        return Network(*load_model(FOLDER / f"{name}-{weights}.safetensors"))
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    if path.suffix == ".safetensors" and path.with_suffix(".json").exists():
        network = Network(*load_model(path))
        if name not in (None, network.model.config["name"]):
            found = network.model.config["name"]
            raise ValueError(f"{path} holds {found}, and --model says {name}")
        return network
    content = read_safely(path)
    if is_run(content):
        return of_run(name, path, content)
    if name is None:
        raise ValueError(f"{path}: of which network it is, is said by --model")
    return Network(published(name, path, content), {})


def of_run(name: str | None, path: Path, content: Mapping[str, Any]) -> Network:
    """The network of a training run's checkpoint; of averaged weights, where it has them."""
    model, noted = network_of_run(path, content)
    if name not in (None, model.config["name"]):
        raise ValueError(f"{path} holds {model.config['name']}, and --model says {name}")
    return Network(model, {key: noted.get(key) or {} for key in ("data_config", "preprocessing")})


def published(name: str, path: Path, content: Mapping[str, Any]) -> Any:
    """A network with the weights of a published checkpoint."""
    try:
        entries = unwrapped(content)
        # The last map tells the number of classes.
        last = [each for key, each in entries.items() if key.startswith(("head.", "classifier."))]
        model = create_model(name, num_classes=len(last[-1]) if last else 0)
        if not hasattr(model, "load_published"):
            raise ValueError(f"{name} has no published checkpoints: train it, or take the weights "
                             "of the package")  # fmt: skip
        model.load_published(entries)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return model.eval()


def prepare(network: Network, given: Any, args: argparse.Namespace) -> tuple[Any, Any]:
    """What the network takes, and what is drawn: of the same points."""
    name = network.model.config["name"]
    if isinstance(given, Data) != network.takes_clouds:
        kinds = ("a picture", "a network of clouds") if network.takes_clouds else (
            "a scan", "a network of pictures")  # fmt: skip
        raise ValueError(f"{args.input} is {kinds[0]}, {name} {kinds[1]}: choose another --model")
    if isinstance(given, Data):
        cloud = to_unit_sphere(TurnUp(args.up, "y")(given))
        data = Data(pos=cloud.pos)
        wanted = network.about.get("preprocessing", {}).get("features", [])
        if 3 * len(wanted) != network.model.in_channels:
            raise ValueError(f"{name} takes {network.model.in_channels} features a point, which "
                             "its file does not explain")  # fmt: skip
        missing = [field for field in wanted if cloud.get(field) is None]
        if missing:
            raise ValueError(f"{args.input} has no {missing[0]}, which the network needs")
        if wanted:
            data.x = torch.cat([cloud[field] for field in wanted], dim=1)
        return data, cloud
    scale = args.size / max(given.size)
    given = given.resize([max(1, round(scale * side)) for side in given.size])
    colours = torch.from_numpy(np.array(given)).permute(2, 0, 1).float() / 255  # [3, H, W]
    config = network.about.get("data_config", {})
    x = colours
    if network.model.in_channels == 1:
        x = torch.from_numpy(np.array(given.convert("L")))[None].float() / 255
    elif network.model.in_channels != 3:
        raise ValueError(f"{name} takes {network.model.in_channels} channels, a picture has 3")
    default = IMAGENET if network.model.in_channels == 3 else {"mean": [0.0], "std": [1.0]}
    mean, std = (
        torch.tensor(config.get(key, default[key])).view(-1, 1, 1) for key in ("mean", "std")
    )
    return ((x - mean) / std)[None], colours[None]


def find_clusters(network: Network, data: Any, args: argparse.Namespace) -> Any:
    """The clusterings that are asked for, by their titles."""
    model = network.model
    if args.all and (args.stage is not None or args.block is not None):
        raise ValueError("--all shows every block: leave out --stage and --block")
    if args.block is not None and args.stage is None:
        raise ValueError("--block needs --stage, which it is a block of")
    if args.stage is None:
        return viz.stage_clusters(model, data, every_block=args.all)
    found = model.clusters(data, args.stage, -1 if args.block is None else args.block)
    stage = args.stage % len(model.num_blocks)
    block = (-1 if args.block is None else args.block) % model.num_blocks[stage]
    return {f"stage {stage}, block {block}": found}


def run(args: argparse.Namespace) -> None:
    for path in args.out:
        if path.suffix.lower() not in KINDS:
            raise ValueError(f"--out {path}: clusters are written as {' '.join(KINDS)}")
    head = args.head if args.head in (None, "all") else number("--head", args.head)
    title, given = read_input(args)
    network = read_network(args, isinstance(given, Data))
    data, drawn = prepare(network, given, args)
    clusters = find_clusters(network, data, args)
    if head is None and len(clusters) > 1:
        head = 0
    look = {"head": None if head == "all" else head, "opacity": args.opacity,
            "highlight": args.highlight, "title": title}  # fmt: skip
    for path in args.out:
        print(viz.save(path, drawn, clusters, **look), flush=True)
    if args.show:
        viz.show(drawn, clusters, **look)


def number(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{option} is {text!r}, expected a number, or all") from None


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    try:
        run(args)
    except (ImportError, IndexError, OSError, TypeError, ValueError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            text = f"{error.filename}: {error.strerror}"
        print("error:", " ".join(text.split()), file=sys.stderr, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
