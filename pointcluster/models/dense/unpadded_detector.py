"""torchvision's detectors on pictures of several sizes, without padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointcluster.models.clusters import evaluating
from pointcluster.models.dense.unpadded import Grid, alike


class UnpaddedDetector(nn.Module):
    r"""A detector of torchvision that finds in each picture what it finds in it alone.

    torchvision pads a batch to its largest picture, and a single one to a multiple of 32, and works
    on the padding as if it were picture. Here the pictures of one size go through backbone, pyramid
    and heads together, without padding; anchors lie a whole number of pixels apart on every level,
    whatever the sizes. Losses are those of the batch, as torchvision works them out for pictures of
    one size; the rest of the detector (resizing, matching, sampling, pooled regions and their
    heads) is torchvision's own and runs for all pictures at once.

    It takes `FasterRCNN`, `MaskRCNN`, `KeypointRCNN` and what else is a `GeneralizedRCNN`,
    `RetinaNet` and `FCOS`; on any backbone.

    Args:
        detector: The detector, with its own weights and parts, under :attr:`detector`; what pools
            regions in it is made to take maps of several sizes, too (:class:`PoolBySize`).

    Shapes:
        - **input:** pictures $(C, H, W)$ from 0 to 1 and, in training, targets, as torchvision has
          them
        - **output:** in training a dictionary of losses, else a dictionary of detections a picture

    Raises:
        TypeError: It is another detector.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        for part in ("transform", "backbone"):
            if not hasattr(detector, part):
                raise TypeError(f"{type(detector).__name__} has no {part}: it is no such detector")
        # SSD, whose anchors depend on the size of the whole picture, has another generator.
        anchors = getattr(getattr(detector, "rpn", detector), "anchor_generator", None)
        if not hasattr(anchors, "grid_anchors"):
            raise TypeError(
                f"expected torchvision's GeneralizedRCNN, RetinaNet or FCOS, found "
                f"{type(detector).__name__}"
            )
        self.detector = detector
        self.training = detector.training
        self.strides = self._measured()

    @torch.no_grad()
    def _measured(self) -> list[int]:
        """Pixels from a point of each level's map to the next; by a picture that all divide."""
        detector: Any = self.detector
        like, side = next(detector.parameters()), 256
        with evaluating(detector):
            maps = _levels(
                detector.backbone(like.new_zeros(1, len(detector.transform.image_mean), side, side))
            )
        # Where regions are pooled, torchvision guesses the scales by the first maps it is shown.
        for pool in self._pools():
            pool(maps, [like.new_tensor([[0, 0, side, side]])], [(side, side)])
        return [side // level.size(3) for level in maps.values()]

    def _pools(self) -> list[PoolBySize]:
        """What pools regions, made to take maps of several sizes; the detector may get others."""
        heads, found = getattr(self.detector, "roi_heads", None), []
        for name in ("box_roi_pool", "mask_roi_pool", "keypoint_roi_pool"):
            pool = getattr(heads, name, None)
            if pool is not None:
                found.append(pool if isinstance(pool, PoolBySize) else PoolBySize(pool))
                setattr(heads, name, found[-1])
        return found

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Losses in training, else detections.

        Args:
            images: The pictures.
            targets: What is in them, as torchvision has it.

        Raises:
            ValueError: There are no pictures; targets are lacking in training, or do not fit; a box
                is empty.
        """
        if not len(images):
            raise ValueError("expected at least one picture")
        if self.training and targets is None:
            raise ValueError("training needs targets")
        if targets is not None:
            check_targets(targets, len(images))
        detector: Any = self.detector
        given = [(image.size(-2), image.size(-1)) for image in images]
        padded, found = detector.transform(list(images), None if targets is None else list(targets))
        sizes: list[Grid] = padded.image_sizes
        for i, target in enumerate(found or ()):
            if bool((target["boxes"][:, 2:] <= target["boxes"][:, :2]).any()):
                raise ValueError(f"picture {i} has a box without width or height")
        groups = [
            (own, padded.tensors[own, :, : size[0], : size[1]])
            for size, own in alike(sizes).items()
        ]
        features = [_levels(detector.backbone(pictures)) for _, pictures in groups]
        answer = self._two_stages if hasattr(detector, "rpn") else self._one_stage
        losses, detections = answer(groups, features, sizes, found)
        if self.training:
            return losses
        result: list[dict[str, Tensor]] = detector.transform.postprocess(detections, sizes, given)
        return result

    def _anchors(self, generator: Any, maps: Sequence[Tensor]) -> list[Tensor]:
        """The anchors of a picture, level by level."""
        if len(maps) != len(self.strides):
            raise ValueError(
                f"the backbone gives {len(maps)} levels, {len(self.strides)} when it was measured"
            )
        generator.set_cell_anchors(maps[0].dtype, maps[0].device)
        steps = [[torch.tensor(stride, device=maps[0].device)] * 2 for stride in self.strides]
        anchors: list[Tensor] = generator.grid_anchors([level.shape[2:] for level in maps], steps)
        return anchors

    def _two_stages(self, groups: Any, features: Any, sizes: Any, targets: Any) -> Any:
        """Regions are proposed and pooled size by size; their heads take all at once."""
        from torchvision.models.detection.image_list import ImageList
        from torchvision.models.detection.rpn import concat_box_prediction_layers

        detector: Any = self.detector
        rpn, proposals = detector.rpn, [None] * len(sizes)
        guesses: list[Any] = []
        for (own, pictures), levels in zip(groups, features, strict=True):
            maps = list(levels.values())
            logits, deltas = rpn.head(maps)
            counts = [level[0].numel() for level in logits]
            logits, deltas = concat_box_prediction_layers(logits, deltas)
            anchors = [torch.cat(self._anchors(rpn.anchor_generator, maps))] * len(own)
            boxes = rpn.box_coder.decode(deltas.detach(), anchors).view(len(own), -1, 4)
            images = ImageList(pictures, [sizes[i] for i in own])
            boxes, _ = rpn.filter_proposals(boxes, logits, images.image_sizes, counts)
            for i, box in zip(own, boxes, strict=True):
                proposals[i] = box
            guesses.append((own, logits, deltas, anchors))
        losses = {}
        if self.training:
            logits, deltas = (torch.cat([guess[k] for guess in guesses]) for k in (1, 2))
            places = [anchor for guess in guesses for anchor in guess[3]]
            wanted = [targets[i] for own, *_ in guesses for i in own]
            labels, matched = rpn.assign_targets_to_anchors(places, wanted)
            offsets = rpn.box_coder.encode(matched, places)
            names = "loss_objectness", "loss_rpn_box_reg"
            losses = dict(
                zip(names, rpn.compute_loss(logits, deltas, labels, offsets), strict=True)
            )
        self._pools()
        by_size = [(own, levels) for (own, _), levels in zip(groups, features, strict=True)]
        detections, of_regions = detector.roi_heads(by_size, proposals, sizes, targets)
        return losses | of_regions, detections

    def _one_stage(self, groups: Any, features: Any, sizes: Any, targets: Any) -> Any:
        """Heads answer size by size; in training, for the losses of all pictures together."""
        detector: Any = self.detector
        pictures: list[Any] = [None] * len(sizes)
        anchors: list[Any] = [None] * len(sizes)
        for (own, _), levels in zip(groups, features, strict=True):
            maps = list(levels.values())
            places = self._anchors(detector.anchor_generator, maps)
            counts = [len(level) for level in places]
            guesses = {
                name: guess.split(counts, dim=1) for name, guess in detector.head(maps).items()
            }
            for row, i in enumerate(own):
                pictures[i] = {
                    name: [level[row] for level in guess] for name, guess in guesses.items()
                }
                anchors[i] = places
        if self.training:
            return self._one_stage_losses(pictures, anchors, targets), []
        detections = []
        for guess, places, size in zip(pictures, anchors, sizes, strict=True):
            alone = {name: [level[None] for level in levels] for name, levels in guess.items()}
            detections += detector.postprocess_detections(alone, [places], [size])
        return {}, detections

    def _one_stage_losses(
        self, pictures: list[dict[str, list[Tensor]]], anchors: list[list[Tensor]], targets: Any
    ) -> dict[str, Tensor]:
        from torchvision.models.detection import FCOS

        losses: dict[str, Tensor]
        detector: Any = self.detector
        if not isinstance(detector, FCOS):  # its losses are worked out picture by picture
            guesses: Any = {
                name: [torch.cat(picture[name]) for picture in pictures] for name in pictures[0]
            }
            losses = detector.compute_loss(targets, guesses, [torch.cat(each) for each in anchors])
            return losses
        # FCOS divides by what all pictures hold, in one tensor: points are added that match no box,
        # as they are of no size, and that are so sure of it that they cost nothing.
        counts = [max(map(len, levels)) for levels in zip(*anchors, strict=True)]
        sure = {"cls_logits": -1e4}
        guesses = {
            name: torch.stack([_filled(p[name], counts, sure.get(name, 0.0)) for p in pictures])
            for name in pictures[0]
        }
        places = [_filled(levels, counts, 0.0) for levels in anchors]
        losses = detector.compute_loss(targets, guesses, places, counts)
        return losses


class PoolBySize(nn.Module):
    """What pools regions, for maps of several sizes.

    Args:
        pool: The pool of maps of one size.
    """

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Any, boxes: list[Tensor], sizes: list[Grid]) -> Tensor:
        """The regions' features, picture by picture.

        Args:
            maps: The levels' maps by their names; or the numbers of the pictures of each size, and
                their maps.
            boxes: Each picture's regions.
            sizes: The pictures' sizes.
        """
        if isinstance(maps, Mapping):
            alone: Tensor = self.pool(maps, boxes, sizes)
            return alone
        rows: list[Any] = [None] * len(boxes)
        for own, levels in maps:
            inside = [boxes[i] for i in own]
            pooled = self.pool(levels, inside, [sizes[i] for i in own])
            for i, part in zip(own, pooled.split([len(box) for box in inside]), strict=True):
                rows[i] = part
        return torch.cat(rows)


def check_targets(targets: Sequence[Mapping[str, Tensor]], count: int) -> None:
    """Check what is said of so many pictures, as far as it does not depend on the detector.

    Raises:
        ValueError: It is said of more or fewer, or boxes and labels do not fit.
    """
    if len(targets) != count:
        raise ValueError(f"expected the targets of {count} pictures, found {len(targets)}")
    for i, target in enumerate(targets):
        if missing := [name for name in ("boxes", "labels") if name not in target]:
            raise ValueError(f"the target of picture {i} has no {' and no '.join(missing)}")
        boxes, labels = target["boxes"], target["labels"]
        if boxes.dim() != 2 or boxes.size(1) != 4 or labels.shape != (len(boxes),):
            raise ValueError(
                f"picture {i} needs boxes [N, 4] and labels [N], found {list(boxes.shape)} and "
                f"{list(labels.shape)}"
            )


def _levels(features: Any) -> dict[str, Tensor]:
    """A backbone's maps by their names, as torchvision passes them on."""
    return {"0": features} if isinstance(features, Tensor) else dict(features)


def _filled(levels: Sequence[Tensor], counts: Sequence[int], value: float) -> Tensor:
    """A picture's rows of all levels, each level filled up to so many."""
    return torch.cat(
        [
            F.pad(level, (0, 0, 0, count - len(level)), value=value)
            for level, count in zip(levels, counts, strict=True)
        ]
    )
