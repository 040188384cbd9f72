"""Look at the clusters of a picture or a 3D scan.

With no more than a file's name, the networks whose weights come with the package are used.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
try:
    import numpy as np
    import torch
    from torch_geometric.data import Data

    from pointcluster import viz
    from pointcluster.datasets import HomeObjects, read_image, read_points
    from pointcluster.datasets.readers.points import SUFFIXES
    from pointcluster.models import CoC, create_model, list_models, list_pretrained, load_model
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
CLOUDS, PICTURES = "point_coc_tiny", "coc_micro"
"""The networks that are used where none is named."""
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def run(args: argparse.Namespace) -> None:
    check(args)
    title, given = read_input(args)
    is_cloud = isinstance(given, Data)
    model, noted = read_network(args.model, args.weights, CLOUDS if is_cloud else PICTURES)
    if is_cloud == isinstance(model, CoC):
        kinds = ("scan", "pictures") if is_cloud else ("picture", "clouds")
        raise ValueError(f"{args.input} is a {kinds[0]}, {model.config['name']} a network of "
                         f"{kinds[1]}: choose another --model")  # fmt: skip
    prepare = prepare_cloud if is_cloud else prepare_picture
    data, drawn = prepare(model, noted, given, args)
    clusters = find_clusters(model, data, args)
    head = args.head if args.head is not None or len(clusters) == 1 else 0
    look = {"head": None if head == "all" else head, "opacity": args.opacity,
            "highlight": args.highlight, "title": title}  # fmt: skip
    for path in args.out:
        print(viz.save(path, drawn, clusters, **look), flush=True)
    if args.show:
        viz.show(drawn, clusters, **look)


def read_input(args: argparse.Namespace) -> tuple[str, Any]:
    """A title, and the scan as Data or the picture as a PIL image."""
    path = Path(args.input)
    if path.is_dir():
        raise ValueError(f"{path} is a folder, expected a file")
    if path.exists() and path.name.lower().endswith(SUFFIXES):
        data = read_points(path, mesh_points=args.num_points, columns=args.columns)
        return path.name, reduce_points(data, args.num_points)
    if path.exists():
        return path.name, read_image(path)
    if args.input in PHOTOGRAPHS:
        return args.input, photograph(args.input)
    objects = HomeObjects(split="test")
    names = [name.replace("_", " ") for name in objects.classes]
    for item in objects:
        if names[int(item.y)] == args.input.replace("_", " "):
            return names[int(item.y)], Data(pos=item.pos[: args.num_points], origin=(0.0, 0.0, 0.0))
    raise FileNotFoundError(
        f"{args.input} is not there, and is none of {', '.join([*PHOTOGRAPHS, *names])}"
    )


def photograph(name: str) -> Any:
    """A picture that another package carries."""
    from PIL import Image

    module, function, package = PHOTOGRAPHS[name]
    try:
        read = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the photograph {name} needs {package}: pip install {package}"
        ) from error
    values = read(f"{name}.jpg") if function == "load_sample_image" else read()
    return Image.fromarray(np.asarray(values))


def read_network(name: str | None, weights: str | None, usual: str) -> tuple[Any, dict[str, Any]]:
    """The network by --model and --weights, or the usual one; and what was noted with it."""
    shipped = list_pretrained()
    if weights is None:
        name = name or usual
        if name not in dict(shipped):
            raise ValueError(f"no weights of {name} come with the package: name a file by "
                             "--weights, or its random start by --weights none")  # fmt: skip
        weights = dict(shipped)[name]
    if weights == "none":
        if name is None:
            raise ValueError("--weights none: which network is said by --model")
        torch.manual_seed(0)
        return create_model(name).eval(), {}
    path = Path(weights)
    known = [model for model, data in shipped if data == weights]
    if known and not path.exists():
        if name is not None and name not in known:
            raise ValueError(f"the weights for {weights} are of {', '.join(known)}, not of {name}")
        name = name or (CLOUDS if CLOUDS in known else known[0])
        path = FOLDER / f"{name}-{weights}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there")
    if path.suffix == ".safetensors" and path.with_suffix(".json").exists():
        model, noted = load_model(path)
    elif is_run(content := read_safely(path)):
        model, noted = network_of_run(path, content)
    elif name is None:
        raise ValueError(f"{path}: of which network it is, is said by --model")
    else:
        model, noted = published(name, path, content), {}
    if name not in (None, model.config["name"]):
        raise ValueError(f"{path} holds {model.config['name']}, and --model says {name}")
    return model, noted


def published(name: str, path: Path, content: Any) -> Any:
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


def prepare_cloud(
    model: Any, noted: dict[str, Any], scan: Data, args: argparse.Namespace
) -> tuple[Data, Data]:
    """The cloud that the network takes, and the one that is drawn, of the same points."""
    name, channels = model.config["name"], model.in_channels
    cloud = to_unit_sphere(TurnUp(args.up, "y")(scan))
    wanted = (noted.get("preprocessing") or {}).get("features", [])
    if 3 * len(wanted) != channels:
        raise ValueError(f"{name} takes {channels} features a point, which its file does not "
                         "explain")  # fmt: skip
    for field in wanted:
        if cloud.get(field) is None:
            raise ValueError(f"{args.input} has no {field}, which the network needs")
    x = torch.cat([cloud[field] for field in wanted], dim=1) if wanted else None
    return Data(pos=cloud.pos, x=x), cloud


def prepare_picture(
    model: Any, noted: dict[str, Any], picture: Any, args: argparse.Namespace
) -> tuple[torch.Tensor, torch.Tensor]:
    """The picture that the network takes, and the one that is drawn, of the same size."""
    name, channels = model.config["name"], model.in_channels
    if channels not in (1, 3):
        raise ValueError(f"{name} takes {channels} channels, a picture has 3")
    scale = args.size / max(picture.size)
    picture = picture.resize([max(1, round(scale * side)) for side in picture.size])
    colours = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255  # [3, H, W]
    grey = torch.from_numpy(np.array(picture.convert("L")))[None].float() / 255
    config = {"mean": [0.0], "std": [1.0]} if channels == 1 else IMAGENET
    config = config | (noted.get("data_config") or {})
    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return (((grey if channels == 1 else colours) - mean) / std)[None], colours[None]


def find_clusters(model: Any, data: Any, args: argparse.Namespace) -> Any:
    """The clusterings that are asked for, by their titles."""
    if args.all and (args.stage is not None or args.block is not None):
        raise ValueError("--all shows every block: leave out --stage and --block")
    if args.block is not None and args.stage is None:
        raise ValueError("--block needs --stage, which it is a block of")
    if args.stage is None:
        return viz.stage_clusters(model, data, every_block=args.all)
    block = -1 if args.block is None else args.block
    clusters = model.clusters(data, args.stage, block)
    stage = args.stage % len(model.num_blocks)
    return {f"stage {stage}, block {block % model.num_blocks[stage]}": clusters}


# The command line ---------------------------------------------------------------------------------

EPILOG = f"""examples:
  python examples/visualize_clusters.py chair --out chair.png chair.html chair.gif
  python examples/visualize_clusters.py coffee --stage 0 --block 0 --highlight 20000
  python examples/visualize_clusters.py photo.jpg --model coc_tiny --weights published.pth.tar --all
  python examples/visualize_clusters.py scan.ply --up z --weights runs/modelnet40/model.safetensors

