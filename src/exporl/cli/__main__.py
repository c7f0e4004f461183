"""`python -m exporl.cli`: the command without its script."""

import sys

from exporl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
