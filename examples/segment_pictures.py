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

    from pointcluster.datasets import MaskFolder, read_image
    from pointcluster.models import create_model, load_model, save_model
    from pointcluster.models.dense import Unpadded, semantic_fpn_schedule
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
    parser.add_argument("--data", type=Path, metavar="FOLDER", default=TREES)
    parser.add_argument("--ignore-index", type=int, default=255, help="of masks: no class is known")
    parser.add_argument("--model", default="coc_nano", help="the backbone")
    parser.add_argument("--width", type=int, default=128, help="channels of the pyramid")
    parser.add_argument("--size", type=int, nargs=2, default=[192, 192], metavar=("H", "W"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/segment_pictures"))
    parser.add_argument("--predict", type=Path, nargs="+", metavar="PICTURE")
    parser.add_argument("--weights", type=Path, default=Path("runs/segment_pictures/model"))
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
                              width=args.width, head_width=args.width)  # fmt: skip
    model.to(args.device)
    optimizer, schedule = semantic_fpn_schedule(model, args.epochs * len(loader), lr=args.lr)
    start = time.perf_counter()
    for epoch in range(args.epochs):
        model.train()
        losses = []
        for images, masks in loader:
            scores = model(images.to(args.device))  # [B, classes, H, W]
            wanted = masks.to(args.device).long()
            loss = cross_entropy(scores, wanted, ignore_index=args.ignore_index)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        mean = sum(losses) / len(losses)
        print(
            f"epoch {epoch + 1}: loss {mean:.3f}, {time.perf_counter() - start:.0f} s", flush=True
        )
    metric = MulticlassJaccardIndex(data.num_classes, "none", ignore_index=args.ignore_index)
    rows = []
    for number, (image, mask) in enumerate(test):  # pictures come one by one: sizes may differ
        said = segment(model, image.to(args.device))
        metric.update(said[None], mask[None])
        if number < 4:
            whole = pixels(test.files[number][0])
            rows += [whole, over(whole, mask), over(whole, said)]
    kinds = metric.compute()
    results = {"mIoU": float(kinds.mean()), "IoU": kinds.tolist(), "loss": mean,
               "seconds": time.perf_counter() - start}  # fmt: skip
    print(f"mIoU {100 * results['mIoU']:.1f} % on {len(test)} pictures")
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    save_model(args.out / "model", model, {"mIoU": results["mIoU"]})
    side = [v2.functional.resize(row, [256, 256 * row.size(2) // row.size(1)]) for row in rows]
    width = max(row.size(2) for row in side)
    grid = utils.make_grid([v2.functional.pad(r, [0, 0, width - r.size(2), 0]) for r in side], 3)
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(args.out / "results.png")


def predict(args: argparse.Namespace) -> None:
    """Write a mask of indices, and the picture under it, for each file."""
    model, _ = load_model(args.weights)
    for file in args.predict:
        whole = pixels(file)
        image = v2.Compose(PLAIN)(tv_tensors.Image(whole)).to(args.device)
        said = segment(model.to(args.device), image)
        mask = Image.fromarray(said.numpy().astype("uint8")).convert("P")
        mask.putpalette([value for colour in colours(model.num_classes) for value in colour])
        mask.save(args.out / f"{file.stem}_mask.png")
        shown = over(whole, said).permute(1, 2, 0).numpy()
        Image.fromarray(shown).save(args.out / f"{file.stem}_over.png")
        print(args.out / f"{file.stem}_mask.png")


@torch.no_grad()
def segment(model: Any, image: torch.Tensor) -> torch.Tensor:
    """The class of every pixel. [H, W]"""
    return Unpadded(model.eval())([image])[0].argmax(0).cpu()


def pixels(file: Path) -> torch.Tensor:
    """A picture's colours. [3, H, W]"""
    return v2.functional.pil_to_tensor(read_image(file))


def colours(count: int) -> list[tuple[int, ...]]:
    """So many colours, the first one dark."""
    hues = [colorsys.hsv_to_rgb(0.618 * i % 1, 0.75, 0.95) for i in range(1, count)]
    return [(40, 40, 40), *(tuple(round(255 * part) for part in hue) for hue in hues)]


def over(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The classes' colours over a picture; what is ignored (255) stays as it is."""
    kinds = [kind for kind in mask.unique().tolist() if kind != 255]
    layers = torch.stack([mask == kind for kind in kinds])
    shades = colours(256)
    return utils.draw_segmentation_masks(image, layers, 0.5, [shades[kind] for kind in kinds])


if __name__ == "__main__":
    main()
