"""The heads of CUT's contrastive loss: Park et al. 2020, after the authors' code."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gansuite.losses.precision import full
from gansuite.networks.layers import init_xavier_


class PatchProjections(nn.Module):
    """Maps [N, C, H, W] at chosen places -> unit vectors [N, P, width], for each of several maps.

    ``channels``: C of each map, by name. Each has a perceptron of its own: linear, ReLU, linear,
    then division by the length plus 1e-7. Xavier normal weights with gain .02, biases 0.
    """

    def __init__(self, channels: Mapping[str, int], width: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(c, width), nn.ReLU(), nn.Linear(width, width))
                for name, c in channels.items()
            }
        )
        init_xavier_(self)

    def forward(self, maps: Mapping[str, Tensor], places: Mapping[str, Tensor]) -> list[Tensor]:
        """``places``: for each map, P indices into its H * W pixels."""
        found = []
        for name, head in self.heads.items():
            pixels = maps[name].flatten(2).index_select(2, places[name])
            x = full(head(pixels.transpose(1, 2)))
            found.append(x / (x.norm(dim=2, keepdim=True) + 1e-7))
        return found
