"""The program `bench`, and `python -m bench`."""

import os
import sys


def start() -> int:
    """The command line; Ctrl-C while it is still being imported ends it in a line too."""
    try:
        from bench.cli import main

        return main()
    except KeyboardInterrupt:
        print("\nbench: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    if sys.path[:1] == [os.getcwd()] != [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]:
        del sys.path[0]  # `python -m` looks there first: no file of a user's folder is to be taken for a module of ours
    sys.exit(start())