Where no file is named: the photographs {", ".join(PHOTOGRAPHS)} (of scikit-image and
scikit-learn), or a class of HomeObjects such as chair or table.
exit status: 0, or 2 where anything is wrong."""


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("input", nargs="?", default="chair",
        help="a picture or a scan, or one of the names below (%(default)s)")  # fmt: skip
    add("--model", choices=list_models(), metavar="NAME",
        help="the network; by default one whose weights come with the package")  # fmt: skip
    add("--weights", metavar="FILE", help="of that network: the .safetensors of save_model() or a "
        "training run, a run's .ckpt, a published checkpoint, the data of weights that come with "
        "the package, or none for the random start")  # fmt: skip
    add("--stage", type=int, metavar="S", help="one stage; by default all")
    add("--block", type=int, metavar="B", help="which block of the stage; by default the last")
    add("--head", metavar="H",
        help="one head, or all; by default all of one block, or head 0 of several")  # fmt: skip
    add("--all", action="store_true", help="all blocks of all stages")
    add("--out", nargs="+", type=Path, default=[Path("clusters.png")], metavar="FILE",
        help=f"what is written: {' '.join(KINDS)} (clusters.png)")  # fmt: skip
    add("--show", action="store_true", help="open Open3D's window, too")
    add("--opacity", type=float, metavar="X",
        help="how much of the clusters' colours lies over the others, 0 to 1")  # fmt: skip
    add("--highlight", type=int, metavar="N", help="a point whose cluster stands out")
    add("--size", type=int, default=224, metavar="PIXELS",
        help="longer side of a picture (%(default)s)")  # fmt: skip
    add("--num-points", type=int, default=2048, metavar="N", help="of a scan (%(default)s)")
    add("--columns", metavar="NAMES", help="what the columns of a table are, such as "
        "'x y z nx ny nz label'; - is one to leave out")  # fmt: skip
    add("--up", choices=AXES, default="y", metavar="AXIS", help="of a scan (%(default)s)")
    return parser.parse_args(arguments)


def check(args: argparse.Namespace) -> None:
    """What can be known to be wrong before anything is read."""
    for path in args.out:
        if path.suffix.lower() not in KINDS:
            raise ValueError(f"--out {path}: clusters are written as {' '.join(KINDS)}")
    for option, value in (("--size", args.size), ("--num-points", args.num_points)):
        if value < 1:
            raise ValueError(f"{option} is {value}, expected at least 1")
    if args.head not in (None, "all"):
        try:
            args.head = int(args.head)
        except ValueError:
            raise ValueError(f"--head is {args.head!r}, expected a number, or all") from None


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
