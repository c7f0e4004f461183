"""Policies from outside that the tests bring: one that draws, and one that learns with NumPy."""

import numpy as np


class Drawn:
    """Uniform actions [1] around what it sees, decided by the seed."""

    def sample(self, observations, num, seed):
        seen = observations["state"][:, None, None, :1].astype(np.float32)
        shape = (len(seen), num, 1, 1)
        noise = np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)
        return 0.7 * noise + 0.3 * np.tanh(seen)


class Still:
    """Always the same action in the same observation."""

    def sample(self, observations, num, seed):
        seen = observations["state"].astype(np.float32)
        action = np.tanh(0.4 + seen @ np.array([[0.3], [-0.2]], np.float32))
        return np.repeat(action[:, None, None], num, axis=1)


class Learns:
    """A mean that follows the actions it imitates, with momentum; samples spread around it."""

    def __init__(self):
        self.mean, self.speed, self.steps = np.zeros(1, np.float32), np.zeros(1, np.float32), 0

    def sample(self, observations, num, seed):
        shape = (len(observations["state"]), num, 1, 1)
        noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
        return np.clip(self.mean + 0.2 * noise, -1, 1)

    def imitate(self, batch):
        weight = batch.valid[..., None]
        jitter = np.random.default_rng(batch.seed).normal(0, 0.01, batch.action.shape)
        error = ((batch.action + jitter - self.mean) * weight).sum((0, 1)) / weight.sum()
        self.speed = (0.9 * self.speed + 0.1 * error).astype(np.float32)
        self.mean, self.steps = self.mean + 0.1 * self.speed, self.steps + 1
        return {"base/loss": float(np.square(error).sum())}

    def state(self):
        return {"mean": self.mean, "speed": self.speed, "steps": np.array(self.steps)}

    def load(self, state):
        self.mean, self.speed = state["mean"], state["speed"]
        self.steps = int(state["steps"])
