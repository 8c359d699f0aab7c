"""The stage that decodes: many of its processes share a machine, so each is small."""

import subprocess
import sys


def test_a_decoder_does_without_the_libraries_of_networks_and_statistics() -> None:
    heavy = "{'torch', 'onnxruntime', 'scipy.stats', 'sklearn'}"
    asked = f"import sys, hipray.scoring.decoder; print({heavy} & {{*sys.modules}})"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"
