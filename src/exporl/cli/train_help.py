"""What `exporl train --help` says, and what to use instead of options that other programs have.
Nothing here needs JAX."""

import textwrap
from collections.abc import Mapping

WIDTH = 100
"""No line of a help text is wider, on however wide a screen."""
_DOMAINS = ("adroit", "antmaze", "robomimic", "mimicgen")
_SIZES = ("small", "tiny", "demo")
_STABLE = ("stable", "stable-adroit")
_OF_EXPO = (*_SIZES, *_STABLE, "paper", *_DOMAINS, *(f"{name}-pretrained" for name in _DOMAINS))
PRESETS: Mapping[str, tuple[str, ...]] = {
    "expo": _OF_EXPO,
    "best_of_n": _OF_EXPO,
    "idql": (*_SIZES, "paper", "antmaze"),
    "fql": (*_SIZES, "paper", "qc"),
    "calql": (*_SIZES, "paper", "adroit"),
    "qc": (*_SIZES, "paper"),
    "dsrl": (*_SIZES, "paper"),
    "dac": (*_SIZES, "paper", "antmaze"),
    "qsm": (*_SIZES, "paper", "qam"),
    "qam": (*_SIZES, "paper"),
    "residual": (*_SIZES, "paper"),
    "rlpd": (*_SIZES, "stable", "paper", *_DOMAINS),
    "bc": (*_SIZES, "paper"),
}
"""Algorithm -> its presets, as `run.presets.PRESETS` has them."""
_USAGE = """usage: exporl train ALGO --task TASK [options]     a new run
       exporl train --resume RUN [options]        go on with a run, or with a folder of seeds

"""
_EXAMPLES = """examples:
  exporl train expo --task metaworld/peg-insert-side-v3
  exporl train expo --task metaworld/push-v3 --preset stable --seeds 8
  exporl train expo --task robomimic/can --data.path low_dim.hdf5 --data.filter-key train
  exporl train rlpd --task my_module:make_env --data.path demos.npz --reward env
  exporl train expo --task probe/bandit --data.demos 0 --data.prior-ratio 0 --train.offline-steps 0
  exporl train --resume runs/expo-metaworld-push-v3 --train.online-steps 1e5
"""
_RUN_OPTIONS = """
the run:
  --task TASK        family/name (`exporl tasks` lists them), or module:function of your own
  --base POLICY      around a policy that you have: module:attribute, torch:module:function,
                     torch:FILE, sb3:FILE, onnx:FILE, lerobot:FOLDER or ws://HOST:PORT
                     (docs/own_policy.md)
  --preset NAME      where the defaults come from (default small): a name, or a file NAME.toml
                     (docs/training.md#preset-files)
  --run-dir DIR      where the run goes (default runs/<algo>-<task>-s<seed>)
  --resume RUN       go on from the newest checkpoint of a run, or of every run in a folder of seeds
  --trust            load code that the run to resume names, module:attribute (SECURITY.md)
  --seed S           training seed (default 0)
  --seeds N          N runs, with the seeds S, S+1, ..., in runs/<algo>-<task>/s<seed>
  --seeds-mode MODE  how: processes (one per core), vmap (one program, for accelerators) or auto
  --async            act and learn at the same time (--train.asynchronous)
  --devices N        share every minibatch between N devices (--train.devices); with --seeds, each
                     device trains its share of the seeds
  --actors N         N processes act while this one learns (pip install 'exporl[ray]'): for slow
                     simulators; with --num-envs N or a multiple. Not repeatable to the bit
  --address ADDRESS  the Ray cluster that they run on, HOST:PORT or auto (default: this machine)
  --wait-for-cpus S  seconds that a cluster that grows by itself has for a CPU per actor (default 0)
  --listen HOST:PORT the environments are actors on other machines: as many as --num-envs join with
                     `exporl actor`; the task is remote/NAME (docs/distributed.md#robots-that-join)
  --key-file FILE    the key that they have to send; --open: none, on a network that is yours alone
  --wait-for-actors S  seconds that they have to join, and that a lost one's place is kept (600)
  --dry-run          say what the run would hold and send, on how many processes, and end
  --reward R         what is learnt from: -1/0 per step, 0/1, or env (the environment's own)
  -h, --help         this text; after an algorithm, all of its options as well
"""
INSTEAD: Mapping[str, str] = {
    "lr": "there are several learning rates: --algo.critic-learning-rate, --base.learning-rate and "
    "others; `exporl train ALGO --help` lists them",
    "config": "a file of options is a preset: --preset FILE.toml (docs/training.md); --resume RUN "
    "goes on with the config.json of a run",
    "wandb": "nothing is sent anywhere: metrics.jsonl and eval.jsonl in the run's folder have all "
    "numbers, and a callback of `exporl.train` can pass them on (docs/training.md)",
    "device": "JAX chooses the device: JAX_PLATFORMS=cpu (or cuda) in front of the command; "
    "CUDA_VISIBLE_DEVICES=1 picks one of several; --devices N uses N of them",
    "env": "use --task: family/name (`exporl tasks` lists them), or module:function of your own",
    "epochs": "use --train.offline-steps (imitation) and --train.online-steps (environment steps)",
    "steps": "use --train.online-steps (environment steps) or --train.offline-steps (imitation)",
    "output": "use --run-dir",
    "dataset": "use --data.path, a file or folder of episodes",
    "gamma": "use --train.discount",
    "utd": "use --train.utd-ratio",
    "algo": "name the algorithm first: exporl train ALGO --task TASK",
    "load": "use --resume RUN",
    "num-seeds": "use --seeds",
}
"""Option of other programs -> what to use instead."""
SAME: Mapping[str, str] = {
    "lr": "learning-rate",
    "config": "cfg config-file config-path",
    "wandb": "use-wandb track wandb-project project tensorboard logger",
    "device": "gpu gpus gpu-id cpu cuda accelerator",
    "env": "env-id env-name environment gym-id",
    "epochs": "num-epochs max-epochs n-epochs",
    "steps": "num-steps max-steps total-steps timesteps total-timesteps iterations",
    "output": "out output-dir out-dir log-dir logdir save-dir name exp-name",
    "dataset": "data dataset-path data-path demonstrations",
    "algo": "agent method model",
    "load": "checkpoint ckpt restore load-run",
}
"""Other names of the same, with spaces between them."""


