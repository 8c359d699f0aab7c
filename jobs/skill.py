"""Measure what the models can learn on phantoms: python jobs/skill.py"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["skill", *sys.argv[1:]]))
