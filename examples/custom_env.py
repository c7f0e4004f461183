"""Your own environment and your own data: a hill climber imitates clumsy demonstrations, then EXPO
improves on them.

Too few steps to learn much; enough to see it run. From this folder also: `exporl check
custom_env:task` and `exporl train expo --task custom_env:task --data.path hill.npz`.
"""

from pathlib import Path

import gymnasium
import numpy as np

import exporl


def task():
    def make_env():
        return gymnasium.make("MountainCarContinuous-v0", max_episode_steps=200)

    return exporl.custom_task(make_env, success=lambda reward, terminated, info: terminated)


def demonstrations(episodes):
    env, rng, rows = task().make_env(), np.random.default_rng(0), []
    for index in range(episodes):
        observation, over = env.reset(seed=index)[0]["state"], False
        while not over:
            action = np.clip(np.sign(observation[1:]) + rng.normal(0, 1, 1), -1, 1)
            after, reward, terminated, truncated, _ = env.step(action)
            rows.append((observation, after["state"], action, reward, terminated, truncated))
            observation, over = after["state"], terminated or truncated
    names = ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts")
    return exporl.from_arrays(dict(zip(names, zip(*rows, strict=True), strict=True)))


if __name__ == "__main__":
    exporl.save_npz(Path("hill.npz"), demonstrations(20))
    steps = {"train.offline_steps": 200, "train.online_steps": 200, "eval.episodes": 2}
    steps |= {"train.update_after": 20, "train.critic_warmup_steps": 100, "data.path": "hill.npz"}
    config = exporl.override(exporl.preset_config("expo", "tiny", "custom_env:task"), steps)
    print(exporl.train(config, Path("runs/hill"), task=task()))
