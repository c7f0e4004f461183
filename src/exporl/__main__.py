"""`python -m exporl`: the command without its script."""

from exporl.cli.entry import command

if __name__ == "__main__":
    command()
