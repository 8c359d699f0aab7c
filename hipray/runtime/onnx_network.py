"""ONNX Runtime on CPUs: the same answers as torch's, some 1.2 to 3 times as fast.

Legend of shapes: B films, P side in pixels, C numbers that tell a person.
"""

import numpy as np
import onnxruntime
import torch

from hipray.data.framing import Pixels
from hipray.data.person import People
from hipray.runtime.network import Answers

FILMS, PEOPLE, ANSWERS = "films", "people", "answers"
"""What goes into an exported network and comes out of it."""
ONLY_ERRORS = 3
"""ONNX Runtime's number of the level at which it reports errors and no warnings."""


class OnnxNetwork:
    """An exported network in a session of its own.

    It computes with as many threads as torch was given in this process, and none of them spins
    while it waits: replicas share their cores with others.
    """

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = ONLY_ERRORS
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        widths = {given.name: given.shape[-1] for given in self._session.get_inputs()}
        self._told: int | None = widths.get(PEOPLE)
        """Numbers of each person that the network was exported with."""

    def __call__(self, films: Pixels, people: People | None = None) -> Answers:
        """Return what the network answers (B, ...) of films (B, P, P) uint8, people (B, C)."""
        given = {FILMS: np.ascontiguousarray(films)}
        if self._told is not None:
            assert people is not None, "a network with covariates is told of the people"
            # covariates that the vocabulary got later stand behind those it was trained with
            given[PEOPLE] = np.ascontiguousarray(people[:, : self._told])
        (answers,) = self._session.run([ANSWERS], given)
        return np.asarray(answers, np.float32)
