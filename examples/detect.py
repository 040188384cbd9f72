"""Train a detector, and draw what it finds into pictures."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

# Of PyTorch Geometric, which does so when it is imported.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
try:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file
    from torch.utils.data import DataLoader
    from torchmetrics.detection import MeanAveragePrecision
    from torchvision import tv_tensors, utils
    from torchvision.models.detection import FCOS
    from torchvision.transforms import v2

    from pointcluster._command import Parser, number
    from pointcluster.datasets import BoxFolder
    from pointcluster.datasets.mask_folder import read_picture
    from pointcluster.files import replacing, write_whole
    from pointcluster.models import create_model, list_models
    from pointcluster.models.dense import PyramidBackbone, UnpaddedDetector, mask_rcnn_schedule
    from pointcluster.training.pictures import train_epochs, write_grid, write_picture
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is not installed: pip install -e '.[train,dense]'")

TREES = Path(__file__).resolve().parents[1] / "datasets" / "tree_crowns"
EPILOG = """examples:
  python examples/detect.py                                 tree crowns from the air, minutes
  python examples/detect.py --data BCCD --size 480 --epochs 12
  python examples/detect.py --predict a.jpg b.jpg --weights runs/detect/model.safetensors
FOLDER holds train/images and train/boxes (VOC's XML) or train/boxes.json (COCO's), and test
likewise; or VOC's JPEGImages, Annotations and ImageSets/Main. A run leaves model.safetensors,
model.json, results.json and results.png: test pictures with what is found in them. Ctrl-C in
training keeps the network in stopped.safetensors and stopped.json, for --weights."""
PLAIN = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)


def main() -> None:
    """Train and test, or predict."""
    parser = Parser(doc=f"{__doc__}\n\n{EPILOG}")
    add = parser.add_argument
    backbones = [name.removeprefix("mask_rcnn_") for name in list_models("mask_rcnn_*", task=None)]
    add("--data", type=Path, metavar="FOLDER", default=TREES)
    add("--model", default="coc_nano", choices=backbones, metavar="NAME", help="the backbone")
    add("--width", type=number(int, 64), default=64, help="channels, 64 or another multiple of 32")
    add("--size", type=number(int, 1), default=256, help="pixels of the shorter side")
    add("--epochs", type=number(int, 1), default=30)
    add("--batch-size", type=number(int, 1), default=2)
    add("--lr", type=number(float, 0), default=5e-4)
    add("--crop", action="store_true", help="train on parts, too: for long trainings")
    add("--precision", choices=("32", "bf16"), default="32", help="bf16: mixed, for GPUs")
    add("--workers", type=number(int, 0), default=0)
    add("--seed", type=int, default=0)
    add("--score", type=float, default=0.4, help="least score of what is drawn")
    add("--out", type=Path, default=Path("runs/detect"))
    add("--predict", type=Path, nargs="+", metavar="PICTURE")
    add("--weights", type=Path, default=Path("runs/detect/model.safetensors"))
    args = parser.parse_args()
    args.device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    try:
        predict(args) if args.predict else train(args)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


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
    loader = DataLoader(data, args.batch_size, shuffle=True, num_workers=args.workers,
                        collate_fn=BoxFolder.collate)  # fmt: skip
    print(f"{len(data)} pictures to train on, {len(test)} to test on, classes {data.classes}")
    about = {"model": args.model, "classes": data.classes, "size": args.size, "width": args.width}
    detector = build(**about).to(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    count = len(loader)
    steps = mask_rcnn_schedule(detector, count, args.epochs, lr=args.lr, warmup=count)

    def loss(batch: Any) -> torch.Tensor:
        images = [image.to(args.device) for image in batch[0]]
        targets = [{k: v.to(args.device) for k, v in target.items()} for target in batch[1]]
        return sum(detector(images, targets).values())

    def save(name: str) -> None:
        with replacing(args.out / f"{name}.safetensors") as temporary:
            save_file(detector.state_dict(), temporary)
        write_whole(args.out / f"{name}.json", json.dumps(about, indent=1) + "\n")

    try:
        last = train_epochs(detector, loader, loss, *steps, epochs=args.epochs,
                            precision=args.precision, say=print)  # fmt: skip
    except KeyboardInterrupt:
        save("stopped")
        raise
    save("model")  # first of all: a test picture may be broken
    drawn = []
    for file, (image, target) in zip(test.files, test, strict=True):
        found = detect(detector, image.to(args.device))
        metric.update([found], [target])
        if len(drawn) < 6:
            drawn.append(draw(read_picture(file), found, data.classes, args.score))
    results = {key: float(value) for key, value in metric.compute().items() if value.numel() == 1}
    print(
        f"AP {100 * results['map']:.1f}, AP50 {100 * results['map_50']:.1f} on {len(test)} pictures"
    )
    text = json.dumps(results | {"loss": last}, indent=1)
    write_whole(args.out / "results.json", text + "\n")
    write_grid(args.out / "results.png", drawn, columns=2, height=400)


def predict(args: argparse.Namespace) -> None:
    """Write the boxes as JSON, and a picture with them, for each file."""
    if len({file.stem for file in args.predict}) < len(args.predict):
        raise ValueError("two of the pictures have one name, and their boxes would, too")
    weights = args.weights.with_suffix(".safetensors")
    try:
        about = json.loads(weights.with_suffix(".json").read_text())
        detector = build(**about)
        detector.load_state_dict(load_file(weights))
    except (RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{weights} and .json are of no run of this program: {error}") from error
    detector.to(args.device)
    args.out.mkdir(parents=True, exist_ok=True)
    for file in args.predict:
        whole = read_picture(file)
        found = detect(detector, PLAIN(whole).to(args.device))
        values = (found[key].tolist() for key in ("labels", "scores", "boxes"))
        rows = [
            {"class": about["classes"][label - 1], "score": score, "box": box}
            for label, score, box in zip(*values, strict=True)
        ]
        write_whole(args.out / f"{file.stem}.json", json.dumps(rows, indent=1) + "\n")
        picture = draw(whole, found, about["classes"], args.score)
        write_picture(args.out / f"{file.stem}_boxes.png", picture)
        print(args.out / f"{file.stem}.json", len(rows), "boxes")


@torch.no_grad()
def detect(detector: UnpaddedDetector, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Boxes, labels and scores of what is in a picture."""
    return {key: value.cpu() for key, value in detector.eval()([image])[0].items()}


def draw(image: torch.Tensor, found: Any, classes: list[str], least: float) -> torch.Tensor:
    """A picture with the boxes of at least that score."""
    keep = found["scores"] >= least
    if not keep.any():
        return image
    names = [classes[label - 1] for label in found["labels"][keep].tolist()]
    told = names if len(classes) > 1 else None
    return utils.draw_bounding_boxes(image, found["boxes"][keep], told, "yellow", width=2)


if __name__ == "__main__":
    main()
