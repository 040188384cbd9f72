"""Checkpoints of the published implementation, in this library's terms."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_BLOCK = {
    "layer_scale_1": "scale1",
    "layer_scale_2": "scale2",
    "norm1.weight": "norm1.weight",
    "norm1.bias": "norm1.bias",
    "norm2.weight": "norm2.weight",
    "norm2.bias": "norm2.bias",
    "token_mixer.sim_alpha": "cluster.alpha",
    "token_mixer.sim_beta": "cluster.beta",
    "token_mixer.proj.weight": "cluster.proj.weight",
    "token_mixer.proj.bias": "cluster.proj.bias",
    "token_mixer.fc2.weight": "cluster.proj.weight",
    "token_mixer.fc2.bias": "cluster.proj.bias",
    "mlp.fc1.weight": "mlp.0.weight",
    "mlp.fc1.bias": "mlp.0.bias",
    "mlp.fc2.weight": "mlp.3.weight",
    "mlp.fc2.bias": "mlp.3.bias",
}
"""Entries of a block; of two names for one thing, the second is the older layout's."""

_HALVES = {"f": 0, "v": 1, "fc1": 0, "fc_v": 1}


def published_entries(
    checkpoint: Mapping[str, Any], own: Mapping[str, Tensor], *, ema: bool = False
) -> dict[str, Tensor]:
    """Turn a published image network's entries into those of this library's.

    Args:
        checkpoint: The entries, plain or wrapped.
        own: The network's own entries, which say what there must be.
        ema: Take the averaged weights.

    Raises:
        ValueError: An entry is left over, missing or of another shape.
    """
    entries, unknown = _translated(unwrapped(checkpoint, ema=ema), _renamed)
    return fitted(entries, own, unknown)


OTHER_PARTS = ("neck.", "decode_head.", "auxiliary_head.", "rpn_head.", "roi_head.", "bbox_head.")
"""What the entries of the rest of a published segmentation or detection network begin with."""


