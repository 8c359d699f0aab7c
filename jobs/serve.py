"""Serve a release: python jobs/serve.py --release default"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["serve", *sys.argv[1:]]))
