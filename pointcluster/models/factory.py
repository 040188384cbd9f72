"""Networks by their names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from pointcluster.models import coc, point_coc, pointmlp_coc
from pointcluster.models.coc import CoC
from pointcluster.models.point_coc import PointCoC
from pointcluster.models.pointmlp_coc import PointMLPCoC


def list_models(pattern: str = "*") -> list[str]:
    """The names that :func:`create_model` takes, or those of a pattern such as `"coc_*"`."""
    names = [*coc.SIZES, *point_coc.SIZES, *pointmlp_coc.SIZES]
    return sorted(name for name in names if fnmatchcase(name, pattern))


def create_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_channels: int | None = None,
    pretrained: str | bool | None = None,
    **options: Any,
) -> PointCoC | PointMLPCoC | CoC:
    """Build a network.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of classes; 0 leaves the classifier out. 1,000 for pictures, 40 for
            clouds, if not said; with weights, as many as they know.
        in_channels: Channels of the pictures (3, if not said), or of the features that come with
            the positions of clouds (none).
        pretrained: Weights that come with the package, by the data they were trained on, such as
            `"home_objects"`; `True` takes what there is. The network is in evaluation mode then,
            and its classifier a new one where `num_classes` is not that of the weights.
        options: Further arguments of the network's class, instead of its size's own.

    Raises:
        ValueError: There is no network, or there are no weights, of that name.
        TypeError: An option is unknown to the network.
    """
    if pretrained:
        from pointcluster.models.pretrained import pretrained_model

        given = {"num_classes": num_classes, "in_channels": in_channels}
        found: PointCoC | PointMLPCoC | CoC = pretrained_model(name, pretrained, **given, **options)
        return found
    model: PointCoC | PointMLPCoC | CoC
    if name in coc.SIZES:
        num_classes = 1000 if num_classes is None else num_classes
        in_channels = 3 if in_channels is None else in_channels
        model = CoC(num_classes, in_channels, **(coc.SIZES[name]._asdict() | options))
    elif name in point_coc.SIZES:
        num_classes = 40 if num_classes is None else num_classes
        in_channels = in_channels or 0
        model = PointCoC(num_classes, in_channels, **(point_coc.SIZES[name]._asdict() | options))
    elif name in pointmlp_coc.SIZES:
        num_classes = 40 if num_classes is None else num_classes
        in_channels = in_channels or 0
        size = pointmlp_coc.SIZES[name]._asdict()
        model = PointMLPCoC(num_classes, in_channels, **(size | options))
    else:
        known = ", ".join(list_models())
        raise ValueError(f"there is no network {name!r}: choose one of {known}")
    model.config = {"name": name, "num_classes": num_classes, "in_channels": in_channels, **options}
    return model
