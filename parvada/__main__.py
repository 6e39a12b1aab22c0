"""`python -m parvada`: the command line."""

import sys

from parvada.cli import main

if __name__ == "__main__":
    sys.exit(main())
