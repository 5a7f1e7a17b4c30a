"""`python -m wsol` is `wsol`."""

import sys

from wsol.cli import main

if __name__ == "__main__":
    sys.exit(main())
