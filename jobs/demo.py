"""Run the whole path on phantoms: python jobs/demo.py --out out/demo"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["demo", *sys.argv[1:]]))
