"""`exporl actor`: the environment of this machine in a training elsewhere. Imports no JAX."""

import argparse
from pathlib import Path

from exporl.acting.failures import in_words
from exporl.actor.environment import ActorEnvironment, load_environment
from exporl.actor.joining import EnvironmentBroke, Joining
from exporl.cli.keys import read_key
from exporl.cli.numbers import number
from exporl.cli.parsing import Parser
from exporl.cli.status import FAILED, notice
from exporl.serve.client import check_packages

HELP = """examples:
  exporl train expo --task remote/arm --listen 0.0.0.0:8765 --key-file key.txt   # where it learns
  exporl actor --env my_robot:make_env --address TRAINER:8765 --key-file key.txt # on the robot's PC

The function takes no arguments and returns an environment as gymnasium has them: reset, step,
close, observation_space and action_space of Boxes. This machine needs numpy, websockets and
msgpack, and what the environment itself needs: no JAX. docs/distributed.md: what is sent, what
happens where a connection is lost.
"""


def actor_command(args: list[str]) -> int:
    """`exporl actor --env MODULE:FUNCTION --address HOST:PORT [--key-file FILE] ...`."""
    options = _parser().parse_args(args)
    check_packages()
    key = None if options.key_file is None else read_key(options.key_file)
    env = ActorEnvironment(
        load_environment(options.env),
        max_episode_steps=options.max_episode_steps,
        control_hz=options.control_hz,
    )
    joining = Joining(env, options.address, api_key=key, wait_s=options.wait, say=notice)
    try:
        joining.run()
    except EnvironmentBroke as error:
        notice(f"error: {in_words(error)}")
        return FAILED
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="exporl actor",
        description="Lets a training elsewhere act in the environment of this machine.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--env", required=True, metavar="MODULE:FUNCTION", help="what makes the environment"
    )
    parser.add_argument("--address", required=True, help="HOST:PORT of the training")
    parser.add_argument("--key-file", type=Path, help="text file with the key that it wants")
    parser.add_argument(
        "--max-episode-steps", type=number(1), help="time limit; default: the environment's own"
    )
    parser.add_argument(
        "--control-hz",
        type=number(0.001, whole=False),
        help="actions per second, if they are known; default: the environment's control_hz",
    )
    parser.add_argument(
        "--wait",
        type=number(0.001, whole=False),
        default=600.0,
        help="seconds within which the training has to be found, and found again (600)",
    )
    return parser
