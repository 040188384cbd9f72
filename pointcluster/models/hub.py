"""Networks on the Hugging Face Hub, or in a folder of its form: config.json, model.safetensors."""

from __future__ import annotations

from typing import Any

from pointcluster.models.base import Network
from pointcluster.models.coc import CoC
from pointcluster.models.factory import NETWORKS
from pointcluster.models.point_coc import PointCoC
from pointcluster.models.pointmlp_coc import PointMLPCoC

try:
    from huggingface_hub import ModelCard, PyTorchModelHubMixin
except ImportError as error:
    raise ImportError(
        "pointcluster.models.hub needs huggingface_hub: pip install 'pointcluster[hub]'"
    ) from error


class HubNetwork(
    PyTorchModelHubMixin,
    Network,
    library_name="pointcluster",
    license="apache-2.0",
    paper_url="https://arxiv.org/abs/2303.01494",
):
    """A network with `save_pretrained`, `from_pretrained` and `push_to_hub`; weights must fit.

    Args:
        name: One of this library's networks of the class.
        num_classes: Number of classes; 0 leaves the classifier out.
        in_channels: Channels of the input's features.
        options: Further arguments of the class, instead of its size's own.

    Raises:
        ValueError: There is no network of that name.
        TypeError: An option is unknown to the network.
    """

    def __init__(
        self,
        name: str,
        *,
        num_classes: int | None = None,
        in_channels: int | None = None,
        **options: Any,
    ) -> None:
        known = [key for key, (kind, _) in NETWORKS.items() if isinstance(self, kind)]
        if name not in known:
            raise ValueError(f"there is no network {name!r} here: choose one of {', '.join(known)}")
        channels = {"num_classes": num_classes, "in_channels": in_channels}
        given = {key: value for key, value in channels.items() if value is not None}
        super().__init__(**(NETWORKS[name][1] | options | given))
        self.config = {
            "name": name, "num_classes": self.num_classes, "in_channels": self.in_channels,
            **options,
        }  # fmt: skip
        self._hub_mixin_config = self.config  # one dictionary: reset_classifier() changes both

    @classmethod
    def of(cls, model: Network) -> Any:
        """The same network with the same weights and the methods of the Hub.

        Args:
            model: A network made by :func:`create_model`.

        Raises:
            TypeError: It is of another class.
        """
        if not issubclass(cls, type(model)):
            raise TypeError(f"{cls.__name__}.of() takes no {type(model).__name__}")
        network: Any = cls(**model.config)
        first = next(model.parameters())
        network.to(first.device, first.dtype).load_state_dict(model.state_dict())
        return network.train(model.training)

    def generate_model_card(self, **about: Any) -> ModelCard:
        """The page that stands beside the weights; written here, as templates need jinja2.

        Args:
            about: Further texts, each under its name as a heading.
        """
        kind, data = type(self).__name__, self._hub_mixin_info.model_card_data
        lines = [
            f"---\n{data.to_yaml()}\n---\n",
            f"# {self.config['name']}\n",
            "A network of context clusters, by `pointcluster`:\n",
            f"```python\nfrom pointcluster.models.hub import {kind}\n",
            f"model = {kind}.from_pretrained(...)\n```\n",
        ]
        lines += [f"## {name}\n\n{text}\n" for name, text in about.items()]
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


class HubCoC(HubNetwork, CoC):
    """A network of pictures on the Hub."""


class HubPointCoC(HubNetwork, PointCoC):
    """A network of point clouds on the Hub."""


class HubPointMLPCoC(HubNetwork, PointMLPCoC):
    """The paper's network of point clouds on the Hub."""
