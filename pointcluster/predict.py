"""Tell the classes of scans and meshes with a trained network.

python -m pointcluster.predict model.safetensors scan.ply [more files or folders ...]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch_geometric.data import Data

from pointcluster._command import Parser, complain, number
from pointcluster.datasets.readers.columns import column_names
from pointcluster.datasets.readers.points import SUFFIXES, TABLES, find_scans, read_points
from pointcluster.models import CoC, PointCoCSeg, load_model
from pointcluster.transforms.clouds import AXES, FEATURES
from pointcluster.transforms.preprocessing import Preprocessing


class Predictor:
    """A trained network with the names of its classes and what it expects of a cloud.

    Args:
        path: A network that :func:`pointcluster.models.save_model` wrote.
        num_points: Points a cloud, instead of what the network was trained on.
        features: What the network's features are, where its metadata does not say.
        up: The axis that points up in the files; by default the one that the network knows.
        seed: What sampling goes by.
        drop_invalid: Leave out points with a NaN or infinite position.
        columns: What the columns of tables are, as in :func:`pointcluster.datasets.read_points`.
        device: Where the network runs.

    Raises:
        FileNotFoundError: The network is not there.
        ValueError: It is damaged, is none of point clouds, its metadata make no sense, or it takes
            features and nothing says which; the seed is negative; or columns or the axis are not
            known.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        num_points: int | None = None,
        features: Sequence[str] | None = None,
        up: str | None = None,
        seed: int = 0,
        drop_invalid: bool = False,
        columns: str | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if seed < 0:
            raise ValueError(f"seed is {seed}, expected at least 0")
        if columns is not None:
            column_names(columns)
        if up is not None and up not in AXES:
            raise ValueError(f"up is {up!r}, expected one of {' '.join(AXES)}")
        model, metadata = load_model(path)
        if isinstance(model, CoC):
            raise ValueError(f"{path} holds {model.config['name']}, a network of pictures")
        if isinstance(model, PointCoCSeg):
            raise ValueError(
                f"{path} holds {model.config['name']}, which tells the class of every point: use "
                "python -m pointcluster.segment"
            )
        if not model.num_classes:
            raise ValueError(f"{path} holds a network without a classifier")
        self.preprocessing = Preprocessing.of(path, metadata)
        if num_points is not None:
            self.preprocessing = self.preprocessing._replace(num_points=num_points)
        if features is not None:
            self.preprocessing = self.preprocessing._replace(features=tuple(features))
        if 3 * len(self.preprocessing.features) != model.in_channels:
            named = " and ".join(self.preprocessing.features) or "none"
            raise ValueError(
                f"{path} takes {model.in_channels} features a point, {named} said: --features says "
                "what they are, of normal and color, 3 each, in their order"
            )
        self.classes = _classes(path, metadata, model.num_classes)
        self.up = up
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.seed, self.drop_invalid, self.columns = seed, drop_invalid, columns

    def prepare(self, path: str | os.PathLike[str]) -> Data:
        """Read a file as a cloud of the kind that the network was trained on.

        Raises:
            ImportError, OSError, ValueError: As :func:`pointcluster.datasets.read_points`; or the
                file has no normals or colours, and the network needs them.
        """
        sampled = max(self.preprocessing.num_points, self.preprocessing.sampled or 0)
        table = str(path).lower().endswith(TABLES)
        data = read_points(
            path,
            mesh_points=sampled,
            seed=self.seed,
            drop_invalid=self.drop_invalid,
            columns=self.columns if table else None,
        )
        return self.fit(data, path)

    def fit(
        self,
        data: Data,
        name: str | os.PathLike[str],
        *,
        num_points: int | None = None,
        up: str | None = None,
    ) -> Data:
        """Make points a cloud of the kind that the network was trained on.

        Args:
            data: Points as :func:`pointcluster.datasets.read_points` gives them.
            name: What messages call them.
            num_points: Most points to keep, instead of what the network was trained on.
            up: The axis that points up in them, instead of the predictor's.

        Raises:
            ValueError: There is no such axis; or they have no normals or colours, and the network
                needs them.
        """
        return self.preprocessing.apply(
            data, name, num_points=num_points, up=up or self.up, seed=self.seed
        )

    @torch.inference_mode()
    def __call__(self, path: str | os.PathLike[str]) -> list[tuple[str, float]]:
        """All classes with their probabilities, the likeliest first.

        Raises:
            ImportError, OSError, ValueError: As :meth:`prepare`; or the network's scores are no
                numbers.
        """
        logits = self.model(self.prepare(path).to(self.device))[0]
        if not logits.isfinite().all():
            raise ValueError(
                f"{path}: the network's scores are no finite numbers: its weights are damaged, "
                "or its training had diverged"
            )
        probability, order = logits.cpu().double().softmax(dim=0).sort(descending=True, stable=True)
        pairs = zip(order.tolist(), probability.tolist(), strict=True)
        return [(self.classes[index], value) for index, value in pairs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; a file that cannot be read is said, and the others are still classified."""
    options = _parser().parse_args(arguments)
    try:
        predictor = Predictor(
            options.model,
            num_points=options.num_points,
            features=options.features,
            up=options.up,
            seed=options.seed,
            drop_invalid=options.drop_invalid,
            columns=options.columns,
            device=options.device,
        )
        paths = find_scans(options.scans)
    except (AssertionError, ImportError, OSError, RuntimeError, ValueError) as error:
        return complain(error)  # torch asserts that it was compiled for the device
    status, results = 0, []
    for path in paths:
        try:
            found = predictor(path)[: options.top]
        except (ImportError, OSError, ValueError) as error:
            status = complain(error)
            continue
        except (MemoryError, RuntimeError) as error:  # torch's says "allocate", too
            if not isinstance(error, MemoryError) and "alloc" not in str(error):
                raise
            status = complain(MemoryError(f"{path}: there is not enough memory for it"))
            continue
        if options.json:
            entries = [{"class": name, "probability": value} for name, value in found]
            results.append({"file": str(path), "classes": entries})
        else:
            print(path, *(f"  {value:6.1%}  {name}" for name, value in found), sep="\n", flush=True)
    if options.json:
        print(json.dumps(results, indent=1))
    return status


def _parser() -> Parser:
    def device(text: str) -> torch.device:
        try:
            return torch.device(text)
        except RuntimeError:
            raise argparse.ArgumentTypeError(f"{text!r} is no device of torch's") from None

    parser = Parser(
        prog="python -m pointcluster.predict",
        description="Tell the classes of scans and meshes with a trained network.",
        epilog="exit status: 0, or 2 where anything could not be read",
    )
    add = parser.add_argument
    add("model", help="the network: model.safetensors, with model.json beside it")
    add("scans", nargs="+", metavar="scan", help=f"a file ({' '.join(SUFFIXES)}), or a folder")
    add("--top", type=number(int, 1), default=5, metavar="K",
        help="likeliest classes to print (%(default)s)")  # fmt: skip
    add("--json", action="store_true", help="print JSON")
    add("--num-points", type=number(int, 1), metavar="N",
        help="points a cloud, instead of what the network was trained on")  # fmt: skip
    add("--up", choices=AXES, metavar="AXIS", help="the axis that points up in the files, where it "
        "is not the network's: x y z; --up=-z for one that points down")  # fmt: skip
    add("--features", nargs="+", choices=FEATURES, help="what the network's features are, where "
        "its metadata does not say; put it last")  # fmt: skip
    add("--seed", type=number(int, 0), default=0, help="of sampling (%(default)s)")
    add("--drop-invalid", action="store_true",
        help="leave out points with a NaN or infinite position")  # fmt: skip
    add("--columns", metavar="NAMES", help="what the columns of tables are, such as 'x y z nx ny "
        "nz label'; - is one to leave out")  # fmt: skip
    add("--device", type=device, default="cpu", help="where the network runs (%(default)s)")
    return parser


def _classes(path: str | os.PathLike[str], metadata: Any, num_classes: int) -> list[str]:
    classes = metadata.get("classes")
    if classes is None:
        return [f"class {index}" for index in range(num_classes)]
    if not isinstance(classes, list) or len(classes) != num_classes:
        found = len(classes) if isinstance(classes, list) else repr(classes)
        raise ValueError(
            f"{path}: its metadata's 'classes' must be {num_classes} names, found {found}"
        )
    return [str(name) for name in classes]


if __name__ == "__main__":
    sys.exit(main())
