"""Read an archive into a manifest: python jobs/ingest.py --images s3://bucket/archive"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["ingest", *sys.argv[1:]]))
