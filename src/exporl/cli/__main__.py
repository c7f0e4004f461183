"""`python -m exporl.cli`: the command without its script."""

from exporl.cli.main import command

if __name__ == "__main__":
    command()
