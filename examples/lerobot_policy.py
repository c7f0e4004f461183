"""A LeRobot policy as base policy: EXPO around a folder that LeRobot saved. Here it is a diffusion
policy that has learnt nothing; the folder of yours is `.../checkpoints/last/pretrained_model`.

From this folder: python lerobot_policy.py (it writes the folder first). Also `exporl train expo
--task lerobot_policy:make_env --base lerobot:reach --chunk-length 4 --preset tiny --reward env
--data.demos 0 --data.prior-ratio 0`.
"""

from pathlib import Path

import gymnasium
import numpy as np
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.policies.diffusion.modeling_diffusion import DiffusionConfig, DiffusionPolicy
from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

import exporl


class Reach(gymnasium.Env):
    """Moves a point towards a goal, by at most 2 in a step; pays minus the distance."""

    place = gymnasium.spaces.Box(-20.0, 20.0, (2,), np.float32)
    observation_space = gymnasium.spaces.Dict({"agent_pos": place, "environment_state": place})
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.point, self.goal = self.np_random.uniform(-5, 5, (2, 2)).astype(np.float32)
        return self.step(np.zeros(2, np.float32))[0], {}

    def step(self, action):
        self.point = self.point + action
        seen = {"agent_pos": self.point, "environment_state": self.goal}
        return seen, -float(np.abs(self.goal - self.point).mean()), False, False, {}


def make_env():
    """The policy reads two observations: the environment shows them."""
    return gymnasium.wrappers.FrameStackObservation(gymnasium.wrappers.TimeLimit(Reach(), 8), 2)


def write_policy(folder):
    """A policy as LeRobot's training saves it: configuration, weights, two processors."""
    features = {"state": FeatureType.STATE, "environment_state": FeatureType.ENV}
    inputs = {f"observation.{name}": PolicyFeature(kind, (2,)) for name, kind in features.items()}
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    small = {"horizon": 8, "n_action_steps": 4, "down_dims": (16, 32), "num_inference_steps": 4}
    config = DiffusionConfig(input_features=inputs, output_features=outputs, **small)
    ends = {name: 5 for name in inputs} | {"action": 2}
    statistics = {n: {"min": np.full(2, -x), "max": np.full(2, x)} for n, x in ends.items()}
    DiffusionPolicy(config).save_pretrained(folder)
    for processor in make_diffusion_pre_post_processors(config, statistics):
        processor.save_pretrained(folder)


if __name__ == "__main__":
    write_policy("reach")
    preset = exporl.preset_config("expo", "tiny", "lerobot_policy:make_env")
    base = {"base.policy": "lerobot:reach", "chunk_length": 4, "reward": "env"}
    data = {"data.demos": 0, "data.prior_ratio": 0.0, "algo.edit_scale": 1.0}
    steps = {"train.offline_steps": 0, "train.online_steps": 400, "train.update_after": 64}
    config = exporl.override(preset, {**base, **data, **steps})
    print(exporl.train(config, Path("runs/lerobot")))
