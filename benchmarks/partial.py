"""Pictures with most pixels missing: accuracy against the share of pixels that is kept.

Networks trained on whole pictures of the bundled part of Fashion-MNIST (`python
examples/imagenet.py --seeds 3` leaves them in `runs/imagenet/`) are tested on its test pictures
with pixels missing at random, or in one block, or with the centroids of superpixels alone. Ours:
the points that are there, as loose points. Beside it the same network on the whole lattice, with
the pixels where they lie and zeros (of the network's normalised input, the mean grey) or black for
the others. Missing pixels are drawn by a seed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from measure import parser, report, table
from torch import Tensor, nn
from torch_geometric.data import Batch

from pointcluster.datasets import FashionMNIST
from pointcluster.models import load_model
from pointcluster.transforms import ImageToPoints, MaskedBlock, RandomPixels, Superpixels

MEAN, STD = 0.286, 0.353
SHARES = (1.0, 0.5, 0.25, 0.1)
COLUMNS = ("as loose points", "zeros", "black")


def main() -> None:
    args = parse_arguments()
    test = FashionMNIST(split="test")
    images = (test.images[:, None].float() / 255 - MEAN) / STD
    images, targets = images[:: args.step], test.targets[:: args.step]
    rows = []
    for kind in ("random", "block", "superpixels"):
        for share in SHARES[{"random": 0, "block": 1, "superpixels": 2}[kind] :]:
            models = (load_model(path)[0] for path in args.weights)
            found = [accuracies(model, images, targets, kind, share) for model in models]
            *columns, kept = zip(*found, strict=True)
            # SLIC gives more superpixels than it is asked for, or fewer.
            rows.append([f"{kind}, {kept[0]:.0%} kept", *map(spread, columns)])
            print(" | ".join(rows[-1]), flush=True)
    lines = [
        f"Accuracy in per cent of {len(images)} test pictures; mean and standard deviation over "
        f"{len(args.weights)} networks that were trained on whole ones.",
        table(["pixels", *COLUMNS], rows),
    ]
    report(args.out / "partial.md", "Pictures with most pixels missing", lines)


def parse_arguments() -> argparse.Namespace:
    args = parser(__doc__, memory=False)
    args.add_argument("--weights", nargs="+", type=Path, required=True, help="networks to test")
    args.add_argument("--step", type=int, default=1, help="take every so many-th picture")
    return args.parse_args()


@torch.inference_mode()
def accuracies(
    model: nn.Module, images: Tensor, targets: Tensor, kind: str, share: float
) -> list[float]:
    """Per cent right of each column, and the share of the pixels that there are points."""
    drop = {
        "random": RandomPixels(share, seed=0),
        "block": MaskedBlock(share, seed=0),
        "superpixels": Superpixels(share * images[0].numel()),
    }[kind]
    right, points = [0] * len(COLUMNS), 0
    black = -MEAN / STD
    for part, truth in zip(images.split(100), targets.split(100), strict=True):
        kept = [drop(ImageToPoints()(image)) for image in part]
        batch = Batch.from_data_list(kept)
        points += len(batch.pos)
        masks = torch.stack([present(each) for each in kept])
        logits = [
            model(batch),
            model(torch.where(masks, part, 0.0)),
            model(torch.where(masks, part, black)),
        ]
        for column, answer in enumerate(logits):
            right[column] += int((answer.argmax(dim=1) == truth).sum())
    return [*(100 * count / len(images) for count in right), points / images.numel()]


def present(data: object) -> Tensor:
    """Where a picture's points lie [1, H, W]."""
    height, width = data.get("extent") or data.grid
    size = torch.tensor([height - 1, width - 1])
    cell = ((data.pos + 0.5) * size).round().long()
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[0, cell[:, 0], cell[:, 1]] = True
    return mask


def spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


if __name__ == "__main__":
    main()
