"""The official code's numbers, group by group: same parameters and random draws in, same numbers
out.

Tolerances: 1e-4 relative on losses and gradients, 2e-5 absolute on actions and Q-values, the
winner's index exactly. In bfloat16, sampled actions (range 2; every denoising step amplifies the
rounding of the one before) are within 0.1, 5e-3 on average; ranking values within 2e-2, the same
candidate wins wherever the best is ahead by more than twice that, and everything that trains is the
same to the bit. `pytest tests/test_golden.py --golden FILE` checks another file of the same layout;
with `--devices 4` all rows are split between four devices.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from exporl.algos.bounds import TargetBounds
from exporl.algos.common import CriticTrainer, Model
from exporl.algos.expo_entry import make_expo
from exporl.algos.expo_options import ExpoConfig
from exporl.nets.critic import Critic, q_values
from exporl.nets.denoiser import Denoiser
from exporl.nets.encoder import flat_observation
from exporl.nets.gaussian import TanhGaussian
from exporl.ops import gaussian
from exporl.ops.ensemble import take_members
from exporl.ops.generative import ddpm_loss, vp_schedule
from exporl.ops.selection import Candidates
from exporl.ops.td import critic_loss
from exporl.policies import BaseConfig, diffusion
from exporl.speed.devices import ROWS, DataParallel
from exporl.types import Batch, Spec

LOSS = {"rtol": 1e-4, "atol": 1e-6}
VALUE = {"rtol": 0, "atol": 2e-5}
COARSE = {"rtol": 0, "atol": 2e-2}
"""Ranking values in bfloat16, whose operands carry 8 bits: 0.4% each."""

BASE_NAMES = {
    "FourierFeatures_0/kernel": "frequencies",
    "DiffusionMLP_0/Dense_0": "time_hidden",
    "DiffusionMLP_0/Dense_1": "time_out",
    "DiffusionMLPResNet_0/Dense_0": "input",
    "DiffusionMLPResNet_0/Dense_1": "output",
    "LayerNorm_0": "norm",
    "Dense_0": "expand",
    "Dense_1": "contract",
}


def our_path(net: str, path: str) -> tuple[str, ...]:
    """Where the parameter that the official code keeps under `path` lives in ours."""
    if net == "base":
        if "MLPResNetBlock_" in path:
            block, rest = path.split("MLPResNetBlock_")[1].split("/", 1)
            layer, leaf = rest.split("/")
            return (f"blocks_{block}", BASE_NAMES[layer], leaf)
        for theirs, ours in BASE_NAMES.items():
            if path.startswith(theirs):
                return (ours, *path[len(theirs) :].split("/")[1:])
    if net == "edit":
        path = path.replace("OutputDenseMean", "mean").replace("OutputDenseLogStd", "log_std")
        return tuple(path.split("/"))
    return tuple(path.replace("VmapStateActionValue_0", "ensemble").split("/"))


def tree(data, net: str, prefix: str) -> dict:
    """The official parameters (or gradients) under `prefix` as one of our parameter trees."""
    result: dict = {}
    for name in data:
        if name.startswith(prefix + "/"):
            *parents, leaf = our_path(net, name[len(prefix) + 1 :])
            node = result
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = jnp.asarray(data[name])
    return {"params": result}


def same_tree(got, expected, **tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True
    ):
        scale = np.abs(y).max()
        np.testing.assert_allclose(
            x, y, rtol=tolerance["rtol"], atol=tolerance["rtol"] * scale + 1e-7, err_msg=str(path)
        )


def split_rows(data: dict, devices: int) -> dict:
    """Arrays of rows split between devices, all others on each of them."""
    parallel, rows = DataParallel.over(devices), len(data["batch/rewards"])
    split = NamedSharding(parallel.mesh, PartitionSpec(ROWS))
    return {
        name: jax.device_put(x, split if x.shape[:1] == (rows,) else parallel.replicated)
        for name, x in data.items()
    }


@pytest.fixture(scope="module")
def golden(golden_path, devices):
    with jax.default_matmul_precision("highest"):
        data = {name: jnp.asarray(value) for name, value in np.load(golden_path).items()}
        data = data if devices == 1 else split_rows(data, devices)
        o, a, n, k, e, b = (int(x) for x in data["config"])
        spec = Spec((("state", (o,), "float32"),), action_dim=a)
        width = data["params/base/DiffusionMLPResNet_0/Dense_0/kernel"].shape[1]
        blocks = len(
            {name.split("/")[3] for name in data if "params/base" in name and "Block" in name}
        )
        time_dim = 2 * data["params/base/FourierFeatures_0/kernel"].shape[0]
        layers = sorted(
            name for name in data if name.startswith("params/edit/MLP_0") and name.endswith("bias")
        )
        hidden = tuple(data[name].shape[0] for name in layers)
        config = ExpoConfig(
            num_base_samples=n, num_edit_samples=n, edit_scale=float(data["edit_scale"]), num_qs=e,
            num_min_qs=2, hidden=hidden, target_entropy="released", clip_edits=False,
            acting_base="live",
        )  # fmt: skip
        base_config = BaseConfig(num_steps=k, width=width, num_blocks=blocks, time_dim=time_dim)
        base, coarse = diffusion(base_config, spec), diffusion(base_config, spec, "bfloat16")
        batch = Batch(
            observation={"state": data["batch/observations"]},
            action=data["batch/actions"][:, None],
            reward=data["batch/rewards"],
            discount=0.99 * data["batch/masks"],
            next_observation={"state": data["batch/next_observations"]},
            valid=jnp.ones((b, 1)),
            prior=jnp.zeros(b),
            success=jnp.zeros(b),
        )
        params = {
            net: tree(data, net, f"params/{net}")
            for net in ("base", "edit", "critic", "target_critic")
        }
        yield types.SimpleNamespace(
            data=data, spec=spec, config=config, base=base, expo=make_expo(config, spec, base),
            batch=batch, features=flat_observation(batch.observation),
            next_features=flat_observation(batch.next_observation), params=params,
            temperature=jnp.exp(data["params/log_temp"]), denoiser=Denoiser(width, blocks,
            time_dim=time_dim), schedule=vp_schedule(k), coarse_base=coarse,
            coarse=make_expo(config, spec, coarse, "bfloat16"),
        )  # fmt: skip


def candidates(golden) -> Candidates:
    """The official code's candidates for the next observations: base samples, then their edits."""
    actions, n = golden.data["select/candidates"][:, :, None], golden.config.num_base_samples
    return Candidates(golden.next_features, actions[:, :n], actions[:, n:])


