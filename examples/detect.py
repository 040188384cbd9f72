"""Train a detector, and draw what it finds into pictures."""

from __future__ import annotations

import argparse
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
    from safetensors.torch import load_file, save_file
    from torch.utils.data import DataLoader
    from torchmetrics.detection import MeanAveragePrecision
    from torchvision import tv_tensors, utils
    from torchvision.models.detection import FCOS
    from torchvision.transforms import v2

    from pointcluster.datasets import BoxFolder, read_image
    from pointcluster.models import create_model
    from pointcluster.models.dense import PyramidBackbone, UnpaddedDetector, mask_rcnn_schedule
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: pip install -e '.[train,dense]'")

TREES = Path(__file__).resolve().parents[1] / "datasets" / "tree_crowns"
EPILOG = """examples:
  python examples/detect.py                                 tree crowns from the air, minutes
  python examples/detect.py --data BCCD --size 480 --epochs 12
  python examples/detect.py --predict a.jpg b.jpg --weights runs/detect/model.safetensors
FOLDER holds train/images and train/boxes (VOC's XML) or train/boxes.json (COCO's), and test
likewise; or VOC's JPEGImages, Annotations and ImageSets/Main. A run leaves model.safetensors,
model.json, results.json and results.png: test pictures with what is found in them."""
PLAIN = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)


def main() -> None:
    """Train and test, or predict."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", default=TREES)
    parser.add_argument("--model", default="coc_nano", help="the backbone")
    parser.add_argument("--width", type=int, default=64, help="channels of pyramid and heads")
    parser.add_argument("--size", type=int, default=256, help="pixels of the shorter side")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument(
        "--crop", action="store_true", help="train on parts, too: for long trainings"
    )
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score", type=float, default=0.4, help="least score of what is drawn")
    parser.add_argument("--out", type=Path, default=Path("runs/detect"))
    parser.add_argument("--predict", type=Path, nargs="+", metavar="PICTURE")
    parser.add_argument("--weights", type=Path, default=Path("runs/detect/model.safetensors"))
    args = parser.parse_args()
    args.device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        predict(args) if args.predict else train(args)
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def build(model: str, classes: list[str], size: int, width: int) -> UnpaddedDetector:
    """FCOS on the three coarser stages and two levels more."""
    body: Any = create_model(model, features_only=True, out_indices=(1, 2, 3))
    backbone = PyramidBackbone(body, width, "p6p7")
    return UnpaddedDetector(
        FCOS(backbone, 1 + len(classes), min_size=size, max_size=2 * size, score_thresh=0.05)
    )


def train(args: argparse.Namespace) -> None:
    """Train on pictures of any size, in batches, and test."""
    metric = MeanAveragePrecision(backend="faster_coco_eval")  # first: it says what it lacks
    torch.manual_seed(args.seed)
    moved = [v2.RandomHorizontalFlip(), v2.RandomPhotometricDistort()]
    moved += [v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes(min_size=2)] if args.crop else []
    data = BoxFolder.split(args.data, "train", transform=v2.Compose([*moved, PLAIN]))
    test = BoxFolder.split(args.data, "test", transform=PLAIN, classes=data.classes)
    loader = DataLoader(data, args.batch_size, shuffle=True, collate_fn=together,
                        num_workers=args.workers)  # fmt: skip
    about = {"model": args.model, "classes": data.classes, "size": args.size, "width": args.width}
    detector = build(**about).to(args.device)
    steps = len(loader)
    optimizer, schedule = mask_rcnn_schedule(detector, steps, args.epochs, lr=args.lr, warmup=steps)
    start = time.perf_counter()
    for epoch in range(args.epochs):
        detector.train()
        total = 0.0
        for images, targets in loader:
            images = [image.to(args.device) for image in images]
            targets = [{k: v.to(args.device) for k, v in target.items()} for target in targets]
            loss = sum(detector(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            total += loss.item() / steps
        seconds = time.perf_counter() - start
        print(f"epoch {epoch + 1}: loss {total:.3f}, {seconds:.0f} s", flush=True)
    drawn = []
    for number, (image, target) in enumerate(test):
        found = detect(detector, image.to(args.device))
        metric.update([found], [target])
        if number < 6:
            drawn.append(draw(read_image(test.files[number]), found, data.classes, args.score))
    results = {key: float(value) for key, value in metric.compute().items() if value.numel() == 1}
    print(
        f"AP {100 * results['map']:.1f}, AP50 {100 * results['map_50']:.1f} on {len(test)} pictures"
    )
    (args.out / "results.json").write_text(json.dumps(results | {"loss": total}, indent=1) + "\n")
    save_file(detector.state_dict(), args.out / "model.safetensors")
    (args.out / "model.json").write_text(json.dumps(about, indent=1) + "\n")
    height, width = (max(picture.size(axis) for picture in drawn) for axis in (1, 2))
    fill = [v2.functional.pad(p, [0, 0, width - p.size(2), height - p.size(1)]) for p in drawn]
    save(utils.make_grid(fill, 2), args.out / "results.png")


def predict(args: argparse.Namespace) -> None:
    """Write the boxes as JSON, and a picture with them, for each file."""
    about = json.loads(args.weights.with_suffix(".json").read_text())
    detector = build(**about).to(args.device)
    detector.load_state_dict(load_file(args.weights))
    for file in args.predict:
        picture = read_image(file)
        found = detect(detector, PLAIN(v2.functional.to_image(picture)).to(args.device))
        rows = [
            {"class": about["classes"][label - 1], "score": score, "box": box}
            for label, score, box in zip(
                *(found[key].tolist() for key in ("labels", "scores", "boxes")), strict=True
            )
        ]
        (args.out / f"{file.stem}.json").write_text(json.dumps(rows, indent=1) + "\n")
        save(
            draw(picture, found, about["classes"], args.score), args.out / f"{file.stem}_boxes.png"
        )
        print(args.out / f"{file.stem}.json", len(rows), "boxes")


def together(items: list[Any]) -> tuple[Any, ...]:
    """Pictures and targets of a batch."""
    return tuple(zip(*items, strict=True))


@torch.no_grad()
def detect(detector: UnpaddedDetector, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Boxes, labels and scores of what is in a picture."""
    return {key: value.cpu() for key, value in detector.eval()([image])[0].items()}


def draw(picture: Any, found: dict[str, torch.Tensor], classes: list[str], least: float) -> Any:
    """A picture with the boxes of at least that score."""
    keep = found["scores"] >= least
    image = v2.functional.pil_to_tensor(picture)
    if not keep.any():
        return image
    names = [classes[label - 1] for label in found["labels"][keep].tolist()]
    told = names if len(classes) > 1 else None
    return utils.draw_bounding_boxes(image, found["boxes"][keep], told, "yellow", width=2)


def save(image: torch.Tensor, file: Path) -> None:
    """Write a picture."""
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)


if __name__ == "__main__":
    main()
