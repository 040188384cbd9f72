"""Look at the clusters of a picture or a 3D scan.
With no more than a file's name, the networks whose weights come with the package are used.

examples:
  python examples/visualize_clusters.py chair --out chair.png chair.html chair.gif
  python examples/visualize_clusters.py coffee --stage 0 --block 0 --highlight 20000
  python examples/visualize_clusters.py photo.jpg --model coc_tiny --weights published.pth.tar --all
  python examples/visualize_clusters.py scan.ply --up z --weights runs/modelnet40/model.safetensors

Where no file is named: the photographs astronaut, cat, coffee, rocket, china, flower (of
scikit-image and scikit-learn), or a class of HomeObjects such as chair or table.
exit status: 0, or 2 where anything is wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

try:
    from pointcluster import viz
    from pointcluster._command import Parser, complain
    from pointcluster.models import list_models
    from pointcluster.transforms.clouds import AXES
    from pointcluster.viz.read import prepare, read_input, read_network
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: pip install 'pointcluster[viz,image,scans]'")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(doc=__doc__)
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
        help=f"what is written: {' '.join(viz.KINDS)} (clusters.png)")  # fmt: skip
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
        if path.suffix.lower() not in viz.KINDS:
            raise ValueError(f"--out {path}: clusters are written as {' '.join(viz.KINDS)}")
    for option, value in (("--size", args.size), ("--num-points", args.num_points)):
        if value < 1:
            raise ValueError(f"{option} is {value}, expected at least 1")
    if args.head not in (None, "all"):
        try:
            args.head = int(args.head)
        except ValueError:
            raise ValueError(f"--head is {args.head!r}, expected a number, or all") from None


def run(args: argparse.Namespace) -> None:
    """Read, ask the network, draw."""
    check(args)
    title, item = read_input(args.input, num_points=args.num_points, columns=args.columns)
    model, noted = read_network(args.model, args.weights, item)
    data, drawn = prepare(model, noted, args.input, item, size=args.size, up=args.up)
    clusters = find_clusters(model, data, args)
    head = args.head if args.head is not None or len(clusters) == 1 else 0
    look = {"head": None if head == "all" else head, "opacity": args.opacity,
            "highlight": args.highlight, "title": title}  # fmt: skip
    for path in args.out:
        print(viz.save(path, drawn, clusters, **look), flush=True)
    if args.show:
        viz.show(drawn, clusters, **look)


def find_clusters(model: Any, data: Any, args: argparse.Namespace) -> dict[str, Any]:
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


def main(arguments: Sequence[str] | None = None) -> int:
    args = parse_arguments(arguments)
    try:
        run(args)
    except (ImportError, IndexError, OSError, TypeError, ValueError) as error:
        return complain(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
