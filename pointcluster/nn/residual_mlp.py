"""Two linear maps, normalised over the batch, around which a point's features go."""

from __future__ import annotations

from torch import Tensor, nn

from pointcluster.geometry.check import check_positive
from pointcluster.nn.batch_norm import BatchNorm, normed_linear


class ResidualMLP(nn.Module):
    r"""An MLP of every point by itself, added to what came in.

    $$ y = \operatorname{relu}\big(x + \operatorname{norm}_2(W_2 \operatorname{relu}(
       \operatorname{norm}_1(W_1 x)))\big) $$

    with batch normalisation. From "PointMLP", Ma et al., ICLR 2022,
    <https://arxiv.org/abs/2202.07123>.

    Args:
        channels: Channels of input and output C.
        hidden: Channels in between; C if not said.

    Shapes:
        - **x:** $(N, C)$
        - **output:** $(N, C)$
    """

    def __init__(self, channels: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = channels if hidden is None else hidden
        check_positive("channels", channels)
        check_positive("hidden", hidden)
        self.linear1 = nn.Linear(channels, hidden, bias=False)
        self.norm1 = BatchNorm(hidden)
        self.linear2 = nn.Linear(hidden, channels, bias=False)
        self.norm2 = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP to each point."""
        y = normed_linear(x, self.linear1, self.norm1).relu_()
        return normed_linear(y, self.linear2, self.norm2).add_(x).relu_()
