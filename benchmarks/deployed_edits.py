"""What is deployed when edits are? Ways of drawing and of trusting them, on the same parameters.

    .venv/bin/python benchmarks/deployed_edits.py --tasks assembly box-close --seeds 0 1 2

The finished runs of `benchmarks/stable.py --rows edits-act` (preset `stable`), each evaluated on
100 starts in the ways of `WAYS`. What has been measured is not measured again. Writes
benchmarks/results/deployed_edits.json.
"""

import argparse
import dataclasses
import json
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from common import RESULTS, write_result
from jaxtyping import Array, Float, Int
from stable import EPISODES, TASKS, run_folder

from exporl.algos.algorithm import compiled
from exporl.algos.expo import Expo
from exporl.algos.expo_entry import make_expo
from exporl.nets.critic import q_values
from exporl.nets.encoder import flat_observation
from exporl.ops.selection import Candidates, Choice, take_candidate
from exporl.policies import make_base
from exporl.run.session import load_run
from exporl.speed.tuning import keep_compiled_programs
from exporl.types import KeyArray, Observation, Params


@dataclasses.dataclass(frozen=True)
class Way:
    """How edits are drawn, and what they must show before one is taken.

    `share` of each edit is used; `random` ones have the size of learnt ones and no direction, and
    `mean` ones no noise. With `margin` an edit must be better than the best base sample, on the
    average over all critics, by so many of their standard deviations.
    """

    edits: bool = True
    share: float = 1.0
    random: bool = False
    mean: bool = False
    margin: float | None = None


WAYS = {
    "without edits": Way(edits=False),
    "with edits": Way(),
    "half of each edit": Way(share=0.5),
    "random edits": Way(random=True),
    "mean edits": Way(mean=True),
    "margin of 1": Way(margin=1.0),
    "margin of 2": Way(margin=2.0),
}


@dataclasses.dataclass(frozen=True)
class Deployed(Expo):
    """EXPO that is deployed in some way."""

    way: Way = dataclasses.field(default_factory=Way)

    def candidates(
        self,
        edit_params: Params,
        observation: Observation,
        proposals: Float[Array, "b n h a"],
        key: KeyArray,
        *,
        edited: bool = True,
    ) -> Candidates:
        """Proposals and their edits, drawn in the way."""
        features = flat_observation(observation)
        to_edit = proposals[:, : self.config.num_edit_samples]
        if not edited or not self.way.edits:
            return Candidates(features, proposals, to_edit[:, :0])
        eps = jax.random.normal(key, to_edit.shape)
        if self.way.random:
            moved = jnp.clip(to_edit + self.config.edit_scale * jnp.tanh(eps), -1.0, 1.0)
        else:
            eps = jnp.zeros_like(eps) if self.way.mean else eps
            network = self.sampling_edit
            moved = self.draw_edits(network, edit_params, features[:, None], to_edit, eps).action
        return Candidates(features, proposals, to_edit + self.way.share * (moved - to_edit))

    def choose(
        self,
        critic_params: Params,
        candidates: Candidates,
        members: Int[Array, " m"],
        key: KeyArray,
    ) -> Choice:
        """The best base sample, unless an edit is better by the margin."""
        choice = super().choose(critic_params, candidates, members, key)
        if self.way.margin is None or not self.way.edits:
            return choice
        num, features = candidates.base.shape[1], candidates.features[:, None]
        q = q_values(self.ranking_critic, critic_params, features, candidates.action)
        best = choice.q[:, :num].argmax(axis=-1)
        gain = q[:, :, num:] - jnp.take_along_axis(q, best[None, :, None], axis=2)
        sure = gain.mean(axis=0) - self.way.margin * gain.std(axis=0)
        index = jnp.where(sure.max(axis=-1) > 0, num + sure.argmax(axis=-1), best)
        return choice._replace(action=take_candidate(candidates.action, index), index=index)


def measured(task: str, seed: int, name: str) -> float:
    """Success of one run, deployed in one way."""
    session = load_run(run_folder(task, "edits-act", seed))
    config, spec = session.config, session.parts.network_spec
    agent = make_expo(config.algo, spec, make_base(config.base, spec, config.precision))
    fields = {field.name: getattr(agent, field.name) for field in dataclasses.fields(Expo)}
    needs = session.parts.algorithm.needs
    algorithm = compiled(Deployed(**fields, way=WAYS[name]), needs, has_base=True)
    parts = dataclasses.replace(session.parts, algorithm=algorithm)
    changed = dataclasses.replace(session, parts=parts)
    return changed.evaluate(mode="evaluate", episodes=EPISODES.get(task, 100)).success_rate


def main() -> None:
    """Measures what is missing, and writes the result after every evaluation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", default=list(TASKS)[:2], choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    options = parser.parse_args()
    keep_compiled_programs()
    path = RESULTS / "deployed_edits.json"
    results: list[dict[str, Any]] = (
        json.loads(path.read_text())["results"] if path.is_file() else []
    )
    known = {(r["task"], r["seed"], r["way"]) for r in results}
    for seed, task, name in product(options.seeds, options.tasks, options.ways):
        if (task, seed, name) in known:
            continue
        success = measured(task, seed, name)
        results.append({"task": task, "seed": seed, "way": name, "success": success})
        print(task, seed, name, success, flush=True)
        record = {"command": "benchmarks/deployed_edits.py", "results": results}
        write_result("deployed_edits", record)


if __name__ == "__main__":
    main()
