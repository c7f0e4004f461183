"""`exporl export`: the policy of a run as one folder to give away."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from exporl.cli.parsing import Parser
from exporl.cli.status import notice, say

if TYPE_CHECKING:
    from exporl.bundle.export import Exported

HELP = """\
Writes the policy of a run as one folder (a bundle): parameters, shapes and units, statistics, a
model card (README.md) with the run's own evaluations, SHA-256 of every file, and the same policy as
ONNX, which acts with numpy and onnxruntime alone. The folder is written whole or not at all.

  exporl export runs/peg peg-policy                     # the policy as it was deployed
  exporl export runs/peg peg-base --base                # its base policy alone
  exporl export runs/peg early --checkpoint 6000        # another checkpoint than the newest
  exporl export runs/peg peg-policy --license mit --overwrite
  exporl eval peg-policy                                # plays in its task, or in --task TASK
  exporl export runs/peg peg-policy --push me/peg       # uploads it too; nothing else does

A base policy from outside that learnt is written for its own framework: safetensors with its
weights, the TorchScript or exported program that it came from with them, and how to load both
(README.md).

In Python, on a machine with exporl:   load_policy("peg-policy").next_action(observation)
On a machine without it:               the lines in peg-policy/README.md
"""


def export_command(args: list[str]) -> int:
    """`exporl export RUN DIR [options]`."""
    parser = Parser(
        prog="exporl export", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("folder", type=Path, help="what to write")
    parser.add_argument(
        "--part",
        choices=("policy", "base"),
        default="policy",
        help="the whole policy (default), or its base policy alone",
    )
    parser.add_argument(
        "--base", action="store_const", const="base", dest="part", help="the same as --part base"
    )
    parser.add_argument(
        "--checkpoint", help="number or name of a checkpoint (default: the newest intact one)"
    )
    parser.add_argument(
        "--license", default="unknown", help="for the card, as hubs know it: mit, apache-2.0, ..."
    )
    parser.add_argument(
        "--dataset", action="append", default=[], help="for the card: a data set on the hub"
    )
    parser.add_argument("--no-onnx", action="store_true", help="leave out the ONNX file")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a bundle that is there already"
    )
    parser.add_argument(
        "--trust", action="store_true", help="load code that the run names, module:attribute"
    )
    parser.add_argument("--push", metavar="REPO", help="upload it: owner/name on huggingface.co")
    options = parser.parse_args(args)

    from exporl.bundle.export import export_bundle

    done = export_bundle(
        options.run,
        options.folder,
        part=options.part,
        checkpoint_name=_checkpoint(options.checkpoint),
        licence=options.license,
        datasets=tuple(options.dataset),
        onnx=not options.no_onnx,
        replace=options.overwrite,
        trust=options.trust,
    )
    _tell(done)
    if options.license == "unknown":
        notice("no licence is stated: others may not use it. Say one with --license.")
    say(done.folder)
    if options.push is not None:
        from exporl.bundle.push import push_bundle

        say(push_bundle(done.folder, options.push))
    return 0


def _tell(done: "Exported") -> None:
    """What was written."""
    for name, size in sorted(done.sizes.items()):
        say(f"{name:18s} {size:>10,} bytes")
    say(done.onnx)


def _checkpoint(text: str | None) -> str | None:
    """The name of a checkpoint that is given by number or name."""
    from exporl.files.checkpoint import name_of

    return name_of(int(text)) if text is not None and text.isdecimal() else text
