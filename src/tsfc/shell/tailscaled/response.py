"""An HTTP response as it arrives (RFC 9112). httptools parses it."""

from __future__ import annotations

import io
from http import HTTPStatus

from httptools import HttpParserError, HttpResponseParser
from returns.result import Failure, Result, Success

from tsfc.core.faults import Down, Fault, Unusable
from tsfc.core.text import one_line

RESPONSE_LIMIT = 256 * 2**20
"Maximum size of a response in bytes. The status of 10,000 peers has 16 MB."
_HEAD_LIMIT = 2**16
"Maximum size of its head in bytes. Those of tailscaled have 300."
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
"Headers that tell where the body ends. Without them, it ends with the connection."
_REASON_LIMIT = 60


class Response:
    """What has arrived of a response.

    The public methods `on_…` are httptools's interface: it calls them during `feed`.
    """

    def __init__(self, limit: int = RESPONSE_LIMIT) -> None:
        self.is_complete = False
        self.is_reusable = False
        "Whether the connection can take another request."
        self._limit = limit
        self._size = 0
        self._error = ""
        self._is_truncated = False
        self._status = 0
        self._reason = b""
        self._has_head = False
        self._is_framed = False
        self._body = io.BytesIO()
        self._parser = HttpResponseParser(self)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes; an empty piece is the end of the connection."""
        self._size += len(piece)
        if not piece:
            if self._has_head and not self._is_framed:
                self._complete()
            self.is_reusable = False
            self._is_truncated = not self.is_complete
            return
        try:
            self._parser.feed_data(piece)
        except HttpParserError as error:
            self.is_reusable = False
            self._error = "" if self.is_complete else one_line(str(error), 120)
        if not self._has_head and self._size > _HEAD_LIMIT:
            self._error = "its head is too long"

    @property
    def is_done(self) -> bool:
        """Whether no more of it is needed."""
        has_failed = bool(self._error) or self._is_truncated or self._size > self._limit
        return self.is_complete or has_failed

    @property
    def is_empty(self) -> bool:
        """Whether nothing has arrived."""
        return self._size == 0

    def result(self, action: str) -> Result[bytes, Fault]:
        """Return the body of a response that is done, if its status is 200.

        `action` is the beginning of the error line: what the request was for.
        """
        if self._size > self._limit:
            limit = f"{self._limit // 2**20} MiB"
            return Failure(
                Unusable(
                    f"{action}: the response is larger than {limit}; "
                    "check that --socket is tailscaled's socket"
                )
            )
        if self.is_empty:
            return Failure(
                Down(
                    f"{action}: the connection was closed without a response; "
                    "is tailscaled restarting?"
                )
            )
        if self._is_truncated:
            return Failure(
                Unusable(
                    f"{action}: the response is truncated; "
                    "try again, and see `journalctl -u tailscaled`"
                )
            )
        if self._error:
            return Failure(
                Unusable(
                    f"{action}: not a valid HTTP response ({self._error}); "
                    "check that --socket is tailscaled's socket"
                )
            )
        if self._status != HTTPStatus.OK:
            # Quote the error that tailscaled sent.
            reason = one_line(self._reason.decode(errors="replace"), _REASON_LIMIT)
            text = one_line(self._body.getvalue()[:1000].decode(errors="replace"))
            advice = _advice(self._status)
            return Failure(Unusable(f"{action}: {self._status} {reason}: {text}; {advice}"))
        return Success(self._body.getvalue())

    def on_status(self, reason: bytes) -> None:
        """Take a part of the reason phrase."""
        if not self.is_complete:
            self._reason = (self._reason + reason)[:_REASON_LIMIT]

    def on_header(self, name: bytes, _: bytes) -> None:
        """Take a header or a trailer."""
        self._is_framed = self._is_framed or name.lower() in _FRAMING

    def on_headers_complete(self) -> None:
        """Take the end of the head."""
        self._has_head = True

    def on_body(self, piece: bytes) -> None:
        """Take a part of the body."""
        if not self.is_complete:
            self._body.write(piece)

    def on_message_complete(self) -> None:
        """Take the end of the response, or of an interim one (status 1xx)."""
        if self.is_complete:
            return
        if self._parser.get_status_code() < HTTPStatus.OK:
            self._reason, self._has_head, self._is_framed = b"", False, False
            return
        self._complete()
        self.is_reusable = self._parser.should_keep_alive()

    def on_message_begin(self) -> None:
        """Take the beginning of a response; of a second one nobody has asked for."""
        self.is_reusable = False

    def _complete(self) -> None:
        self.is_complete, self._status = True, self._parser.get_status_code()


def _advice(status: int) -> str:
    match status:
        case 403:
            return "run as root, or allow this user with `tailscale set --operator`"
        case 404:
            return "this tailscaled does not support the request; tsfc needs 1.78 or newer"
        case _:
            return "see `journalctl -u tailscaled`"
