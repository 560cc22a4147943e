"""The page on which a person labels images, served to this machine alone.

Whoever may open the page holds a random token, which is in its address. Every request is checked for the token and
for the name it was sent to, so that neither another user of the machine nor a page from elsewhere gets in; what
comes back may be used by this page alone. Pictures are strangers' bytes: they are served as pictures, under a
policy that lets nothing in them run.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, final

from poolproof.audit.label_pictures import Picture
from poolproof.audit.label_session import Labelling, NotShown
from poolproof.errors import InputError
from poolproof.page import percent, render_page, shorten, visible

HOST: Final = "127.0.0.1"

MAX_BODY: Final = 4096
"""Bytes of a request; a label takes a hundred."""

TIMEOUT: Final = 30.0
"""Seconds that a connection may be silent."""

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NOTHING: Final = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True)
class Answer:
    """What a request gets."""

    status: int
    body: bytes
    media_type: str = "text/plain; charset=utf-8"
    policy: str = f"{_NOTHING}; sandbox"


@final
class LabelServer(ThreadingHTTPServer):
    """Serves the page of one session of labelling.

    Args:
        session: what is shown and recorded.
        port: of this machine; 0 for any that is free.

    Raises:
        InputError: the port is taken or not allowed.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, session: Labelling, *, port: int = 0) -> None:
        if not 0 <= port <= 65535:
            raise InputError(f"--port: got {port}, allowed 0 to 65535; leave it out for any that is free")
        self.session = session
        self.token = secrets.token_urlsafe(24)
        self._open: set[socket.socket] = set()
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise InputError(
                f"--port: got {port}, allowed one that is free ({error.strerror}); leave it out for any"
            ) from error

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names under which the server may be asked."""
        return tuple(f"{name}:{self.server_port}" for name in (HOST, "localhost"))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers a connection in a thread of its own."""
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection that has ended."""
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Closes connections that browsers keep open: nothing is taken on them any more."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # the browser was faster
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Lets a browser hang up without words; other errors are shown as ever."""
        import sys

        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


@contextlib.contextmanager
def serving(server: LabelServer) -> Iterator[LabelServer]:
    """The server, at work in threads until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


@final
class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT
    server: LabelServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        """Sends the page, the state or a picture."""
        found = self._refuse()
        self._send(found or self._get(self._words()))

    def do_POST(self) -> None:
        """Takes a label, or takes one back."""
        found = self._refuse() or self._refuse_post()
        if found is not None:
            self.close_connection = True  # what the body holds is not read
            self._send(found)
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(self._post(self._words(), body))

    def version_string(self) -> str:
        """The name without versions."""
        return "poolproof"

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing: the terminal is for the summary."""

    # --- who may ask

    def _words(self) -> list[str]:
        """The parts of the path behind the token."""
        return self.path.split("?")[0].split("/")[2:]

    def _refuse(self) -> Answer | None:
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            return _say(HTTPStatus.FORBIDDEN, "not asked by the name of this machine")
        token = self.path.split("/")[1] if self.path.startswith("/") and self.path.count("/") > 1 else ""
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            return _say(HTTPStatus.FORBIDDEN, "open the address that the terminal shows")
        if self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return _say(HTTPStatus.FORBIDDEN, "asked by another page")
        return None

    def _refuse_post(self) -> Answer | None:
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.server.hosts]:
            return _say(HTTPStatus.FORBIDDEN, "asked by another page")
        if self.headers.get("Content-Type", "").split(";")[0].strip() != "application/json":
            return _say(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdigit()):
            return _say(HTTPStatus.LENGTH_REQUIRED, "state the length")
        if len(length) > 9 or int(length) > MAX_BODY:
            return _say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {MAX_BODY} bytes")
        return None

    # --- what they get

    def _get(self, words: list[str]) -> Answer:
        if words == [""]:
            return _page()
        if len(words) == 2 and words[0] == "state" and _is_page_id(words[1]):
            return self._state(words[1])
        if len(words) == 2 and words[0] == "picture" and words[1].isascii() and words[1].isdigit():
            picture = self.server.session.picture(int(words[1])) if len(words[1]) < 16 else None
            if picture is not None:
                return Answer(HTTPStatus.OK, picture.data, picture.media_type)
        return _say(HTTPStatus.NOT_FOUND, "nothing here")

    def _post(self, words: list[str], body: bytes) -> Answer:
        try:
            values = json.loads(body)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict) or not _is_page_id(values.get("page")):
            return _say(HTTPStatus.BAD_REQUEST, "send what the page sends")
        page, session = values["page"], self.server.session
        if words == ["undo"]:
            session.undo(page)
            return self._state(page)
        if words != ["label"]:
            return _say(HTTPStatus.NOT_FOUND, "nothing here")
        row, label = values.get("row"), values.get("label")
        if not isinstance(row, int) or isinstance(row, bool) or not isinstance(label, str):
            return _say(HTTPStatus.BAD_REQUEST, "send what the page sends")
        try:
            session.record(page, row, label)
        except NotShown:
            return self._state(page, HTTPStatus.CONFLICT)
        except InputError as error:
            return _say(HTTPStatus.BAD_REQUEST, str(error))
        except OSError as error:
            return _say(HTTPStatus.INSUFFICIENT_STORAGE, f"the label could not be saved: {error.strerror}")
        return self._state(page)

    def _state(self, page: str, status: int = HTTPStatus.OK) -> Answer:
        return _json(describe_state(self.server.session, page), status)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.media_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Content-Security-Policy", answer.policy)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body)


