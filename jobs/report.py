"""Write a run's report: python jobs/report.py grid --workspace s3://bucket/work"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["report", *sys.argv[1:]]))
