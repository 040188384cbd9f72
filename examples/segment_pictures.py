"""Train a network that says the class of every pixel, and lay it over pictures."""

from __future__ import annotations

import argparse
import colorsys
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
try:
    import torch
    from PIL import Image
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader
    from torchmetrics import MetricCollection
    from torchmetrics.classification import MulticlassJaccardIndex
    from torchvision import tv_tensors, utils
    from torchvision.transforms import v2

    from pointcluster._command import Parser, number
    from pointcluster.datasets import MaskFolder
    from pointcluster.datasets.mask_folder import read_picture
    from pointcluster.files import replacing, write_whole
    from pointcluster.models import create_model, list_models, load_model, save_model
    from pointcluster.models.dense import SemanticFPN, Unpadded, semantic_fpn_schedule
    from pointcluster.training.pictures import train_epochs, write_grid, write_picture
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: pip install -e '.[train,image]'")

TREES = Path(__file__).resolve().parents[1] / "datasets" / "tree_crowns"
EPILOG = """examples:
  python examples/segment_pictures.py                       tree crowns from the air, a minute
  python examples/segment_pictures.py --data CamVid --ignore-index 11 --size 192 256
  python examples/segment_pictures.py --predict a.jpg b.jpg --weights runs/segment_pictures/model
FOLDER holds train/images, train/masks, test/images, test/masks; or train, trainannot, test,
testannot. A mask is a picture of indices. A run leaves model.safetensors, model.json, results.json
and results.png: pictures, what they are, and what the network says. Ctrl-C in training keeps the
network in stopped.safetensors and stopped.json, for --weights."""
PLAIN = [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
         v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]  # fmt: skip


def main() -> None:
    """Train and test, or predict."""
    parser = Parser(doc=f"{__doc__}\n\n{EPILOG}")
    add = parser.add_argument
    backbones = [
        name.removeprefix("semantic_fpn_") for name in list_models("semantic_fpn_*", task=None)
    ]
    add("--data", type=Path, metavar="FOLDER", default=TREES)
    add("--ignore-index", type=int, default=255, help="of masks: no class is known")
    add("--model", default="coc_nano", choices=backbones, metavar="NAME", help="the backbone")
    add("--width", type=number(int, 1), default=128, help="channels of the pyramid")
    add("--size", type=number(int, 1), nargs=2, default=[192, 192], metavar=("H", "W"))
    add("--epochs", type=number(int, 1), default=30)
    add("--batch-size", type=number(int, 1), default=4)
    add("--lr", type=number(float, 0), default=1e-3)
    add("--precision", choices=("32", "bf16"), default="32", help="bf16: mixed, for GPUs")
    add("--workers", type=number(int, 0), default=0)
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("runs/segment_pictures"))
    add("--predict", type=Path, nargs="+", metavar="PICTURE")
    add("--weights", type=Path, default=Path("runs/segment_pictures/model"))
    args = parser.parse_args()
    args.device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    try:
        predict(args) if args.predict else train(args)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def train(args: argparse.Namespace) -> None:
    """Train on crops of one size, test on whole pictures of any."""
    torch.manual_seed(args.seed)
    moved = [v2.RandomResizedCrop(args.size, (0.25, 1.0), antialias=True),
             v2.RandomHorizontalFlip(), v2.RandomPhotometricDistort()]  # fmt: skip
    options = {"ignore_index": args.ignore_index}
    data = MaskFolder.split(args.data, "train", transform=v2.Compose(moved + PLAIN), **options)
    test = MaskFolder.split(args.data, "test", transform=v2.Compose(PLAIN), **options)
    count = data.num_classes
    if not 2 <= count >= test.num_classes:
        raise ValueError(f"{args.data}: masks hold classes up to {count - 1} in train, up to "
                         f"{test.num_classes - 1} in test, without {args.ignore_index}: expected 1 "
                         "or more in train, and no others in test")  # fmt: skip
    print(f"{len(data)} pictures to train on, {len(test)} to test on, {count} classes")
    args.out.mkdir(parents=True, exist_ok=True)
    loader = DataLoader(data, args.batch_size, shuffle=True, drop_last=len(data) > args.batch_size,
                        num_workers=args.workers)  # fmt: skip
    model: Any = create_model(f"semantic_fpn_{args.model}", num_classes=count, width=args.width,
                              head_width=args.width).to(args.device)  # fmt: skip
    steps = semantic_fpn_schedule(model, args.epochs * len(loader), lr=args.lr)

    def loss(batch: Any) -> torch.Tensor:
        images, masks = (part.to(args.device) for part in batch)  # [B, 3, H, W], [B, H, W]
        # Not cross_entropy's own mean, which is no number where no pixel of a batch has a class.
        total = cross_entropy(model(images), masks.long(), ignore_index=args.ignore_index,
                              reduction="sum")  # fmt: skip
        return total / (masks != args.ignore_index).sum().clamp_min(1)

    start = time.perf_counter()
    try:
        last = train_epochs(model, loader, loss, *steps, epochs=args.epochs,
                            precision=args.precision, say=print)  # fmt: skip
    except KeyboardInterrupt:
        save_model(args.out / "stopped", model)
        raise
    save_model(args.out / "model", model)  # first of all: a test picture may be broken
    # Of classes that are nowhere, neither in masks nor in what is said, the mean takes none.
    metric = MetricCollection({
        name: MulticlassJaccardIndex(count, average, ignore_index=args.ignore_index)
        for name, average in (("mIoU", "macro"), ("IoU", "none"))
    })  # fmt: skip
    shown = []
    for (file, _), (image, mask) in zip(test.files, test, strict=True):
        said = segment(model, image.to(args.device))  # one by one: sizes may differ
        metric.update(said[None], mask[None])
        if len(shown) < 12:
            whole = read_picture(file)
            shown += [whole, over(whole, mask, args.ignore_index), over(whole, said)]
    results = {name: value.tolist() for name, value in metric.compute().items()}
    print(f"mIoU {100 * results['mIoU']:.1f} % on {len(test)} pictures")
    results |= {"loss": last, "seconds": time.perf_counter() - start}
    write_whole(args.out / "results.json", json.dumps(results, indent=1) + "\n")
    write_grid(args.out / "results.png", shown, columns=3)


