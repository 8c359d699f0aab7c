"""Train a grid's segmenters: python jobs/segment.py --preset grid --workspace s3://bucket/work"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["segment", *sys.argv[1:]]))
