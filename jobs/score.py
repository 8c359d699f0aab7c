"""Score an archive: python jobs/score.py --images s3://bucket/films --release default"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["score", *sys.argv[1:]]))
