"""What Stable-Baselines3 imports to load a zip of `potstill export --to sb3`: a NatureCNN of any widths."""

import gymnasium
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn

from potstill.networks import FramesConv, NetworkSpec, build


class PotstillCNN(BaseFeaturesExtractor):
    """Three convolutions and a layer, named as in NatureCNN; Stable-Baselines3 has scaled the frames already."""

    def __init__(self, observation_space: gymnasium.spaces.Box, convs: list[int], features_dim: int) -> None:
        super().__init__(observation_space, features_dim)
        spec = NetworkSpec("cnn", (convs[0], convs[1], convs[2]), (features_dim,))
        first, *layers = build(spec, observation_space.shape, 1).trunk
        assert isinstance(first, FramesConv)
        self.cnn, self.linear = nn.Sequential(first.divided(), *layers[:-2]), nn.Sequential(*layers[-2:])

    def forward(self, observations: Tensor) -> Tensor:
        return self.linear(self.cnn(observations))
