"""Measure hipray against its peers: python jobs/bench.py grid"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["bench", *sys.argv[1:]]))
