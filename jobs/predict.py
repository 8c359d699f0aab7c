"""Score one film: python jobs/predict.py film.dcm --release default"""

import sys

from hipray.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["predict", *sys.argv[1:]]))
