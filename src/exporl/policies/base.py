"""What an expressive policy is to this library."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from exporl.nets.denoiser import Denoiser
from exporl.ops.selection import per_candidate
from exporl.types import AnyArray, Batch, KeyArray, Metrics, Observation, Params, Precision, Spec


class BasePolicy(NamedTuple):
    """An imitation-trained policy as a record of pure functions (compare `optax.GradientTransformation`).

    `decode` is deterministic, all its randomness is in `noise`: that one signature serves sampling, distillation and
    steering, and makes every result reproducible.
    """

    init: Callable[[KeyArray], Params]
    loss: Callable[[Params, Batch, AnyArray, KeyArray], tuple[Float[Array, ""], Metrics]]
    """(params, batch [b, ...], row weight [b], key) -> (imitation loss, metrics)."""
    decode: Callable[[Params, Observation, Float[Array, "..."]], Float[Array, "..."]]
    """(params, observation [..., o], noise [..., *noise_shape]) -> action chunk [..., h, a] in [-1, 1]."""
    noise_shape: tuple[int, ...]
    """(h, a) for a flow, (k, h, a) for DDPM: standard normal entries that `decode` consumes per action chunk."""
    optimizer: optax.GradientTransformation


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """The base policy: a diffusion or flow model with the network of the EXPO release."""

    kind: Literal["flow", "diffusion"] = "diffusion"
    """Flow matching with Euler steps, or DDPM with the release's schedule."""
    num_steps: int = 10
    """Denoising (T) or flow steps per sampled action."""
    width: int = 256
    """Width of the residual network."""
    num_blocks: int = 3
    """Residual blocks."""
    time_dim: int = 128
    """Fourier features of time."""
    learning_rate: float = 3e-4
    """AdamW step size at the start."""
    weight_decay: float = 1e-4
    """AdamW weight decay (optax's default, which the release uses)."""
    decay_steps: int = 3_000_000
    """Updates over which the learning rate falls to 0 on a cosine; 0 keeps it constant."""


def learning_rate(start: float, decay_steps: int) -> optax.ScalarOrSchedule:
    """`start`, falling to 0 on a cosine over `decay_steps` updates (0: constant)."""
    return optax.cosine_decay_schedule(start, decay_steps) if decay_steps else start


class Network(NamedTuple):
    """The denoising network of a base policy as pure functions."""

    init: Callable[[KeyArray], Params]
    embed: Callable[[Params, Array], Array]
    """(params, time [..., 1]) -> time embedding [..., c]."""
    predict: Callable[[Params, Observation, Array, Array], Array]
    """(params, observation, noisy action [..., h, a], time embedding) -> noise or velocity [..., h, a]."""
    sample: Callable[[Params, Observation, Array, Array], Array]
    """The same in the precision of sampling."""


def build(config: BaseConfig, spec: Spec, precision: Precision) -> tuple[Network, optax.GradientTransformation]:
    """Network and optimiser that both kinds share.

    Raises:
        ValueError: a size is not positive.
    """
    for name in ("num_steps", "width", "num_blocks", "time_dim"):
        if getattr(config, name) < 1:
            raise ValueError(f"base.{name} must be at least 1, got {getattr(config, name)}.")
    if config.time_dim % 2:
        raise ValueError(f"base.time_dim must be even (sines and cosines), got {config.time_dim}.")
    schedule = learning_rate(config.learning_rate, config.decay_steps)
    module: Any = Denoiser(config.width, config.num_blocks, time_dim=config.time_dim)
    sampling: Any = module.clone(precision=precision)

    def init(key: KeyArray) -> Params:
        observation, action = spec.example()
        return module.init(key, observation, action, jnp.ones((1, 1)), method=lambda m, o, x, t: m(o, x, m.embed(t)))

    def embed(params: Params, time: Array) -> Array:
        return module.apply(params, time, method="embed")

    network = Network(init, embed, module.apply, sampling.apply)
    return network, optax.flatten(optax.adamw(schedule, weight_decay=config.weight_decay))


def propose(
    base: BasePolicy, params: Params, observation: Observation, num: int, key: KeyArray, spec: Spec
) -> Float[Array, "b n h a"]:
    """`num` actions of the base policy for every observation [b, ...]."""
    batch = next(iter(observation.values())).shape[0]
    noise = jax.random.normal(key, (batch, num, *base.noise_shape))
    actions = base.decode(params, per_candidate(observation), noise)
    return actions.reshape(batch, num, spec.chunk_length, spec.action_dim)
