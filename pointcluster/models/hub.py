"""Networks on the Hugging Face Hub, or in a folder of its form: config.json, model.safetensors."""

from __future__ import annotations

from typing import Any

from pointcluster.models import coc, point_coc, pointmlp_coc
from pointcluster.models.coc import CoC
from pointcluster.models.point_coc import PointCoC
from pointcluster.models.pointmlp_coc import PointMLPCoC

try:
    from huggingface_hub import ModelCard, PyTorchModelHubMixin
except ImportError as error:
    raise ImportError(
        "pointcluster.models.hub needs huggingface_hub: pip install 'pointcluster[hub]'"
    ) from error


class _Strict(
    PyTorchModelHubMixin,
    library_name="pointcluster",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2303.01494",
):
    """What the networks' classes share: weights must fit, entry for entry."""

    @classmethod
    def of(cls, model: Any) -> Any:
        """The same network with the same weights and the methods of the Hub.

        Args:
            model: A network made by :func:`create_model`.

        Raises:
            TypeError: It is of another class.
        """
        if not issubclass(cls, type(model)):
            raise TypeError(f"{cls.__name__}.of() takes no {type(model).__name__}")
        found: Any = cls(**model.config)
        first = next(model.parameters())
        found.to(first.device, first.dtype).load_state_dict(model.state_dict())
        return found.train(model.training)

    def generate_model_card(self, **about: Any) -> ModelCard:
        """The page that stands beside the weights; written here, as templates need jinja2.

        Args:
            about: Further texts, each under its name as a heading.
        """
        config: Any = self._hub_mixin_config
        lines = ["---", self._hub_mixin_info.model_card_data.to_yaml(), "---", ""]
        lines += [
            f"# {config['name']}",
            "",
            "A network of context clusters, by `pointcluster`:",
            "",
        ]
        lines += ["```python", f"from pointcluster.models.hub import {type(self).__name__}", ""]
        lines += [f"model = {type(self).__name__}.from_pretrained(...)", "```", ""]
        for name, text in about.items():
            lines += [f"## {name}", "", str(text), ""]
        return ModelCard("\n".join(lines))

    @classmethod
    def _load_as_safetensor(
        cls, model: Any, model_file: str, map_location: str, strict: bool
    ) -> Any:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(model_file, device=map_location)
            dtype = next(value.dtype for value in state.values() if value.is_floating_point())
            model.to(map_location, dtype).load_state_dict(state)
        except (SafetensorError, RuntimeError, StopIteration) as error:
            raise ValueError(f"{model_file} does not hold the network: {error}") from error
        return model.eval()


class HubCoC(CoC, _Strict):
    """A network of pictures with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    Args:
        name: One of this library's networks of pictures.
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels of the pictures.
        options: Further arguments of :class:`CoC`, instead of its size's own.

    Raises:
        ValueError: There is no network of that name.
        TypeError: An option is unknown to the network.
    """

    def __init__(
        self, name: str, *, num_classes: int = 1000, in_channels: int = 3, **options: Any
    ) -> None:
        size = _size(name, coc.SIZES)
        super().__init__(num_classes, in_channels, **(size | options))
        self.config = {"name": name, "num_classes": num_classes, "in_channels": in_channels}
        self.config |= options
        self._hub_mixin_config = self.config  # one dictionary: reset_classifier() changes both


class HubPointCoC(PointCoC, _Strict):
    """A network of point clouds with `save_pretrained`, `from_pretrained` and `push_to_hub`.

    Args:
        name: One of this library's networks of point clouds.
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels that come with the positions.
        options: Further arguments of :class:`PointCoC`, instead of its size's own.

    Raises:
        ValueError: There is no network of that name.
        TypeError: An option is unknown to the network.
    """

    def __init__(
        self, name: str, *, num_classes: int = 40, in_channels: int = 0, **options: Any
    ) -> None:
        size = _size(name, point_coc.SIZES)
        super().__init__(num_classes, in_channels, **(size | options))
        self.config = {"name": name, "num_classes": num_classes, "in_channels": in_channels}
        self.config |= options
        self._hub_mixin_config = self.config


class HubPointMLPCoC(PointMLPCoC, _Strict):
    """The paper's network of clouds with `save_pretrained`, `from_pretrained`, `push_to_hub`.

    Args:
        name: `"pointmlp_coc"`.
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels that come with the positions.
        options: Further arguments of :class:`PointMLPCoC`, instead of its size's own.

    Raises:
        ValueError: There is no network of that name.
        TypeError: An option is unknown to the network.
    """

    def __init__(
        self, name: str, *, num_classes: int = 40, in_channels: int = 0, **options: Any
    ) -> None:
        size = _size(name, pointmlp_coc.SIZES)
        super().__init__(num_classes, in_channels, **(size | options))
        self.config = {"name": name, "num_classes": num_classes, "in_channels": in_channels}
        self.config |= options
        self._hub_mixin_config = self.config


def _size(name: str, sizes: dict[str, Any]) -> dict[str, Any]:
    if name not in sizes:
        raise ValueError(f"there is no network {name!r} here: choose one of {', '.join(sizes)}")
    return sizes[name]._asdict()