def test_schedule(golden):
    for name in ("betas", "alphas", "alpha_hats"):
        np.testing.assert_allclose(
            getattr(golden.schedule, name), golden.data[name], rtol=1e-5, atol=1e-7
        )


def test_denoiser(golden):
    x, time = golden.data["denoiser/noisy_action"][:, None], golden.data["denoiser/time"]
    predict = jax.jit(functools.partial(golden.denoiser.apply, method="with_time"))
    got = predict(golden.params["base"], golden.features, x, time)
    np.testing.assert_allclose(got[:, 0], golden.data["denoiser/eps"], **VALUE)


def test_sample(golden):
    start, added = golden.data["sample/initial_noise"], golden.data["sample/step_noise"]
    noise = jnp.concatenate(
        [start[None], added[:-1]]
    )  # [k, b, n, a]: the noise of t = 0 is never added
    noise = jnp.moveaxis(noise, 0, 2)[:, :, :, None]
    observation = {"state": golden.batch.next_observation["state"][:, None]}
    got = jax.jit(golden.base.decode)(golden.params["base"], observation, noise)
    np.testing.assert_allclose(got[:, :, 0], golden.data["sample/base_actions"], **VALUE)


def test_edit(golden):
    data = golden.data
    features = golden.next_features[:, None]
    action, eps = data["sample/base_actions"][:, :, None], data["edit/eps"][:, :, None]
    net = TanhGaussian(golden.config.hidden, 1, golden.spec.action_dim)
    mean, log_std = jax.jit(net.apply)(golden.params["edit"], features, action)
    np.testing.assert_allclose(mean[:, :, 0], data["edit/mean"], **VALUE)
    np.testing.assert_allclose(jnp.exp(log_std)[:, :, 0], data["edit/std"], rtol=1e-5, atol=2e-5)
    draw_edits = jax.jit(functools.partial(golden.expo.draw_edits, net))
    moved, unit, log_prob = draw_edits(golden.params["edit"], features, action, eps)
    log_prob = log_prob + golden.spec.action_dim * np.log(golden.config.edit_scale)
    np.testing.assert_allclose(moved[:, :, 0], data["edit/edited_actions"], **VALUE)
    saturated = (jnp.abs(unit) > 1 - 1e-4).any(axis=(-2, -1))
    np.testing.assert_allclose(
        np.where(saturated, 0, log_prob),
        np.where(saturated, 0, data["edit/log_prob_unscaled"]),
        rtol=1e-4,
        atol=1e-3,
    )
    np.testing.assert_allclose(log_prob, data["edit/log_prob_unscaled"], rtol=1e-3, atol=2e-2)


