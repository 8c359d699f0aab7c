"""Make a phantom archive: python jobs/phantom.py --archive s3://bucket/archive"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["phantom", *sys.argv[1:]]))
