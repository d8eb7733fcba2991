"""Entry point of ``python -m midway.cli``, which torchrun needs."""

import sys

from midway.cli import main

if __name__ == "__main__":
    sys.exit(main())