def test_select(golden):
    data, members = golden.data, jnp.asarray(golden.data["select/members"])
    action, index, log_prob, q = jax.jit(golden.expo.choose)(
        golden.params["target_critic"], candidates(golden), members, jax.random.key(0)
    )
    np.testing.assert_allclose(q, data["select/q_min"], **VALUE)
    np.testing.assert_array_equal(index, data["select/index"])
    np.testing.assert_allclose(action[:, 0], data["select/action"], **VALUE)
    np.testing.assert_array_equal(log_prob, 0)


def test_target(golden):
    data = golden.data
    target, choice = jax.jit(golden.expo.target)(
        golden.params["target_critic"], golden.temperature, golden.batch, candidates(golden),
        jnp.asarray(data["select/members"]), jnp.asarray(data["target/members"]), jax.random.key(0),
    )  # fmt: skip
    np.testing.assert_allclose(target, data["target/td_target"], **VALUE)
    winners = jax.jit(Critic(golden.config.hidden, 2).apply)(
        take_members(golden.params["target_critic"], jnp.asarray(data["target/members"])),
        golden.next_features, jnp.asarray(data["select/action"])[:, None],
    )  # fmt: skip
    np.testing.assert_allclose(winners.min(axis=0), data["target/next_q"], **VALUE)
    np.testing.assert_array_equal(choice.index, data["select/index"])


def test_critic(golden):
    data, batch, params = golden.data, golden.batch, golden.params
    critic = Critic(golden.config.hidden, golden.config.num_qs)
    value = jax.jit(functools.partial(q_values, critic))
    q = value(params["critic"], golden.features, batch.action)
    np.testing.assert_allclose(q, data["critic/q"], **VALUE)
    target = jnp.asarray(data["target/td_target"])

    def loss(p):
        return critic_loss(q_values(critic, p, golden.features, batch.action), target)

    same_tree(
        jax.jit(jax.grad(loss))(params["critic"]), tree(data, "critic", "critic/grad"), **LOSS
    )
    trainer = CriticTrainer.adam(critic, 3e-4, golden.config.tau, TargetBounds())
    model, target_params, metrics = jax.jit(trainer.step)(
        Model.create(params["critic"], trainer.optimizer),
        params["target_critic"],
        batch,
        golden.features,
        target,
    )
    np.testing.assert_allclose(metrics["critic/loss"], data["critic/loss"], **LOSS)
    same_tree(model.params, tree(data, "critic", "critic/params_after"), **LOSS)
    same_tree(target_params, tree(data, "critic", "critic/target_params_after"), **LOSS)


def test_edit_loss(golden):
    data, params = golden.data, golden.params
    eps = jnp.asarray(data["edit_loss/eps"])[:, None]
    (loss, metrics), grads = jax.jit(jax.value_and_grad(golden.expo.edit_loss, has_aux=True))(
        params["edit"], params["critic"], golden.temperature, golden.batch, eps
    )
    np.testing.assert_allclose(loss, data["edit_loss/loss"], **LOSS)
    np.testing.assert_allclose(metrics["edit/entropy"], data["edit_loss/entropy"], **LOSS)
    same_tree(grads, tree(data, "edit", "edit_loss/grad"), **LOSS)


