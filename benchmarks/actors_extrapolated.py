"""What many actors would send, and what they would ask of their learner, from what was measured
with few of them. Arithmetic alone: nothing is measured here."""

from collections.abc import Mapping
from typing import NamedTuple

RECEIVING, PUBLISHING, UPDATES = "receiving chunks", "publishing parameters", "update calls"


class Measured(NamedTuple):
    """What one of everything takes."""

    version_bytes: int
    """Of one version of the acting parameters."""
    publish_s: float
    """Processor seconds of the learner for one version."""
    chunk_bytes: int
    """Of one chunk, as it is sent."""
    chunk_s: Mapping[int, float]
    """Number of actors -> processor seconds of the learner for one chunk."""
    update_s: float
    """Seconds of one update call on one device."""


class Plan(NamedTuple):
    """What is extrapolated to."""

    actors: int
    envs_each: int
    control_hz: float
    """Steps per second of every environment."""
    chunk_steps: int
    """Steps of each environment in a chunk."""
    update_every: int
    """Environment steps per update call."""
    devices: int
    """Share the rows of each minibatch: at best they are as many times as fast as one."""


class Load(NamedTuple):
    """What there is to do in one second."""

    env_steps: float
    chunks: float
    messages: float
    """An order and a chunk each."""
    versions: float
    """Of the parameters, at most: one per chunk, and one per update call."""
    step_bytes: float
    parameter_bytes: float
    """To all actors, at most: each fetches one version per chunk."""
    update_calls: float
    seconds: dict[str, float]
    """Of work, by its name: more than 1 is more than can be done. Updates are those of all devices
    together, at best; the rest is of one core."""

    @property
    def order(self) -> list[str]:
        """The kinds of work, the bottleneck first."""
        return sorted(self.seconds, key=lambda name: -self.seconds[name])

    @property
    def host_s(self) -> float:
        """Of the learner's process beside its updates, which does one after the other."""
        return self.seconds[RECEIVING] + self.seconds[PUBLISHING]

    def possible(self, name: str) -> float:
        """Environment steps per second at which one kind of work fills its second."""
        return self.env_steps / self.seconds[name]


def chunk_seconds(chunk_s: Mapping[int, float], actors: int) -> float:
    """Seconds for one chunk with so many actors: on the line through the fewest and the most that
    were measured, and no less than with the most."""
    fewest, most = min(chunk_s), max(chunk_s)
    if fewest == most:
        return chunk_s[most]
    slope = (chunk_s[most] - chunk_s[fewest]) / (most - fewest)
    return max(chunk_s[most], chunk_s[most] + slope * (actors - most))


def extrapolated(measured: Measured, plan: Plan) -> Load:
    """The load where every environment runs in its real time."""
    env_steps = plan.actors * plan.envs_each * plan.control_hz
    chunks = env_steps / (plan.chunk_steps * plan.envs_each)
    update_calls = env_steps / plan.update_every
    versions = min(chunks, update_calls)
    return Load(
        env_steps=env_steps,
        chunks=chunks,
        messages=2 * chunks,
        versions=versions,
        step_bytes=chunks * measured.chunk_bytes,
        parameter_bytes=chunks * measured.version_bytes,
        update_calls=update_calls,
        seconds={
            RECEIVING: chunks * chunk_seconds(measured.chunk_s, plan.actors),
            PUBLISHING: versions * measured.publish_s,
            UPDATES: update_calls * measured.update_s / plan.devices,
        },
    )
