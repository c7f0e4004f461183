"""The library's diffusion policy written in PyTorch: same network, same initial spread of weights,
same schedule, loss and clipping, so that the two frameworks can be compared."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn

from exporl.data.episodes import Normalizer
from exporl.ops.generative import vp_schedule
from exporl.policies import BaseConfig
from exporl.spec import Spec

EXPANSION = 4
"""Width within a residual block, in widths of the network."""
TRUNCATED = 0.87962566
"""Standard deviation of a standard normal distribution cut off at -2 and 2."""


class Block(nn.Module):
    """x + dense(swish(dense(norm(x))))."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, EXPANSION * width)
        self.contract = nn.Linear(EXPANSION * width, width)
        for layer in (self.expand, self.contract):
            spread = 1 / math.sqrt(layer.in_features) / TRUNCATED
            nn.init.trunc_normal_(layer.weight, std=spread, a=-2 * spread, b=2 * spread)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., width] -> the same."""
        return x + self.contract(nn.functional.silu(self.expand(self.norm(x))))


class Denoiser(nn.Module):
    """(features, noisy actions, time) -> the noise in them: `exporl.nets.denoiser.Denoiser`."""

    def __init__(self, features: int, size: int, config: BaseConfig):
        super().__init__()
        condition = 2 * config.time_dim
        self.frequencies = nn.Parameter(0.2 * torch.randn(config.time_dim // 2, 1))
        self.time_hidden = nn.Linear(config.time_dim, condition)
        self.time_out = nn.Linear(condition, condition)
        self.input = nn.Linear(size + features + condition, config.width)
        self.blocks = nn.ModuleList(Block(config.width) for _ in range(config.num_blocks))
        self.output = nn.Linear(config.width, size)
        for layer in (self.time_hidden, self.time_out, self.input, self.output):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (each for each in self.modules() if isinstance(each, nn.Linear)):
            nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        """Features [b, f], noisy actions [b, s], time [b, 1] -> [b, s]."""
        angle = 2 * math.pi * time @ self.frequencies.T
        waves = torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)
        condition = self.time_out(nn.functional.silu(self.time_hidden(waves)))
        out = self.input(torch.cat([x, features, condition], dim=-1))
        for block in self.blocks:
            out = block(out)
        return self.output(nn.functional.silu(out))


class Diffusion(nn.Module):
    """DDPM as `exporl.policies.diffusion` has it, of observations in the task's units."""

    def __init__(self, spec: Spec, config: BaseConfig, normalizer: Normalizer):
        """Weights are drawn from torch's global generator.

        Args:
            spec: the task's shapes and the run's chunks.
            config: sizes, steps and the optimiser's numbers.
            normalizer: statistics of the demonstrations.
        """
        super().__init__()
        self.config, self.shape = config, (spec.chunk_length, spec.action_dim)
        self.names, self.clip = sorted(normalizer.mean), normalizer.clip
        schedule = vp_schedule(config.num_steps)
        for name in self.names:
            self.register_buffer(f"mean_{name}", torch.from_numpy(normalizer.mean[name]))
            self.register_buffer(f"std_{name}", torch.from_numpy(normalizer.std[name]))
        for name, values in schedule._asdict().items():
            self.register_buffer(name, torch.from_numpy(values))
        features = sum(len(normalizer.mean[name]) for name in self.names)
        self.net = Denoiser(features, self.shape[0] * self.shape[1], config)

    def features(self, observations: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Normalised entries side by side: [b, f]."""
        scaled = [
            (observations[name] - getattr(self, f"mean_{name}")) / getattr(self, f"std_{name}")
            for name in self.names
        ]
        return torch.cat(scaled, dim=-1).clamp(-self.clip, self.clip)

    def sample(self, observations: Mapping[str, torch.Tensor], num: int) -> torch.Tensor:
        """Ancestral sampling, clipped after every step: [b, num, h, a]."""
        features = self.features(observations).repeat_interleave(num, dim=0)
        noise = torch.randn(self.config.num_steps, len(features), self.shape[0] * self.shape[1])
        return self.decode(features, noise).unflatten(-1, self.shape).unflatten(0, (-1, num))

    def decode(self, features: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Features [b, f], noise [k, b, s] -> actions [b, s]."""
        x, last = noise[0], self.config.num_steps - 1
        for step in range(last, -1, -1):
            time = torch.full_like(features[:, :1], step)
            shrink = (1 - self.alphas[step]) / torch.sqrt(1 - self.alpha_hats[step])
            x = (x - shrink * self.net(features, x, time)) / torch.sqrt(self.alphas[step])
            if step > 0:
                x = x + torch.sqrt(self.betas[step]) * noise[last - step + 1]
            x = x.clamp(-1, 1)
        return x

    def loss(
        self, observations: Mapping[str, torch.Tensor], action: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """Squared error of the predicted noise, summed over dimensions, mean over valid actions."""
        noise, time = torch.randn_like(action), torch.randint(self.config.num_steps, (len(action),))
        signal = self.alpha_hats[time][:, None, None]
        noisy = torch.sqrt(signal) * action + torch.sqrt(1 - signal) * noise
        predicted = self.net(self.features(observations), noisy.flatten(1), time[:, None].float())
        error = (predicted.unflatten(-1, self.shape) - noise).square().sum(-1)
        return (error * valid).sum() / valid.sum().clamp(min=1)

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW with the numbers of the library's."""
        rate, decay = self.config.learning_rate, self.config.weight_decay
        return torch.optim.AdamW(self.net.parameters(), lr=rate, weight_decay=decay)

    def take(self, params: Any) -> None:
        """Copies the parameters of the library's own base policy.

        Raises:
            KeyError, ValueError: they are of another network.
        """
        arrays = flatten_dict(params["params"], sep="/")
        with torch.no_grad():
            for name, tensor in self.net.named_parameters():
                place = name.replace("blocks.", "blocks_").replace(".", "/")
                dense = place.endswith("/weight") and "norm" not in place
                place = place.replace("weight", "kernel" if dense else "scale")
                array = np.array(arrays.pop(place))
                tensor.copy_(torch.from_numpy(array.T if dense else array))
        if arrays:
            raise ValueError(f"these parameters have no place: {', '.join(arrays)}.")
