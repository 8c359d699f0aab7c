"""Say where a run stands: python jobs/status.py grid --workspace s3://bucket/work"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["status", *sys.argv[1:]]))
