"""LeRobot checkpoint folders: what config.json says, and the statistics that the policy normalises
with. Neither LeRobot nor torch is needed to read them, and nothing is unpickled.

Two layouts: statistics among the weights (until LeRobot 0.3), or in the files of a pre- and a
postprocessor.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from exporl.external.scaling import READS, Scaling
from exporl.files.reading import read_object

KINDS = ("diffusion", "act")
"""Types of policies that can be sampled."""
CONFIG, WEIGHTS, TRAINING = "config.json", "model.safetensors", "train_config.json"
PREPROCESSOR, POSTPROCESSOR = "policy_preprocessor.json", "policy_postprocessor.json"
ACTION = "action"
OLD_INPUTS, OLD_OUTPUTS = "normalize_inputs.", "unnormalize_outputs."
"""What the names of statistics among weights begin with."""
NO_WEIGHTS = (OLD_INPUTS, OLD_OUTPUTS, "normalize_targets.")
"""What the names of weights that are statistics begin with."""
HARMLESS = {"to_batch_processor", "device_processor"}
"""Steps of a processor that change no number."""


class Feature(NamedTuple):
    """One input or output of a policy."""

    kind: str
    """STATE, ENV, VISUAL or ACTION."""
    shape: tuple[int, ...]
    """Without batch axes; images [channels, height, width]."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A policy in a folder."""

    path: Path
    kind: str
    """One of `KINDS`."""
    steps: int
    """Observations that it reads, the last one and those before it."""
    planned: int
    """Actions that it plans from the last observation on."""
    inputs: Mapping[str, Feature]
    """In the order of the configuration."""
    action_dim: int
    sources: Mapping[str, str]
    """Input -> its name before the preprocessor renames it."""
    scalings: Mapping[str, Scaling]
    """Of every input, and of "action"."""
    control_hz: float | None
    """Actions per second of the environment that it was trained for; None where the folder does
    not say."""


def read_checkpoint(path: Path) -> Checkpoint:
    """What a folder says of its policy.

    Raises:
        ValueError: it is damaged, or of a policy that cannot be sampled; says which and why.
        FileNotFoundError: there is no such folder, or a file of it is missing.
    """
    if not (path / CONFIG).is_file():
        inner = path / "pretrained_model"
        hint = f"Did you mean {inner}?" if (inner / CONFIG).is_file() else (
            "It is a folder with config.json and model.safetensors; one from a hub has to be "
            "downloaded first."
        )  # fmt: skip
        raise FileNotFoundError(
            f"there is no LeRobot policy {path} (looked for from {Path.cwd()}). {hint}"
        )
    if not (path / WEIGHTS).is_file():
        raise FileNotFoundError(f"{path / WEIGHTS} is missing: copy it from the policy again.")
    config = read_object(path / CONFIG)
    kind = config.get("type")
    if kind not in KINDS:
        raise ValueError(
            f"{path} holds a policy of the type {kind!r}; {' and '.join(KINDS)} can be sampled. "
            "Others go through an adapter of your own (docs/own_policy.md)."
        )
    if config.get("temporal_ensemble_coeff") is not None:
        raise ValueError(
            f"{path} averages its action with those that it planned before "
            f"(temporal_ensemble_coeff {config['temporal_ensemble_coeff']}): a memory, which "
            "cannot be sampled several times. Set it to null in config.json to use its plans alone."
        )
    try:
        return _checkpoint(path, kind, config)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path / CONFIG} is not the configuration of a LeRobot policy "
            f"({type(error).__name__}: {error})."
        ) from error


def _checkpoint(path: Path, kind: str, config: dict[str, Any]) -> Checkpoint:
    inputs = _features(config["input_features"])
    outputs = _features(config["output_features"])
    steps = _count(path, config, "n_obs_steps")
    if kind == "diffusion":
        planned = _count(path, config, "horizon") - steps + 1
    else:
        planned = _count(path, config, "chunk_size")
    if (path / PREPROCESSOR).is_file():
        sources, scalings = _processors(path, inputs | outputs)
    else:
        sources, scalings = {}, _among_weights(path, config, inputs | outputs)
    return Checkpoint(
        path=path,
        kind=kind,
        steps=steps,
        planned=planned,
        inputs=inputs,
        action_dim=outputs[ACTION].shape[0],
        sources={name: sources.get(name, name) for name in inputs},
        scalings=scalings,
        control_hz=_control_hz(path),
    )


def _features(given: Mapping[str, Any]) -> dict[str, Feature]:
    return {n: Feature(str(f["type"]), tuple(map(int, f["shape"]))) for n, f in given.items()}


def _count(path: Path, config: Mapping[str, Any], name: str) -> int:
    value = config[name]
    if type(value) is not int or value < 1:
        raise ValueError(f"{path / CONFIG}: {name} is {value!r}, not a number from 1 on.")
    return value


def _control_hz(path: Path) -> float | None:
    """Frames per second of the environment that training was evaluated in, if it was."""
    if not (path / TRAINING).is_file():
        return None
    env = read_object(path / TRAINING).get("env")
    fps = env.get("fps") if isinstance(env, dict) else None
    given = isinstance(fps, int | float) and not isinstance(fps, bool) and 0 < fps < 1e6
    return float(fps) if given else None  # pyright: ignore[reportArgumentType]


