"""`exporl presets`: named option sets, every number with its source."""

from rich.console import Console
from rich.table import Table

from exporl.cli.parsing import Parser
from exporl.run.presets import PRESETS, check_algorithm, find_preset


def presets_command(args: list[str]) -> int:
    """`exporl presets [ALGO [PRESET]]`."""
    parser = Parser(prog="exporl presets", description="List presets, or one with its sources.")
    parser.add_argument("algorithm", nargs="?")
    parser.add_argument("preset", nargs="?")
    options = parser.parse_args(args)
    if options.preset is None:
        if options.algorithm is not None:
            check_algorithm(options.algorithm)
        for algo, name in PRESETS:
            if options.algorithm in (None, algo):
                print(f"{algo} {name}")
        return 0
    preset = find_preset(options.algorithm, options.preset)
    table = Table("option", "value", "source")
    for option, (value, source) in preset.items():
        table.add_row(option, str(value), source)
    Console().print(table)
    return 0
