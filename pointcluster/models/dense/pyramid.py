"""A pyramid of context clusters as the backbone of torchvision's detectors, and its neck."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pointcluster._optional import installed_by
from pointcluster.models.coc import CoC


class PyramidBackbone(nn.Module):
    """A network's features with a feature pyramid on top, as torchvision's detectors take it.

    From "Feature Pyramid Networks for Object Detection", Lin et al., CVPR 2017,
    <https://arxiv.org/abs/1612.03144>.

    Args:
        body: A network of features only; its stages are the levels.
        channels: Channels of all levels.
        extra: What comes after the last level: `"pool"`, every second point of it, for
            `FasterRCNN` and `MaskRCNN`; `"p6p7"`, two convolutions, for `RetinaNet` and `FCOS`,
            whose first level is usually that of stride 8 (`out_indices=(1, 2, 3)`); `None`.

    Shapes:
        - **input:** $(B, 3, H, W)$
        - **output:** maps $(B, \\text{channels}, H_s, W_s)$ by their names `"0"`, `"1"`, ...

    Raises:
        ValueError: The network answers with classes, or `extra` is another.
    """

    def __init__(self, body: CoC, channels: int = 256, extra: str | None = "pool") -> None:
        super().__init__()
        with installed_by("image"):
            from torchvision.ops import feature_pyramid_network as parts
        self.body, self.out_channels = body, channels
        widths = check_pyramid(body)
        blocks: dict[str | None, Any] = {
            "pool": parts.LastLevelMaxPool,
            "p6p7": lambda: parts.LastLevelP6P7(channels, channels),
            None: lambda: None,
        }
        if extra not in blocks:
            raise ValueError(f"extra must be 'pool', 'p6p7' or None, found {extra!r}")
        self.fpn = parts.FeaturePyramidNetwork(widths, channels, extra_blocks=blocks[extra]())

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """The levels' maps, the finest first."""
        maps = self.body(pictures)
        levels: dict[str, Tensor] = self.fpn({str(s): level for s, level in enumerate(maps)})
        return levels


def check_pyramid(body: CoC) -> list[int]:
    """Channels of the stages that a network of features answers with.

    Raises:
        ValueError: It answers with classes.
    """
    if not body.features_only:
        raise ValueError("expected a network of features: create_model(..., features_only=True)")
    info = [body.feature_info[s] for s in body.out_indices]
    return [stage["num_chs"] for stage in info]


def pyramid_of(backbone: str | CoC, **options: Any) -> CoC:
    """A network of features by its name, or the one that is given.

    Raises:
        TypeError: A network is given and options besides.
        ValueError: There is no such network of pictures.
    """
    from pointcluster.models.factory import create_model, list_models

    if isinstance(backbone, CoC):
        if options:
            raise TypeError(f"a network that is given takes no {', '.join(options)}")
        return backbone
    if backbone not in list_models("coc_*"):
        raise ValueError(f"there is no network of pictures {backbone!r}: see list_models('coc_*')")
    body = create_model(backbone, features_only=True, **options)
    assert isinstance(body, CoC)
    return body
