"""Run a program of timm's, such as its train.py or validate.py, with this library's networks.

python -m pointcluster.timm train.py --model coc_small --data-dir imagenet ...
"""

from __future__ import annotations

import os
import runpy
import sys

import pointcluster.timm  # noqa: F401  (registers the networks)


def main() -> None:
    """Run the program that the first argument names, with the other arguments."""
    if len(sys.argv) < 2 or not os.path.isfile(sys.argv[1]):
        found = f"{sys.argv[1]} is not there" if len(sys.argv) > 1 else "none was named"
        sys.exit(
            f"usage: python -m pointcluster.timm PROGRAM.py [ARGUMENT ...]; the program: {found}"
        )
    del sys.argv[0]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