def predict(args: argparse.Namespace) -> None:
    """Write a mask of indices, and the picture under it, for each file."""
    if len({file.stem for file in args.predict}) < len(args.predict):
        raise ValueError("two of the pictures have one name, and their masks would, too")
    model: Any = load_model(args.weights)[0].to(args.device)
    if not isinstance(model, SemanticFPN):
        raise ValueError(f"{args.weights} holds {model.config['name']!r}, expected semantic_fpn_*")
    args.out.mkdir(parents=True, exist_ok=True)
    for file in args.predict:
        whole = read_picture(file)
        said = segment(model, v2.Compose(PLAIN)(whole).to(args.device))
        mask = Image.fromarray(said.numpy().astype("uint8")).convert("P")
        mask.putpalette([value for colour in colours(model.num_classes) for value in colour])
        with replacing(args.out / f"{file.stem}_mask.png") as temporary:
            mask.save(temporary)
        write_picture(args.out / f"{file.stem}_over.png", over(whole, said))
        print(args.out / f"{file.stem}_mask.png")


@torch.no_grad()
def segment(model: Any, image: torch.Tensor) -> torch.Tensor:
    """The class of every pixel. [H, W]"""
    return Unpadded(model.eval())([image])[0].argmax(0).cpu()


def colours(count: int) -> list[tuple[int, ...]]:
    """So many colours, the first one dark."""
    hues = [colorsys.hsv_to_rgb(0.618 * i % 1, 0.75, 0.95) for i in range(1, count)]
    return [(40, 40, 40), *(tuple(round(255 * part) for part in hue) for hue in hues)]


def over(image: torch.Tensor, mask: torch.Tensor, ignored: int = 255) -> torch.Tensor:
    """The classes' colours over a picture; what is ignored stays as it is."""
    kinds = [kind for kind in mask.unique().tolist() if kind != ignored]
    if not kinds:
        return image
    shades = colours(1 + max(kinds))
    layers = torch.stack([mask == kind for kind in kinds])
    return utils.draw_segmentation_masks(image, layers, 0.5, [shades[kind] for kind in kinds])


if __name__ == "__main__":
    main()