def test_temperature(golden):
    data = golden.data
    goal = gaussian.target_entropy("released", golden.spec.action_dim)
    assert goal == data["target_entropy"]
    entropy = jnp.asarray(data["edit_loss/entropy"])
    loss, grad = jax.value_and_grad(gaussian.temperature_loss)(
        jnp.asarray(data["params/log_temp"]), entropy, goal
    )
    np.testing.assert_allclose(loss, data["temperature/loss"], **LOSS)
    np.testing.assert_allclose(grad, data["temperature/grad_log_temp"], **LOSS)


def test_base_loss(golden):
    data, batch = golden.data, golden.batch

    def loss(params):
        def predict(x, time):
            condition = golden.denoiser.apply(params, time, method="embed")
            return golden.denoiser.apply(params, golden.features, x, condition)

        noise = jnp.asarray(data["base_loss/noise"])[:, None]
        time = jnp.asarray(data["base_loss/time"])
        return ddpm_loss(
            predict,
            golden.schedule,
            jnp.asarray(batch.action),
            time,
            noise,
            jnp.asarray(batch.valid),
        )

    value, grads = jax.jit(jax.value_and_grad(loss))(golden.params["base"])
    np.testing.assert_allclose(value, data["base_loss/loss"], **LOSS)
    same_tree(grads, tree(data, "base", "base_loss/grad"), **LOSS)


def test_bfloat16_samples(golden):
    start, added = golden.data["sample/initial_noise"], golden.data["sample/step_noise"]
    noise = jnp.moveaxis(jnp.concatenate([start[None], added[:-1]]), 0, 2)[:, :, :, None]
    observation = {"state": golden.batch.next_observation["state"][:, None]}
    decode = jax.jit(golden.coarse_base.decode)
    got = decode(golden.params["base"], observation, noise)[:, :, 0]
    error = np.abs(got - golden.data["sample/base_actions"])
    assert 1e-4 < error.max() < 0.1 and error.mean() < 5e-3


def test_bfloat16_ranks(golden):
    """The same winner wherever the gap is clear; the values are close; the winner's value is
    float32."""
    data, members = golden.data, jnp.asarray(golden.data["select/members"])
    _, index, _, q = jax.jit(golden.coarse.choose)(
        golden.params["target_critic"], candidates(golden), members, jax.random.key(0)
    )
    np.testing.assert_allclose(q, data["select/q_min"], **COARSE)
    assert np.abs(q - data["select/q_min"]).max() > 1e-5, "not rounded at all"
    ordered = np.sort(data["select/q_min"], axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * COARSE["atol"]
    np.testing.assert_array_equal(np.asarray(index)[clear], data["select/index"][clear])
    targets = [
        jax.jit(a.target)(
            golden.params["target_critic"], golden.temperature, golden.batch, candidates(golden),
            members, jnp.asarray(data["target/members"]), jax.random.key(0),
        )[0]
        for a in (golden.expo, golden.coarse)
    ]  # fmt: skip
    agreed = np.asarray(index) == np.asarray(data["select/index"])
    assert agreed.any()
    np.testing.assert_array_equal(np.asarray(targets[0])[agreed], np.asarray(targets[1])[agreed])


def test_bfloat16_leaves_training_alone(golden):
    """Imitation loss, edit loss and their gradients: the same bits in either precision."""
    params, eps = golden.params, jnp.asarray(golden.data["edit_loss/eps"])[:, None]
    weight = jnp.ones(golden.batch.reward.shape)
    for one, other in [
        [jax.jit(jax.value_and_grad(b.loss, has_aux=True))(
            params["base"], golden.batch, weight, jax.random.key(3))
         for b in (golden.base, golden.coarse_base)],
        [jax.jit(jax.value_and_grad(a.edit_loss, has_aux=True))(
            params["edit"], params["critic"], golden.temperature, golden.batch, eps)
         for a in (golden.expo, golden.coarse)],
    ]:  # fmt: skip
        jax.tree.map(np.testing.assert_array_equal, one, other)
