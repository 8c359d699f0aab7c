"""Choose settings: python jobs/tune.py --workspace s3://bucket/work --variant augmented"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["tune", *sys.argv[1:]]))
