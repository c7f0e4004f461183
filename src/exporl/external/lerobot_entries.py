"""Which entries of a task's observation a LeRobot policy reads, and how they become its inputs."""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from exporl.external.lerobot_folder import Checkpoint, Feature
from exporl.spec import Spec

OTHER_NAMES = {"observation.state": ("agent_pos",), "observation.image": ("pixels",)}
"""Input -> names that simulators have for it, as LeRobot's own evaluation takes them."""


def entries_of(checkpoint: Checkpoint, spec: Spec) -> dict[str, tuple[str, ...]]:
    """Input of a policy -> the entries of an observation that make it up.

    An input `observation.NAME` is the entry of that name, with or without `observation.` and
    `images.` in front. The only vector among the inputs may also be made up of all vectors of
    floats that the task shows, in the order of their names.

    Raises:
        ValueError: an input has no entry, or one that does not fit; names both.
    """
    found = {}
    shown = {name: (shape, dtype) for name, shape, dtype in spec.observation}
    vectors = [n for n, (s, dtype) in shown.items() if len(s) == 1 and dtype.startswith("float")]
    alone = sum(feature.kind != "VISUAL" for feature in checkpoint.inputs.values()) == 1
    for name, feature in checkpoint.inputs.items():
        known = [entry for entry in _names(checkpoint.sources[name]) if entry in shown]
        if known:
            found[name] = (known[0],)
        elif alone and feature.kind != "VISUAL" and vectors:
            found[name] = tuple(sorted(vectors))
        else:
            listed = ", ".join(f"{n} {d}{list(s)}" for n, (s, d) in shown.items())
            raise ValueError(
                f"{checkpoint.path} reads {name!r} {list(feature.shape)}; the task shows {listed}. "
                f"Give an entry one of the names {', '.join(_names(checkpoint.sources[name]))}."
            )
        _check_fit(checkpoint, name, {entry: shown[entry] for entry in found[name]})
    return found


def _names(source: str) -> list[str]:
    """Names under which a task may show an input."""
    short = source.removeprefix("observation.")
    last = short.removeprefix("images.")
    names = [source, source.replace(".", "/"), short, short.replace(".", "/"), last]
    names += [f"pixels/{last}"] if last != short else []
    return list(dict.fromkeys([*names, *OTHER_NAMES.get(source, ())]))


def _check_fit(
    checkpoint: Checkpoint, name: str, entries: Mapping[str, tuple[tuple[int, ...], str]]
) -> None:
    """Whether entries can be an input of all the steps that the policy reads."""
    feature, steps = checkpoint.inputs[name], checkpoint.steps
    image, one = feature.kind == "VISUAL", feature.shape
    if image:
        channels, height, width = feature.shape
        one = (height, width, channels)
    size = sum(math.prod(shape) for shape, _ in entries.values())
    shapes = {(steps, *one)} | ({one} if steps == 1 else set())
    if image:
        fits = all(dtype == "uint8" and shape in shapes for shape, dtype in entries.values())
    else:
        fits = size == steps * math.prod(one)
    if fits:
        return
    kind = f"uint8 {list(one)}" if image else f"{list(one)}"
    listed = ", ".join(f"{entry} {dtype}{list(shape)}" for entry, (shape, dtype) in entries.items())
    if steps > 1 and size == math.prod(one):
        raise ValueError(
            f"{checkpoint.path} reads the last {steps} observations (n_obs_steps), of {name!r} "
            f"{kind} each; the task shows one, {listed}. A history that the policy kept by itself "
            "would be the same for all samples and rows. Let the environment show it: "
            f"gymnasium.wrappers.FrameStackObservation(env, {steps}) has the oldest first and "
            "begins with copies of the first observation, as LeRobot does."
        )
    history = f" of {steps} steps" if steps > 1 else ""
    raise ValueError(
        f"{checkpoint.path} reads {name!r} {kind}{history}; the task shows {listed}. An adapter of "
        "your own can reshape entries (docs/own_policy.md)."
    )


def stacked(
    observations: Mapping[str, np.ndarray], entries: tuple[str, ...], feature: Feature, steps: int
) -> Float[np.ndarray, "b steps ..."]:
    """Entries [b, ...] as one input, [b, steps, *shape] in float32, the oldest step first; images
    in [0, 1], channels first."""
    if feature.kind == "VISUAL":
        channels, height, width = feature.shape
        images = observations[entries[0]].reshape(-1, steps, height, width, channels)
        first = np.ascontiguousarray(np.moveaxis(images, -1, 2), np.float32)
        return first / np.float32(255)
    parts = [observations[name].reshape(len(observations[name]), steps, -1) for name in entries]
    joined = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    return joined.astype(np.float32).reshape(*joined.shape[:2], *feature.shape)
