"""A PyTorch policy as base policy: a flow that imitates the demonstrations, and goes on learning
while EXPO edits and ranks its samples. A policy that you have needs `sample` alone.

From this folder: python torch_policy.py. Also `exporl train expo --task probe/bandit --preset tiny
--base torch:torch_policy:load`.
"""

from pathlib import Path

import torch

import exporl


class Flow(torch.nn.Module):
    """Noise follows the velocity that `net` says for 8 steps; it becomes an action."""

    def __init__(self, spec):
        super().__init__()
        self.shape, features = (spec.chunk_length, spec.action_dim), spec.observation[0][1][0]
        size = spec.chunk_length * spec.action_dim
        layers = torch.nn.Linear(features + size + 1, 64), torch.nn.ELU(), torch.nn.Linear(64, size)
        self.net = torch.nn.Sequential(*layers)

    def sample(self, observations, num):
        """Entries [b, ...] -> [b, num, h, a]. Draws are seeded by exporl."""
        seen = observations["state"][:, None].expand(-1, num, -1)
        x = torch.randn(*seen.shape[:2], self.shape[0] * self.shape[1])
        for step in range(8):
            x = x + self.net(torch.cat([seen, x, torch.full_like(x[..., :1], step / 8)], -1)) / 8
        return x.clamp(-1, 1).unflatten(-1, self.shape)

    def loss(self, observations, action, valid):
        """Flow matching on actions [b, h, a]; valid [b, h] is 0 where none is to be imitated."""
        goal, rows = action.flatten(1), valid.amax(1)
        noise, t = torch.randn_like(goal), torch.rand(len(goal), 1)
        velocity = self.net(torch.cat([observations["state"], noise + t * (goal - noise), t], -1))
        return ((velocity - (goal - noise)).square().sum(-1) * rows).sum() / rows.sum().clamp(1)


def load(spec):
    """The task's shapes, an exporl.Spec -> the module. Load your weights here."""
    return torch.manual_seed(0) and Flow(spec)


if __name__ == "__main__":
    preset = exporl.preset_config("expo", "tiny", "probe/bandit")
    base = {"base.policy": "torch:torch_policy:load", "base.learns": True}
    steps = {"train.offline_steps": 600, "train.online_steps": 300, "train.utd_ratio": 2}
    warmup = {"train.critic_warmup_steps": 100, "train.update_after": 50, "eval.episodes": 10}
    config = exporl.override(preset, {**base, **steps, **warmup, "base.learning_rate": 3e-3})
    print(exporl.train(config, Path("runs/torch")))
