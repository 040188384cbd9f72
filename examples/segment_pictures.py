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
    from torchmetrics.classification import MulticlassJaccardIndex
    from torchvision import tv_tensors, utils
    from torchvision.transforms import v2

    from pointcluster.datasets import MaskFolder
    from pointcluster.datasets.mask_folder import read_picture
    from pointcluster.models import create_model, load_model, save_model
    from pointcluster.models.dense import Unpadded, semantic_fpn_schedule
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
and results.png: pictures, what they are, and what the network says."""
PLAIN = [v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
         v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]  # fmt: skip


def main() -> None:
    """Train and test, or predict."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", default=TREES)
    add("--ignore-index", type=int, default=255, help="of masks: no class is known")
    add("--model", default="coc_nano", help="the backbone")
    add("--width", type=int, default=128, help="channels of the pyramid")
    add("--size", type=int, nargs=2, default=[192, 192], metavar=("H", "W"))
    add("--epochs", type=int, default=30)
    add("--batch-size", type=int, default=4)
    add("--lr", type=float, default=1e-3)
    add("--workers", type=int, default=0)
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("runs/segment_pictures"))
    add("--predict", type=Path, nargs="+", metavar="PICTURE")
    add("--weights", type=Path, default=Path("runs/segment_pictures/model"))
    args = parser.parse_args()
    args.device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        predict(args) if args.predict else train(args)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def train(args: argparse.Namespace) -> None:
    """Train on crops of one size, test on whole pictures of any."""
    torch.manual_seed(args.seed)
    moved = [v2.RandomResizedCrop(args.size, (0.25, 1.0), antialias=True),
             v2.RandomHorizontalFlip(), v2.RandomPhotometricDistort()]  # fmt: skip
    options = {"ignore_index": args.ignore_index}
    data = MaskFolder.split(args.data, "train", transform=v2.Compose(moved + PLAIN), **options)
    options["num_classes"] = data.num_classes
    test = MaskFolder.split(args.data, "test", transform=v2.Compose(PLAIN), **options)
    loader = DataLoader(data, args.batch_size, shuffle=True, drop_last=len(data) > args.batch_size,
                        num_workers=args.workers)  # fmt: skip
    model: Any = create_model(f"semantic_fpn_{args.model}", num_classes=data.num_classes,
                              width=args.width, head_width=args.width).to(args.device)  # fmt: skip
    steps = semantic_fpn_schedule(model, args.epochs * len(loader), lr=args.lr)

    def loss(batch: Any) -> torch.Tensor:
        images, masks = (part.to(args.device) for part in batch)  # [B, 3, H, W], [B, H, W]
        return cross_entropy(model(images), masks.long(), ignore_index=args.ignore_index)

    start = time.perf_counter()
    last = train_epochs(model, loader, loss, *steps, epochs=args.epochs, say=print)
    metric = MulticlassJaccardIndex(data.num_classes, "none", ignore_index=args.ignore_index)
    shown = []
    for (file, _), (image, mask) in zip(test.files, test, strict=True):
        said = segment(model, image.to(args.device))  # one by one: sizes may differ
        metric.update(said[None], mask[None])
        if len(shown) < 12:
            whole = read_picture(file)
            shown += [whole, over(whole, mask), over(whole, said)]
    kinds = metric.compute()
    results = {"mIoU": float(kinds.mean()), "IoU": kinds.tolist(), "loss": last,
               "seconds": time.perf_counter() - start}  # fmt: skip
    print(f"mIoU {100 * results['mIoU']:.1f} % on {len(test)} pictures")
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    save_model(args.out / "model", model, {"mIoU": results["mIoU"]})
    write_grid(args.out / "results.png", shown, columns=3)


def predict(args: argparse.Namespace) -> None:
    """Write a mask of indices, and the picture under it, for each file."""
    model: Any = load_model(args.weights)[0].to(args.device)
    for file in args.predict:
        whole = read_picture(file)
        said = segment(model, v2.Compose(PLAIN)(whole).to(args.device))
        mask = Image.fromarray(said.numpy().astype("uint8")).convert("P")
        mask.putpalette([value for colour in colours(model.num_classes) for value in colour])
        mask.save(args.out / f"{file.stem}_mask.png")
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


def over(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The classes' colours over a picture; what is ignored (255) stays as it is."""
    shades = colours(256)
    kinds = [kind for kind in mask.unique().tolist() if kind != 255]
    layers = torch.stack([mask == kind for kind in kinds])
    return utils.draw_segmentation_masks(image, layers, 0.5, [shades[kind] for kind in kinds])


if __name__ == "__main__":
    main()