def train_help(algorithm: str | None = None) -> str:
    """Examples, presets and the options of a run; no line is wider than `WIDTH`.

    Args:
        algorithm: whose usage stands before it and whose options follow; None where none was named:
            then the usage of the command comes first.
    """
    shown = [name for name in PRESETS if algorithm in (name, None)] or list(PRESETS)
    listed = "".join(_line(name) for name in shown)
    text = _EXAMPLES + _PRESETS + listed + _RUN_OPTIONS
    return text if algorithm else _USAGE + text + _MORE


def _line(algorithm: str) -> str:
    """An algorithm and its presets."""
    names = ", ".join(PRESETS[algorithm])
    first, later = f"  {algorithm:<9} ", " " * 12
    lines = textwrap.wrap(
        names, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )
    return "\n".join(lines) + "\n"


_PRESETS = "\npresets (`exporl presets ALGO PRESET` shows every number and where it is from):\n"
_MORE = """
everything else, with what it means and its default (for another preset: add --preset NAME):
  exporl train ALGO --help

An algorithm of your own is module:attribute in the place of ALGO.
"""


def instead_of(argument: str) -> str | None:
    """What to use instead of an option that other programs have; None for any other argument."""
    if not argument.startswith("--"):
        return None
    name = argument[2:].split("=", 1)[0].replace("_", "-").lower()
    for option, sentence in INSTEAD.items():
        if name == option or name in SAME.get(option, "").split():
            return f"there is no option --{name}: {sentence}."
    return None