def published_backbone(
    checkpoint: Mapping[str, Any], own: Mapping[str, Tensor], *, ema: bool = False
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Turn the entries of a published classifier into those of a pyramid of features.

    The classifier, its norm and the table of positions of older checkpoints are left out, as is the
    rest of a network of segmentation or detection; norms of stages may be missing.

    Args:
        checkpoint: The entries, plain or wrapped, with the prefix `backbone.` or without.
        own: The pyramid's own entries, which say what there must be.
        ema: Take the averaged weights.

    Returns:
        All entries of the pyramid, what was left out, and what is new, by their names.

    Raises:
        ValueError: Another entry is left over, missing or of another shape.
    """
    found = unwrapped(checkpoint, ema=ema)
    left_out = []
    if any(key.startswith("backbone.") for key in found):
        left_out = [key for key in found if key.startswith(OTHER_PARTS)]
        found = {k.removeprefix("backbone."): v for k, v in found.items() if k not in left_out}
    unused = [key for key in found if re.fullmatch(r"(norm|head)\.(weight|bias)|fea_pos", key)]
    # Norms that the checkpoint has for stages that the pyramid does not answer with.
    of_stages = [key for key in found if re.fullmatch(r"norm[0246]\.(weight|bias)", key)]
    unused += [key for key in of_stages if _renamed(key) not in own]
    found = {key: value for key, value in found.items() if key not in unused}
    entries, unknown = _translated(found, _renamed)
    fresh = [key for key in own if key.startswith("norms.") and key not in entries]
    wanted = {key: value for key, value in own.items() if key not in fresh}
    entries = fitted(entries, wanted, unknown)
    return entries | {key: own[key] for key in fresh}, [*left_out, *unused], fresh


def published_cloud_entries(
    checkpoint: Mapping[str, Any], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Turn the entries of the published network of 3D clouds into those of this library's.

    Args:
        checkpoint: The entries, plain or wrapped.
        own: The network's own entries, which say what there must be.

    Raises:
        ValueError: An entry is left over, missing or of another shape.
    """
    # The published classifier is one sequence; its last map is the head.
    last = max((int(key.split(".")[1]) for key in own if key.startswith("neck.")), default=-1)

    def renamed(key: str) -> str | tuple[str, int] | None:
        if match := re.fullmatch(r"classifier\.(\d+)\.(\w+)", key):
            number = int(match[1])
            return f"neck.{number}.{match[2]}" if number <= last else f"head.{match[2]}"
        return _cloud_name(key)

    found = {
        key: value.flatten() if "affine" in key else value
        for key, value in unwrapped(checkpoint).items()
    }
    entries, unknown = _translated(found, renamed)
    return fitted(entries, own, unknown)


def unwrapped(checkpoint: Mapping[str, Any], *, ema: bool = False) -> dict[str, Tensor]:
    """The entries of a checkpoint file: out of `state_dict`, `model` or `net`, without `module.`.

    Raises:
        ValueError: There are none, or no averaged ones.
    """
    found: Any = checkpoint
    if ema and "state_dict_ema" not in found:
        raise ValueError("the checkpoint holds no averaged weights (state_dict_ema)")
    for key in ("state_dict_ema",) if ema else ("state_dict", "model", "net", "state_dict_ema"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found:
        raise ValueError("the checkpoint holds no entries")
    wrong = [key for key, value in found.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(f"the checkpoint's entry {wrong[0]!r} is no tensor")
    return {str(key).removeprefix("module."): value for key, value in found.items()}


def fitted(
    entries: Mapping[str, Tensor], own: Mapping[str, Tensor], unknown: list[str]
) -> dict[str, Tensor]:
    """Entries in the network's own dtypes, if they are those that there must be.

    Args:
        entries: By the network's names.
        own: The network's own entries.
        unknown: Names of entries that have no counterpart.

    Raises:
        ValueError: An entry is left over, missing or of another shape.
    """
    problems = [f"{key} is not known" for key in unknown]
    problems += [f"{key} is missing" for key in own if key not in entries]
    problems += [f"{key} does not belong to this network" for key in entries if key not in own]
    for key, value in entries.items():
        if key in own and value.shape != own[key].shape:
            problems.append(f"{key} has shape {list(value.shape)}, expected {list(own[key].shape)}")
    if problems:
        classes = [p for p in problems if p.startswith("head.weight has")]
        hint = (
            ": the checkpoint has another number of classes; build the network with that number, "
            "load, then call reset_classifier()."
            if classes and all(p.startswith("head.") for p in problems)
            else ": is it a checkpoint of this very network?"
        )
        raise ValueError(
            f"{len(problems)} entries do not fit{hint} First: " + "; ".join(problems[:3])
        )
    return {key: entries[key].to(own[key].dtype) for key in own}


def _translated(
    found: Mapping[str, Tensor], renamed: Callable[[str], str | tuple[str, int] | None]
) -> tuple[dict[str, Tensor], list[str]]:
    """Entries by this library's names, and the names of those that it does not know.

    What `renamed` gives a number, too, is one half of two that are one map here.
    """
    entries: dict[str, Tensor] = {}
    halves: dict[str, dict[int, Tensor]] = {}
    unknown = []
    for key, value in found.items():
        match renamed(key):
            case None:
                unknown.append(key)
            case (name, half):
                halves.setdefault(name, {})[half] = _as_map(value)
            case name:
                entries[name] = _as_map(value)
    for name, parts in halves.items():
        if len(parts) == 2:
            entries[name] = torch.cat([parts[0], parts[1]])
    return entries, unknown


def _as_map(value: Tensor) -> Tensor:
    """A convolution's weight as a linear map's: square by square, row by row, then channels."""
    if value.dim() == 4:
        return value.permute(0, 2, 3, 1).flatten(1)
    return value.squeeze(2) if value.dim() == 3 and value.size(2) == 1 else value


def _renamed(key: str) -> str | tuple[str, int] | None:
    if key in ("norm.weight", "norm.bias", "head.weight", "head.bias"):
        return key
    if match := re.fullmatch(r"norm([0246])\.(weight|bias)", key):
        return f"norms.{int(match[1]) // 2}.{match[2]}"
    if match := re.fullmatch(r"patch_embed\.proj\.(weight|bias)", key):
        return f"reducers.0.linear.{match[1]}"
    if match := re.fullmatch(r"network\.([135])\.proj\.(weight|bias)", key):
        return f"reducers.{(int(match[1]) + 1) // 2}.linear.{match[2]}"
    if match := re.fullmatch(r"network\.([0246])\.(\d+)\.(.+)", key):
        block = f"stages.{int(match[1]) // 2}.{match[2]}."
        if half := re.fullmatch(r"token_mixer\.(f|v|fc1|fc_v)\.(weight|bias)", match[3]):
            return block + f"cluster.fv.{half[2]}", _HALVES[half[1]]
        if match[3] in _BLOCK:
            return block + _BLOCK[match[3]]
    return None


_NET = {"0": "linear", "1": "norm"}
_CLUSTER = {
    "sim_alpha": "alpha",
    "sim_beta": "beta",
    "fc2.weight": "proj.weight",
    "fc2.bias": "proj.bias",
}


def _cloud_name(key: str) -> str | tuple[str, int] | None:
    """The name in the network of 3D clouds, but for its head's and neck's."""
    if match := re.fullmatch(r"embedding\.net\.([01])\.(\w+)", key):
        return f"embedding.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"local_grouper_list\.(\d+)\.affine_(alpha|beta)", key):
        return f"encoders.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"pre_blocks_list\.(\d+)\.transfer\.net\.([01])\.(\w+)", key):
        return f"encoders.{match[1]}.{_NET[match[2]]}.{match[3]}"
    mlp = r"net([12])\.([01])\.(\w+)"
    if match := re.fullmatch(r"pos_blocks_list\.(\d+)\.operation\.(\d+)\." + mlp, key):
        return f"stages.{match[1]}.{match[2]}.{_NET[match[4]]}{match[3]}.{match[5]}"
    if match := re.fullmatch(r"pre_blocks_list\.(\d+)\.operation\.(\d+)\.(.+)", key):
        stage, number, rest = match[1], int(match[2]), match[3]
        if number % 2:  # context clusters and MLPs take turns
            if match := re.fullmatch(mlp, rest):
                return f"encoders.{stage}.mlps.{number // 2}.{_NET[match[2]]}{match[1]}.{match[3]}"
            return None
        cluster = f"encoders.{stage}.clusters.{number // 2}."
        if half := re.fullmatch(r"(fc1|fc_v)\.(weight|bias)", rest):
            return f"{cluster}fv.{half[2]}", _HALVES[half[1]]
        if rest in _CLUSTER:
            return cluster + _CLUSTER[rest]
    return None
