import os
import sys

if sys.path[:1] == [os.getcwd()] != [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]:
    del sys.path[0]  # `python -m` looks there first: no file of a user's folder is to be taken for a module of ours

from bench.cli import main

sys.exit(main())
