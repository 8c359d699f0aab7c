"""Say what a job would cost: python jobs/plan.py score --output s3://bucket/scores"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["plan", *sys.argv[1:]]))
