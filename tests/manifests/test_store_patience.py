"""A store that does not answer: who asks is told while it waits, once, and at the end what to look at."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from manifests import patience
from manifests.objects import StoreError

WHERE = "s3://bucket/work"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said, with everything shortened to tenths of seconds."""
    monkeypatch.setattr(patience, "_SAID_AFTER_S", 0.1)
    monkeypatch.setattr(patience, "_VOICE", patience._Voice())
    lines: list[str] = []
    patience.say_through(lines.append)
    return lines


def _fails_with(error: Exception, patience_s: float) -> str:
    def call() -> None:
        raise error

    with pytest.raises(StoreError) as caught:
        patience.patiently(call, WHERE, "GET workdir.json", patience_s)
    return str(caught.value)


def test_who_waits_is_told_once_and_at_the_end_of_the_address(said: list[str]) -> None:
    last = _fails_with(ConnectionRefusedError("no one\n  listens"), 0.6)
    assert said == [f"{WHERE} does not answer: ConnectionRefusedError: no one listens; asking for up to 0.6 s"]
    assert "store.endpoint (for S3 also AWS_ENDPOINT_URL)" in last
    assert "\n" not in last


def test_of_many_operations_in_one_outage_one_says_it(said: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _fails_with(ConnectionRefusedError("refused"), 0.6), range(4)))
    assert len(said) == 1


def test_an_error_that_a_server_answered_with_says_nothing_of_the_address(said: list[str]) -> None:
    last = _fails_with(OSError("Please reduce your request rate"), 0.6)
    assert said == [f"{WHERE} answers with errors: OSError: Please reduce your request rate; asking for up to 0.6 s"]
    assert "store.endpoint" not in last


def test_the_clients_own_words_for_an_endpoint_that_is_not_there_are_understood() -> None:
    from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError

    assert patience._is_unreachable(EndpointConnectionError(endpoint_url="http://127.0.0.1:9"))
    assert patience._is_unreachable(ConnectTimeoutError(endpoint_url="http://127.0.0.1:9"))
    assert not patience._is_unreachable(ClientError({"Error": {"Code": "SlowDown"}}, "GetObject"))


def test_nothing_is_said_where_nobody_listens(said: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    patience.say_through(None)
    _fails_with(ConnectionRefusedError("refused"), 0.3)
    assert (said, *capfd.readouterr()) == ([], "", "")
