"""`python -m dpmesh` is the command `dpmesh`, for torchrun and where the command is not on the path."""

import sys

from dpmesh.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
