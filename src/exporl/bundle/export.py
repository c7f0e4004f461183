"""From a run to a bundle."""

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from safetensors.numpy import save as save_tensors

from exporl.acting.parameters import to_arrays
from exporl.acting.policy import Policy, load_policy
from exporl.algos import BcConfig
from exporl.bundle.card import About, model_card, without_paths
from exporl.bundle.deploy import TOLERANCE, Deployed, deploy, run_session, session_of
from exporl.bundle.own_framework import base_contents
from exporl.bundle.primitives import NotInOnnx
from exporl.bundle.results import read_results
from exporl.files import checkpoint
from exporl.files.bundle import (
    BASE_KIND,
    CARD,
    KIND,
    MODEL,
    ONNX,
    TRAINING,
    check_target,
    is_bundle,
    write_bundle,
)
from exporl.files.run_files import CHECKPOINTS, CONFIG, POLICY, STATISTICS, read_config
from exporl.outside import Trust
from exporl.types import Params

Part = Literal["policy", "base"]
"""What is given away: the policy as it was deployed, or its base policy alone."""
COMPARED = 32
"""Observations on which the ONNX file is compared with the policy before it is written."""


class Exported(NamedTuple):
    """A bundle that was written."""

    folder: Path
    sizes: dict[str, int]
    """Bytes of every file but the manifest."""
    onnx: str
    """What there is to say about the ONNX file, or the file of a base policy: a sentence."""


def export_bundle(
    run: Path | str,
    folder: Path | str,
    *,
    part: Part = "policy",
    checkpoint_name: str | None = None,
    licence: str = "unknown",
    datasets: tuple[str, ...] = (),
    onnx: bool = True,
    replace: bool = False,
    trust: Trust = False,
    base: Any = None,
) -> Exported:
    """Writes the policy of a run as one folder that `load_policy` reads: parameters, shapes and
    units, statistics, a model card, digests, and the same as ONNX. The base policy alone, where it
    is one from outside that learnt, is written for its own framework instead.

    Args:
        run: the run directory.
        folder: what to write; whole or not at all.
        part: the policy as it was deployed, or "base": its base policy alone.
        checkpoint_name: another checkpoint than the newest, such as "checkpoint-000010000".
        licence: for the card, as hubs know it: "mit", "apache-2.0", ...
        datasets: for the card, names of data sets on the hub.
        onnx: off, no ONNX file is written. On, there is one where the packages onnx and onnxruntime
            are installed and it acts as the policy does; else the bundle says why there is none.
        replace: whether a bundle that is there already is replaced.
        trust: whether code that the run names may be loaded.
        base: the policy from outside that `train` was given, if it was given one.

    Raises:
        ValueError: not a run, what `load_policy` refuses, no base policy to give away, or the
            folder is there.
        OSError: it cannot be written.
    """
    run_dir, folder = Path(run), Path(folder)
    check_target(folder, replace=replace)
    _check_request(run_dir, part)
    whole = load_policy(run_dir, trust=trust, checkpoint_name=checkpoint_name, base=base)
    config = read_config(run_dir)
    saved = run_dir / CHECKPOINTS / whole.checkpoint_name
    record = checkpoint.read_manifest(saved)["record"]
    about = About(
        name=folder.absolute().name,
        part=part,
        licence=licence,
        datasets=datasets,
        config=config,
        record=record,
        results=read_results(run_dir, record["rollout"]["env_steps"], part=part),
        onnx="",
        has_onnx=False,
    )
    training = _json(without_paths(config))
    if whole.outside is not None:
        kind, (contents, said) = BASE_KIND, base_contents(whole, about, training)
    else:
        kind, (contents, said) = KIND, _contents(whole, about, training, trust, onnx=onnx)
    write_bundle(folder, contents, replace=replace, kind=kind)
    return Exported(folder, {name: len(content) for name, content in contents.items()}, said)


def _contents(
    whole: Policy, about: About, training: bytes, trust: Trust, *, onnx: bool
) -> tuple[dict[str, bytes], str]:
    """The files of a bundle, and what there is to say about the ONNX file."""
    contents = _parameters(whole, about.config, about.part) | {TRAINING: training}
    policy = _as_loaded(contents, trust)
    deployed, said = _deployed(policy) if onnx else (None, "No ONNX file was asked for.")
    if deployed is not None:
        contents[ONNX] = deployed.model
    about = dataclasses.replace(about, onnx=said, has_onnx=deployed is not None)
    contents[CARD] = model_card(policy, about).encode()
    return contents, said


