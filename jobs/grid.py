"""Train a grid: python jobs/grid.py --preset grid --workspace s3://bucket/work"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["grid", *sys.argv[1:]]))
