import json
import logging

import pytest

from hipray.serving import logs
from hipray.serving.logs import JsonFormatter, describe_error, open_logs


def test_the_log_is_opened_once_and_writes_one_object_per_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger("test.hipray")
    monkeypatch.setattr(logs, "ROOT", root)
    open_logs()
    open_logs()
    root.info("request", extra={"told": {"request_id": "id"}})
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert (told["event"], told["request_id"], told["level"]) == ("request", "id", "info")


def test_an_error_is_told_by_its_kind_and_place_and_not_by_its_words() -> None:
    def fail() -> None:
        raise ValueError("Doe^Jane")

    try:
        try:
            fail()
        except ValueError as error:
            raise RuntimeError("s3://bucket/Doe^Jane.dcm") from error
    except RuntimeError as error:
        chain = describe_error(error)
        record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), None)
        record.exc_info = (type(error), error, error.__traceback__)
    assert [each["kind"] for each in chain] == ["RuntimeError", "ValueError"]
    assert chain[1]["frames"][-1].endswith(" fail")
    assert "Doe" not in JsonFormatter().format(record)