def _check_request(run_dir: Path, part: str) -> None:
    """Raises ValueError where there is nothing to be exported."""
    if part not in get_args(Part):
        raise ValueError(f"part must be one of {', '.join(get_args(Part))}, got {part!r}.")
    if is_bundle(run_dir):
        raise ValueError(f"{run_dir} is a bundle already: copy the folder.")
    outside = read_config(run_dir).get("base", {}).get("policy") if run_dir.is_dir() else None
    if outside is not None and part == "policy":
        raise ValueError(
            f"{run_dir} is around {outside!r}, a base policy from outside, whose code and files a "
            "bundle does not hold. Copy the run directory: load_policy acts with it where that "
            "policy can be loaded. Its base policy alone, where it learnt, is exported with --base."
        )


def _parameters(policy: Policy, config: Mapping[str, Any], part: str) -> dict[str, bytes]:
    """The files that a policy is loaded from."""
    names = ("task", "reward", "algorithm", "algo", "base", "precision")
    kept = {name: config[name] for name in names if name in config}
    acting, mode = policy.parameters, policy.mode
    if part == "base":
        acting, mode = _base_of(policy, config), "evaluate"
        kept |= {"algorithm": "bc", "algo": dataclasses.asdict(BcConfig())}
    kept |= {"mode": mode, "part": part, "checkpoint": policy.checkpoint_name}
    arrays = {name: np.array(array, order="C") for name, array in to_arrays(acting).items()}
    contents = {
        CONFIG: _json({"type": "exporl", **kept}),
        POLICY: _json(policy.interface.to_json()),
        MODEL: save_tensors(arrays, {"format": "exporl"}),
    }
    if policy.normalizer is not None:
        contents[STATISTICS] = _json(policy.normalizer.to_json())
    return contents


def _base_of(policy: Policy, config: Mapping[str, Any]) -> Params:
    """The parameters of the base policy that acts."""
    if not policy.algorithm.has_base:
        raise ValueError(f"{config['algorithm']} has no base policy to export: leave out --part.")
    if config["algorithm"] == "bc":
        return policy.parameters
    if not (isinstance(policy.parameters, Mapping) and "base" in policy.parameters):
        raise ValueError(
            f"{config['algorithm']} does not keep its base policy's parameters under the name "
            "'base': export the whole policy, without --part."
        )
    return policy.parameters["base"]


def _as_loaded(contents: Mapping[str, bytes], trust: Trust) -> Policy:
    """The policy as whoever loads the bundle will have it."""
    with tempfile.TemporaryDirectory(prefix="exporl-bundle-") as folder:
        bundle = Path(folder) / "bundle"
        write_bundle(bundle, contents)
        return load_policy(bundle, trust=trust)


def _deployed(policy: Policy) -> tuple[Deployed | None, str]:
    """The policy as ONNX, if it acts as the policy does, and what there is to say about it."""
    try:
        deployed = deploy(policy)
        found = difference(deployed, COMPARED)
    except ModuleNotFoundError as error:
        return None, (
            f"There is no ONNX file: the package {error.name} was not installed. `pip install "
            "'exporl[onnx]'`, and export again."
        )
    except NotInOnnx as error:
        return None, f"There is no ONNX file: acting uses {error}, which has no counterpart there."
    if not found <= TOLERANCE:
        return None, (
            f"There is no ONNX file: its actions differed by {found:.1g} from the policy's, at "
            f"most {TOLERANCE:g} is accepted."
        )
    return deployed, (
        f"With the same draws its actions differed by at most {found:.1g} from the policy's, in "
        f"[-1, 1], on {COMPARED} random observations."
    )


def difference(deployed: Deployed, num: int) -> float:
    """Most that an action in [-1, 1] differs between a policy and its ONNX file, on random
    observations as spread out as the data was."""
    policy, session = deployed.policy, session_of(deployed.model)
    worst = 0.0
    for seed, observation in enumerate(observations_like(policy, num)):
        mine = run_session(session, deployed.feed(observation, seed))
        decided = policy.decide(observation, seed=seed).action
        units = policy.interface.units
        theirs = decided if units is None else units.to_unit(decided.reshape(mine.shape))
        apart = np.abs(np.clip(mine, -1, 1) - theirs).max()
        worst = max(worst, float(apart))
    return worst


def observations_like(policy: Policy, num: int) -> list[dict[str, np.ndarray]]:
    """Random observations in the environment's units: normal, with the statistics of the data where
    the policy has them."""
    rng, scale = np.random.default_rng(0), policy.normalizer
    result = []
    for _ in range(num):
        observation = {}
        for name, shape, dtype in policy.interface.spec.observation:
            value = rng.standard_normal(shape)
            if scale is not None:
                value = scale.mean[name] + scale.std[name] * value
            observation[name] = value.astype(dtype)
        result.append(observation)
    return result


def _json(data: Any) -> bytes:
    return json.dumps(data, indent=1).encode()