def _processors(
    path: Path, features: Mapping[str, Feature]
) -> tuple[dict[str, str], dict[str, Scaling]]:
    """Names before renaming, and scalings, of the files of both processors."""
    sources, scalings = {}, {}
    for file, wanted in ((PREPROCESSOR, "normalizer_processor"),
                         (POSTPROCESSOR, "unnormalizer_processor")):  # fmt: skip
        if not (path / file).is_file():
            raise FileNotFoundError(f"{path / file} is missing: copy it from the policy again.")
        found = False
        for step in _steps(path / file):
            name, options = step["registry_name"], step.get("config") or {}
            if name == "rename_observations_processor" and file == PREPROCESSOR:
                sources = {new: old for old, new in options.get("rename_map", {}).items()}
            elif name == wanted and not found:
                found = True
                scaled = {n: f for n, f in features.items()
                          if (f.kind == "ACTION") == (file == POSTPROCESSOR)}  # fmt: skip
                scalings |= _of_step(path, file, step, scaled)
            elif name not in HARMLESS or options.get("float_dtype") not in (None, "float32"):
                raise ValueError(
                    f"{path / file} does more than normalise: its step {name!r} is not known here. "
                    "Such a policy goes through an adapter of your own (docs/own_policy.md)."
                )
        if not found:
            raise ValueError(f"{path / file} has no step {wanted!r}: it does not normalise.")
    return sources, scalings


def _steps(file: Path) -> Iterator[dict[str, Any]]:
    steps = read_object(file).get("steps")
    if not isinstance(steps, list):
        raise ValueError(f"{file} has no list of steps: it is not a processor of LeRobot.")
    for step in steps:
        if "registry_name" not in step:
            raise ValueError(
                f"{file} names code, {step.get('class')!r}: such a step is not run. The policy "
                "goes through an adapter of your own (docs/own_policy.md)."
            )
        yield step


def _of_step(
    path: Path, file: str, step: Mapping[str, Any], features: Mapping[str, Feature]
) -> dict[str, Scaling]:
    options, state = step["config"], step.get("state_file")
    if state is None or Path(state).name != state:
        raise ValueError(
            f"{path / file}: its statistics are {state!r}, and have to lie in a file beside it."
        )
    only = options.get("normalize_observation_keys")
    kept, scalings = _arrays(path / state), {}
    for name, feature in features.items():
        skipped = only is not None and name not in only and feature.kind != "ACTION"
        mode = "IDENTITY" if skipped else options["norm_map"].get(feature.kind, "IDENTITY")
        statistics = {key.removeprefix(f"{name}."): value for key, value in kept.items()
                      if key.rpartition(".")[0] == name}  # fmt: skip
        if not statistics:  # LeRobot leaves such a feature as it is, in training as well
            mode = "IDENTITY"
        eps = float(options.get("eps", Scaling.eps))
        scalings[name] = _scaling(path / state, name, feature, mode, statistics, eps)
    return scalings


def _among_weights(
    path: Path, config: Mapping[str, Any], features: Mapping[str, Feature]
) -> dict[str, Scaling]:
    """Scalings whose statistics are buffers of the model."""
    modes, scalings = config["normalization_mapping"], {}
    kept = _arrays(path / WEIGHTS, (OLD_INPUTS, OLD_OUTPUTS))
    for name, feature in features.items():
        mode = modes.get(feature.kind, "IDENTITY")
        part = OLD_OUTPUTS if feature.kind == "ACTION" else OLD_INPUTS
        prefix = f"{part}buffer_{name.replace('.', '_')}."
        statistics = {key.removeprefix(prefix): value for key, value in kept.items()
                      if key.startswith(prefix)}  # fmt: skip
        scalings[name] = _scaling(path / WEIGHTS, name, feature, mode, statistics, Scaling.eps)
    return scalings


def _scaling(
    file: Path,
    name: str,
    feature: Feature,
    mode: str,
    statistics: dict[str, np.ndarray],
    eps: float,
) -> Scaling:
    """A scaling whose statistics are all there and fit.

    Raises:
        ValueError: they do not; names file, feature and statistic.
    """
    if mode not in READS:
        raise ValueError(f"{name!r} is normalised by {mode!r}; known are {', '.join(READS)}.")
    fitting = {}
    for key, value in statistics.items():
        try:
            fits = np.broadcast_shapes(value.shape, feature.shape) == feature.shape
        except ValueError:
            fits = False
        if fits and np.isfinite(value).all():
            fitting[key] = value.astype(np.float32)
    for key in READS[mode]:
        if key not in statistics:
            raise ValueError(
                f"{file} has no statistic {key!r} of {name!r}, by which the policy normalises "
                f"({mode}): without it other actions would come out. Copy the policy again, with "
                "its processors."
            )
        if key not in fitting:
            value = statistics[key]
            raise ValueError(
                f"{file}: {key!r} of {name!r} has the shape {value.shape} (the feature: "
                f"{feature.shape}), {int((~np.isfinite(value)).sum())} of its numbers are NaN or "
                "infinite. One finite number per entry is needed."
            )
    return Scaling(mode, fitting, eps)


def _arrays(file: Path, prefixes: tuple[str, ...] = ("",)) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file whose names begin with one of some prefixes."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: copy it from the policy again.")
    try:
        with safe_open(str(file), framework="np") as opened:
            return {n: opened.get_tensor(n) for n in opened.keys() if n.startswith(prefixes)}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise ValueError(f"{file} is not a safetensors file ({error}).") from error
