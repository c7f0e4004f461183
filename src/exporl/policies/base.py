"""What an expressive policy is to this library."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from exporl.nets.denoiser import Denoiser
from exporl.nets.encoder import flat_observation
from exporl.ops.selection import per_candidate
from exporl.options import check_options, option
from exporl.plain import added
from exporl.types import (
    AnyArray,
    Batch,
    KeyArray,
    Metrics,
    Observation,
    OutsideName,
    Params,
    Precision,
    Spec,
)


class BasePolicy(NamedTuple):
    """An imitation-trained policy as a record of pure functions, as optimisers are in optax.

    `decode` is deterministic, all its randomness is in `noise`: that one signature serves sampling,
    distillation and steering, and makes every result reproducible.
    """

    init: Callable[[KeyArray], Params]
    loss: Callable[
        [Params, Batch, Float[AnyArray, " b"], KeyArray],
        tuple[Float[Array, ""], Metrics],
    ]
    """(params, batch [b, ...], row weight [b], key) -> (imitation loss, metrics)."""
    decode: Callable[[Params, Observation, Float[Array, "..."]], Float[Array, "*b h a"]]
    """(params, observation [..., o], noise [..., *noise_shape]) -> action chunk [..., h, a] in
    [-1, 1]."""
    noise_shape: tuple[int, ...]
    """(h, a) for a flow, (k, h, a) for DDPM: standard normal entries that `decode` consumes per
    action chunk."""
    optimizer: optax.GradientTransformation
    predict: (
        Callable[
            [Params, Observation, Float[Array, "*b h a"], Float[Array, "*b 1"]],
            Float[Array, "*b h a"],
        ]
        | None
    ) = None
    """(params, observation [..., o], noisy action [..., h, a], time [..., 1]) -> what the network
    of a flow or diffusion is trained to predict there: the velocity of a flow at a time in [0, 1],
    the noise of a diffusion at a step 0 ... k-1. In float32. None for other kinds."""
    outside: bool = False
    """Whether its samples are made outside JAX and handed over, as `Batch.next_proposals` and as
    `proposals` of acting (`policies/elsewhere.py`)."""
    metrics: tuple[tuple[str, str], ...] = ()
    """(name, what it is) of every metric of `loss`, for reports and documents. Pairs, because who
    makes a record once for the same arguments compares them by their hash."""
    diffuse: (
        Callable[
            [Float[Array, "b h a"], Int[Array, " b"], Float[Array, "b h a"]],
            tuple[Float[Array, "b h a"], Float[Array, "b 1 1"]],
        ]
        | None
    ) = None
    """(action, step 0 ... k-1, noise) -> (noisy action of that step, its share of noise), as a
    diffusion is trained. None for other kinds."""
    num_steps: int | None = None
    """Euler steps with which `decode` follows the velocity of a flow. None for other kinds."""


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """The base policy: a diffusion or flow with the network of the EXPO release, or your own."""

    kind: Literal["flow", "diffusion"] | OutsideName = "diffusion"
    """Flow matching with Euler steps, or DDPM with the release's schedule. Or `module:function`
    of your own, called with these options, the task's shapes and the precision: it returns a
    `BasePolicy`."""
    policy: str | None = added(None, absent=None)
    """A policy from outside instead (--base): `module:attribute` of your own, or a kind and what it
    opens, see docs/own_policy.md. Of the other options only `learns` and `learning_rate` mean
    something to it."""
    learns: bool = added(False, absent=False)
    """Whether a policy from outside goes on imitating, in its own framework, once per update
    call."""
    num_steps: int = option(10, within="[1, 10000]")
    """Denoising (T) or flow steps per sampled action."""
    width: int = option(256, within="[1, inf)")
    """Width of the residual network."""
    num_blocks: int = option(3, within="[1, 1000]")
    """Residual blocks."""
    time_dim: int = option(128, within="[1, 10000]")
    """Fourier features of time."""
    learning_rate: float = option(3e-4, within="[0, inf)")
    """AdamW step size at the start."""
    weight_decay: float = option(1e-4, within="[0, inf)")
    """AdamW weight decay (optax's default, which the release uses)."""
    decay_steps: int = option(3_000_000, within="[0, inf)")
    """Updates over which the learning rate falls to 0 on a cosine; 0 keeps it constant."""


def learning_rate(start: float, decay_steps: int) -> optax.ScalarOrSchedule:
    """`start`, falling to 0 on a cosine over `decay_steps` updates (0: constant)."""
    return optax.cosine_decay_schedule(start, decay_steps) if decay_steps else start


@dataclasses.dataclass(frozen=True)
class Network:
    """The denoising network of a base policy as pure functions of raw observations."""

    spec: Spec
    module: Denoiser
    sampling_module: Denoiser
    """`module` in the precision of sampling."""

    def init(self, key: KeyArray) -> Params:
        """Parameters before the first step."""
        observation, action = self.spec.example()
        features, time = flat_observation(observation), jnp.ones((1, 1))
        return self.module.init(key, features, action, time, method="with_time")

    def embed(self, params: Params, time: Float[Array, "*b 1"]) -> Float[Array, "*b c"]:
        """Time embedding."""
        embedding: Any = self.module.apply(params, time, method="embed")
        return embedding

    def predict(
        self,
        params: Params,
        observation: Observation,
        noisy_action: Float[Array, "*b h a"],
        time: Float[Array, "*b 1"],
    ) -> Float[Array, "*b h a"]:
        """Noise or velocity, as it is trained: in float32."""
        condition = self.embed(params, time)
        features = flat_observation(observation)
        prediction: Any = self.module.apply(params, features, noisy_action, condition)
        return prediction

    def sampler(
        self, params: Params, observation: Observation
    ) -> Callable[[Float[Array, "*b h a"], Float[Array, " c"]], Float[Array, "*b h a"]]:
        """(noisy action, embedding of one time) -> noise or velocity, in sampling's precision."""
        features = flat_observation(observation)

        def predict(
            noisy_action: Float[Array, "*b h a"], condition: Float[Array, " c"]
        ) -> Float[Array, "*b h a"]:
            """All actions are at the same time."""
            condition = condition.reshape((1,) * (noisy_action.ndim - 2) + (-1,))
            prediction: Any = self.sampling_module.apply(params, features, noisy_action, condition)
            return prediction

        return predict


def build(
    config: BaseConfig, spec: Spec, precision: Precision
) -> tuple[Network, optax.GradientTransformation]:
    """Network and optimiser that both kinds share.

    Raises:
        ValueError: an option is out of its range.
    """
    check_options(config, "base.")
    if config.time_dim % 2:
        raise ValueError(f"base.time_dim must be even (sines and cosines), got {config.time_dim}.")
    module = Denoiser(config.width, config.num_blocks, time_dim=config.time_dim)
    schedule = learning_rate(config.learning_rate, config.decay_steps)
    optimizer = optax.flatten(optax.adamw(schedule, weight_decay=config.weight_decay))
    return Network(spec, module, module.clone(precision=precision)), optimizer


def propose(
    base: BasePolicy,
    params: Params,
    observation: Observation,
    num: int,
    key: KeyArray,
    spec: Spec,
    noise_scales: Float[Array, " {num}"] | None = None,
) -> Float[Array, "b {num} h a"]:
    """`num` actions of the base policy for every observation [b, ...].

    With `noise_scales`, each is decoded from noise of that scale: below 1 it is less spread out
    than the base policy is.
    """
    batch = next(iter(observation.values())).shape[0]
    noise = jax.random.normal(key, (batch, num, *base.noise_shape))
    if noise_scales is not None:
        noise = noise * noise_scales.reshape(1, num, *(1,) * len(base.noise_shape))
    actions = base.decode(params, per_candidate(observation), noise)
    return actions.reshape(batch, num, spec.chunk_length, spec.action_dim)
