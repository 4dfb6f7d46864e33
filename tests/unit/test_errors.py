"""Each error carries its consequence."""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from h2log.errors import (
    H2logError,
    HTTPError,
    SessionError,
    StreamError,
    UsageError,
    reason_phrase,
)


def test_every_error_has_one_root() -> None:
    """Whoever catches H2logError catches all that is raised on purpose."""
    errors: list[Exception] = [
        UsageError("x"),
        SessionError(ErrorCodes.PROTOCOL_ERROR, "x"),
        StreamError(1, ErrorCodes.CANCEL, "x"),
        HTTPError(404),
    ]
    assert all(isinstance(error, H2logError) for error in errors)


def test_a_connection_error_is_a_goaway() -> None:
    """It has the code and the debug data of the frame, and says both."""
    error = SessionError(ErrorCodes.ENHANCE_YOUR_CALM, "too many pings")
    assert (error.code, error.detail) == (ErrorCodes.ENHANCE_YOUR_CALM, "too many pings")
    assert str(error) == "ENHANCE_YOUR_CALM: too many pings"


def test_a_stream_error_is_a_rst_stream() -> None:
    """It has the stream and the code of the frame, and says both."""
    error = StreamError(5, ErrorCodes.REFUSED_STREAM, "no room")
    assert (error.stream_id, error.code, error.detail) == (5, ErrorCodes.REFUSED_STREAM, "no room")
    assert str(error) == "stream 5: REFUSED_STREAM: no room"


def test_an_http_error_is_a_response() -> None:
    """Its detail is the reason phrase unless there is something better to say."""
    plain = HTTPError(404)
    assert (plain.status, plain.detail, plain.headers) == (404, "Not Found", ())
    special = HTTPError(503, "come back", (("retry-after", "5"),))
    assert special.detail == "come back"
    assert special.headers == (("retry-after", "5"),)
    assert str(special) == "503 come back"


@pytest.mark.parametrize("status", [0, 200, 304, 399, 600, -404])
def test_an_http_error_is_an_error_status(status: int) -> None:
    """A status below 400 or above 599 is a ValueError that names it."""
    with pytest.raises(ValueError, match=f"from 400 to 599, got {status}"):
        HTTPError(status)


@pytest.mark.parametrize("status", [400, 599])
def test_the_bounds_of_an_http_error_are_in(status: int) -> None:
    """400 and 599 themselves can be raised."""
    assert HTTPError(status).status == status


def test_an_unregistered_status_has_a_phrase_too() -> None:
    """It is told by its number."""
    assert reason_phrase(418) == "I'm a Teapot"
    assert reason_phrase(599) == "Status 599"
