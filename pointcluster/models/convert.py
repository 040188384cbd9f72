"""Turn a published image network's checkpoint into one of this library: a program and a function.

python -m pointcluster.models.convert published.pth.tar out.safetensors [--model NAME] [--ema]
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pointcluster.models.coc import CoC
from pointcluster.models.factory import create_model, list_models
from pointcluster.models.files import read_safely, save_model
from pointcluster.models.published import published_entries, unwrapped


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    name: str | None = None,
    ema: bool = False,
) -> CoC:
    """Write a published checkpoint as :func:`load_model` reads it.

    Args:
        source: The published file.
        target: Where to, with `.safetensors` or without; a `.json` comes beside it.
        name: The network; if not said, the one whose entries have the file's names and shapes.
        ema: Take the averaged weights.

    Returns:
        The network, with the weights.

    Raises:
        FileNotFoundError: The file is not there.
        ValueError: It is damaged, would run code, or does not fit one network.
    """
    checkpoint = read_safely(source)
    try:
        entries = unwrapped(checkpoint, ema=ema)
        config = _config(entries, name)
        model = create_model(**config)
        assert isinstance(model, CoC)
        model.load_published(entries)
    except (IndexError, ValueError) as error:
        raise ValueError(f"{source}: {error}") from error
    save_model(target, model, {"converted_from": Path(source).name, "ema": ema})
    return model.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(
        prog="python -m pointcluster.models.convert",
        description="Turn a published image network's checkpoint into one of this library.",
    )
    parser.add_argument("source", help="the published file, such as coc_tiny.pth.tar")
    parser.add_argument("target", help="what to write: .safetensors, and .json beside it")
    names = list_models("coc_*")
    parser.add_argument(
        "--model",
        choices=names,
        metavar="NAME",
        help=f"the network, where its entries' shapes do not tell it: {', '.join(names)}",
    )
    parser.add_argument("--ema", action="store_true", help="take the averaged weights")
    options = parser.parse_args(arguments)
    try:
        model = convert(options.source, options.target, name=options.model, ema=options.ema)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    kind = f"{model.num_classes} classes" if not model.features_only else "features only"
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{model.config['name']}, {kind}, {count:,} parameters: {options.target}")


def _config(entries: Mapping[str, Tensor], name: str | None) -> dict[str, Any]:
    """What `create_model` makes the network from; its name is told by the entries, if not said."""
    config: dict[str, Any] = {"num_classes": 0, "in_channels": 3}
    if (head := entries.get("head.weight")) is not None and head.dim() == 2:
        config["num_classes"] = len(head)
    if (first := entries.get("patch_embed.proj.weight")) is not None and first.dim() == 4:
        config["in_channels"] = max(1, first.size(1) - 2)
    stages = sorted(
        int(match[1]) // 2 for key in entries if (match := re.fullmatch(r"norm([0246])\.bias", key))
    )
    if stages:
        config |= {"features_only": True, "out_indices": stages}
    if name is not None:
        return {"name": name, **config}
    fitting, problems = [], {}
    for each in list_models("coc_*"):
        try:
            with torch.device("meta"):  # shapes, no memory
                own = create_model(each, **config).state_dict()
            published_entries(entries, own)
            fitting.append(each)
        except (IndexError, ValueError) as error:  # it has fewer stages, or other entries
            problems[each] = str(error)
    if not stages and len(fitting) > 1:  # more centres are for pyramids alone
        fitting = [each for each in fitting if "_feat" not in each]
    if len(fitting) > 1:
        raise ValueError(
            f"its entries are those of {', '.join(fitting)} alike, which cut a picture "
            "differently: say which it is with --model"
        )
    if not fitting:
        known = ", ".join(problems)
        raise ValueError(f"it fits none of {known}. As coc_tiny: {problems['coc_tiny']}")
    return {"name": fitting[0], **config}


if __name__ == "__main__":
    main()
