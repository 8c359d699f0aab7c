"""Publish a release: python jobs/release.py --workspace s3://bucket/work"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["release", *sys.argv[1:]]))