def describe_state(session: Labelling, page: str) -> dict[str, Any]:
    """What a page shows: its item, without what the run says of it, and how far the labels have come.

    Args:
        session: of labelling.
        page: which page asks.
    """
    shown = session.show(page)
    counts, answer = session.counts(), session.answer()
    done = sum(counts.values())
    share: Mapping[str, Any] | None = None
    if answer is not None:
        limits, worst = answer.found.interval, answer.found.worst_case
        share = {
            "point": None if limits.point is None else percent(limits.point),
            "between": f"{percent(limits.lower, sign=False)} to {percent(limits.upper)}",
            "level": f"{100 * limits.level:g}\u00a0%",
            "worst": f"{percent(worst.lower, sign=False)} to {percent(worst.upper)}"
            if answer.found.unsure
            else None,
            "lower": limits.lower,
            "upper": limits.upper,
            "plan": answer.describe_plan(),
        }
    item = None
    if shown is not None:
        picture = isinstance(shown.picture, Picture)
        item = {
            "row": shown.row,
            "key": shorten(shown.key, 80),
            "name": visible(shown.key)[:400],
            "picture": picture,
            "why": None if picture else visible(str(shown.picture)),
        }
    return {
        "item": item,
        "done": done,
        "wanted": session.wanted,
        "all": len(session.candidates),
        "counts": counts,
        "share": share,
        "command": visible(session.next_command()),
    }


def _page() -> Answer:
    nonce = secrets.token_urlsafe(16)
    page = render_page(Path(__file__).with_name("label.html"), nonce=nonce)
    own = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
    policy = f"{_NOTHING}; img-src 'self' data:; connect-src 'self'; {own}"
    return Answer(HTTPStatus.OK, page, "text/html; charset=utf-8", policy)


def _json(value: object, status: int) -> Answer:
    return Answer(status, json.dumps(value, allow_nan=False).encode("ascii"), "application/json")


def _say(status: int, words: str) -> Answer:
    return Answer(status, f"{words}\n".encode())


def _is_page_id(value: object) -> bool:
    """Whether a page may call itself so."""
    return isinstance(value, str) and 8 <= len(value) <= 40 and value.isascii() and value.isalnum()
