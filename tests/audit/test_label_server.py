"""The labelling page's server, request by request: who gets in, what comes back, what is refused."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_pools import SIDE, draw, write_class
from label_runs import make_run, open_session, spec
from PIL import Image

from poolproof.audit.label_pictures import SERVED, Picture, show_picture
from poolproof.audit.label_server import MAX_BODY, LabelServer, serving
from poolproof.audit.label_session import Labelling
from poolproof.audit.labels import read_labels
from poolproof.audit.run import audit_pool
from poolproof.errors import InputError

PAGE = "page0number1"


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Asks a server as any program could."""

    server: LabelServer

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Sends one request; a body that is not bytes is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=10)
        sent: dict[str, str] = {}
        if body is not None:
            sent["Content-Type"] = "application/json"
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        token = self.server.token if token is None else token
        try:
            connection.request(
                method or ("GET" if body is None else "POST"),
                f"/{token}/{path}",
                body,
                sent | dict(headers or {}),
            )
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()

    def state(self, page: str = PAGE) -> Any:
        """What a page shows."""
        return self.ask(f"state/{page}").json()

    def label(self, label: str, page: str = PAGE, row: int | None = None) -> Reply:
        """Labels what a page shows, or the row given."""
        row = self.state(page)["item"]["row"] if row is None else row
        return self.ask("label", {"page": page, "row": row, "label": label})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 items."""
    return make_run(tmp_path_factory.mktemp("served"))


@pytest.fixture
def client(finished: Path, tmp_path: Path) -> Iterator[Client]:
    """A server with a label file of its own."""
    with serving(LabelServer(open_session(finished, path=tmp_path / "l.jsonl", seed=1))) as server:
        yield Client(server)


def test_page_state_and_picture(client: Client) -> None:
    """The page, what it shows and the picture come back, each under a policy that lets in nothing from elsewhere."""
    page = client.ask("")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert b"http:" not in page.body
    assert b"https:" not in page.body
    state = client.state()
    assert (state["done"], state["wanted"], state["all"], state["share"]) == (0, 20, 20, None)
    picture = client.ask(f"picture/{state['item']['row']}")
    assert picture.headers["Content-Type"] == "image/png"
    assert picture.headers["X-Content-Type-Options"] == "nosniff"
    assert picture.headers["Content-Security-Policy"].endswith("sandbox")
    assert picture.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert Image.open(io.BytesIO(picture.body)).size == (SIDE, SIDE)
    for reply in (page, picture):
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["Server"] == "poolproof"


def test_nothing_of_the_evidence_is_shown(client: Client) -> None:
    """Before the label a page learns an item's row, name and picture, and nothing that the run says of it."""
    state = client.state()
    assert set(state["item"]) == {"row", "key", "name", "picture", "why"}
    assert set(state) == {"item", "done", "wanted", "all", "counts", "share", "command"}


@pytest.mark.parametrize("path", ["", f"state/{PAGE}", "picture/0"])
@pytest.mark.parametrize("token", ["", "wrong", "%2e%2e", "a" * 5000])
def test_wrong_token_is_403(client: Client, token: str, path: str) -> None:
    """Without the token nothing comes back, whatever is asked."""
    reply = client.ask(path, token=token)
    assert reply.status == 403
    assert client.server.token.encode() not in reply.body


@pytest.mark.parametrize(
    ("start", "hosts", "status"),
    [
        (b"GET /%(token)s/", [b"%(host)s"], 200),
        (b"GET /%(token)s/", [], 403),
        (b"GET /%(token)s/", [b"%(host)s", b"%(host)s"], 403),
        (b"GET /%(token)s\xc3\xa9/", [b"%(host)s"], 403),
        (b"GET /\xff/", [b"%(host)s"], 403),
        (b"GET http://%(host)s/%(token)s/", [b"%(host)s"], 403),
        (b"GET /%(token)s/picture/\xd9\xa3", [b"%(host)s"], 404),
        (b"GET /%(token)s/picture/\xb2", [b"%(host)s"], 404),
    ],
)
def test_raw_requests(client: Client, start: bytes, hosts: list[bytes], status: int) -> None:
    """Requests that no browser sends, with bytes that are no text or with no or two hosts, get an answer too."""
    values = {
        b"token": client.server.token.encode(),
        b"host": f"127.0.0.1:{client.server.server_port}".encode(),
    }
    lines = [start + b" HTTP/1.1", *(b"Host: " + host for host in hosts), b"Connection: close", b"", b""]
    with socket.create_connection(("127.0.0.1", client.server.server_port), timeout=10) as connection:
        connection.sendall(b"\r\n".join(lines) % values)
        reply = connection.makefile("rb").read()
    assert reply.startswith(b"HTTP/1.1 %d " % status)


def test_wrong_token_takes_no_label(client: Client) -> None:
    """Without the token nothing is recorded or taken back."""
    row = client.state()["item"]["row"]
    body = {"page": PAGE, "row": row, "label": "real"}
    assert client.ask("label", body, token="wrong").status == 403
    assert client.ask("undo", {"page": PAGE}, token=client.server.token[:-1]).status == 403
    assert client.state()["done"] == 0


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "evil.example:{port}", "127.0.0.1:1", ""])
def test_wrong_host_is_403(client: Client, host: str) -> None:
    """A name that a stranger's page made point here gets nothing, with the right token too."""
    reply = client.ask("", headers={"Host": host.format(port=client.server.server_port)})
    assert reply.status == 403
    local = client.ask("", headers={"Host": f"localhost:{client.server.server_port}"})
    assert local.status == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}]
)
def test_requests_of_other_pages_are_403(client: Client, headers: dict[str, str]) -> None:
    """A label that another page sends is refused, though the token be right."""
    row = client.state()["item"]["row"]
    reply = client.ask("label", {"page": PAGE, "row": row, "label": "real"}, headers=headers)
    assert reply.status == 403
    assert client.state()["done"] == 0


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "picture/../../run.json",
        "picture/..%2f..%2frun.json",
        "picture/%2e%2e/run.json",
        "picture//etc/passwd",
        "picture/-1",
        "picture/0x1",
        "picture/" + "9" * 400,
        "picture/999999999999999",
        "state/../x",
        "state/short",
        "run.json",
        "label",
    ],
)
def test_other_paths_are_404(client: Client, path: str) -> None:
    """Only the page, states and pictures by number exist; no path leads to a file."""
    reply = client.ask(path)
    assert reply.status == 404
    assert reply.body == b"nothing here\n"


def test_only_shown_pictures_are_served(client: Client) -> None:
    """A picture that no page shows is not given out."""
    row = client.state()["item"]["row"]
    others = [client.ask(f"picture/{other}").status for other in range(20) if other != row]
    assert set(others) == {404}
    assert client.ask(f"picture/{row}").status == 200


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * (MAX_BODY + 1), {}, 413),
        (b"{}", {"Content-Length": "99999999999999999999"}, 413),
        (b"{}", {"Content-Length": "-1"}, 411),
        (b"{}", {"Content-Length": "2", "Transfer-Encoding": "chunked"}, 411),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"{", {}, 400),
        (b"\xff", {}, 400),
        (b"[" * 4000, {}, 400),
        (b"[]", {}, 400),
        (b"{}", {}, 400),
        (b'{"page": "../../x", "row": 1, "label": "real"}', {}, 400),
        (b'{"page": "page0number1", "row": "1", "label": "real"}', {}, 400),
        (b'{"page": "page0number1", "row": true, "label": "real"}', {}, 400),
        (b'{"page": "page0number1", "row": 1, "label": 3}', {}, 400),
    ],
)
def test_bad_bodies_are_refused(client: Client, body: bytes, headers: dict[str, str], status: int) -> None:
    """Bodies too large, of no stated size, of another type or shape cost an answer, and nothing else."""
    assert client.ask("label", body, headers=headers).status == status
    assert client.state()["done"] == 0


def test_unknown_labels_and_actions_are_refused(client: Client) -> None:
    """A label that does not exist is 400, an action 404, a method 501."""
    row = client.state()["item"]["row"]
    assert client.label("fake", row=row).status == 400
    assert client.ask("delete", {"page": PAGE}).status == 404
    assert client.ask("label", method="DELETE").status == 501
    assert client.state()["done"] == 0


def test_label_and_undo(client: Client) -> None:
    """A label is on the disk when the next item comes back; undo brings the item back."""
    first = client.state()["item"]
    after = client.label("synthetic").json()
    assert (after["done"], after["counts"]["synthetic"]) == (1, 1)
    assert after["item"]["row"] != first["row"]
    assert after["share"]["between"].endswith("100\u00a0%")
    path = client.server.session.file.path
    assert read_labels(path).labels[first["row"]].label == "synthetic"
    before = client.ask("undo", {"page": PAGE}).json()
    assert (before["done"], before["item"]) == (0, first)
    assert read_labels(path).labels == {}


def test_second_click_is_409(client: Client) -> None:
    """A click that comes again after its item has gone changes nothing, and gets what is shown now."""
    row = client.state()["item"]["row"]
    client.label("real", row=row)
    again = client.label("synthetic", row=row)
    assert again.status == 409
    assert again.json()["counts"] == {"real": 1, "synthetic": 0, "unsure": 0}


def test_clicks_at_once_are_all_saved_once(client: Client) -> None:
    """Five pages that click at the same time label every item exactly once, and the file is whole."""
    failures: list[int] = []

    def work(page: str) -> None:
        state = client.state(page)
        while state["item"] is not None:
            reply = client.label("real", page, state["item"]["row"])
            if reply.status != 200:
                failures.append(reply.status)
            state = reply.json()

    threads = [threading.Thread(target=work, args=(f"page0number{i}",)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    lines = client.server.session.file.path.read_text("ascii").splitlines()[1:]
    assert Counter(Counter(json.loads(line)["row"] for line in lines).values()) == {1: 20}


def test_same_click_many_times_at_once_is_saved_once(client: Client) -> None:
    """Of ten equal requests at once one is taken."""
    row, statuses = client.state()["item"]["row"], []

    def click() -> None:
        statuses.append(client.label("real", row=row).status)

    threads = [threading.Thread(target=click) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [200] + 9 * [409]
    assert len(client.server.session.file.path.read_text("ascii").splitlines()) == 2


def test_labels_that_cannot_be_saved_are_said(client: Client) -> None:
    """Where the file has gone the page is told, and the session goes on."""
    row = client.state()["item"]["row"]
    client.server.session.file.path.unlink()
    reply = client.label("real", row=row)
    assert reply.status == 507
    assert b"could not be saved" in reply.body


def test_server_listens_on_this_machine_alone(client: Client) -> None:
    """The socket is bound to the loopback address, and the token has 192 random bits."""
    assert client.server.server_address[0] == "127.0.0.1"
    assert len(client.server.token) == 32
    assert client.server.url == f"http://127.0.0.1:{client.server.server_port}/{client.server.token}/"


def test_ports_that_cannot_be_had_are_refused(client: Client) -> None:
    """A port out of range or taken is one line."""
    session = client.server.session
    for port in (-1, 70_000, client.server.server_port):
        with pytest.raises(InputError, match=f"--port: got {port}"):
            LabelServer(session, port=port)


# --- pictures


def sha256(data: bytes) -> str:
    """A content hash."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_own_bytes_or_a_png(kind: str, encode: Callable[..., bytes]) -> None:
    """What browsers show is served as it is; the rest as a PNG of the same pixels."""
    image = Image.fromarray(draw(np.random.default_rng(0), synthetic=False))
    data = encode(image, kind)
    found = show_picture(data, sha256(data))
    assert isinstance(found, Picture)
    if kind in SERVED:
        assert (found.data, found.media_type) == (data, SERVED[kind])
    else:
        assert found.media_type == "image/png"
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(found.data))), pixels)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_are_shown_by_their_first_frame(kind: str, encode: Callable[..., bytes]) -> None:
    """What was scored is what is looked at: the first frame, still."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    found = show_picture(data, sha256(data))
    assert isinstance(found, Picture)
    shown = Image.open(io.BytesIO(found.data))
    assert (found.media_type, getattr(shown, "n_frames", 1)) == ("image/png", 1)
    red, green, blue = np.asarray(shown)[8, 8].tolist()
    assert red > 200 > 60 > max(green, blue)


@pytest.mark.parametrize(
    "data",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"%PDF-1.7",
        b"",
        b"\x89PNG\r\n\x1a\n" + b"<script>" * 20,
    ],
)
def test_active_files_are_never_served(data: bytes) -> None:
    """SVG, pages and what only begins like a picture give a reason, not bytes."""
    assert isinstance(show_picture(data, sha256(data)), str)


def test_picture_with_a_page_behind_it_is_a_picture(encode: Callable[..., bytes]) -> None:
    """A PNG that a page is hung on is served as a PNG, by its pixels' format alone."""
    image = Image.fromarray(draw(np.random.default_rng(0), synthetic=False))
    data = encode(image, "PNG") + b"<html><script>alert(1)</script></html>"
    found = show_picture(data, sha256(data))
    assert isinstance(found, Picture)
    assert found.media_type == "image/png"


def test_names_come_as_text(tmp_path: Path) -> None:
    """Markup stays text, and characters that redirect others become escapes, in every place a name is sent to."""
    pool = write_class(tmp_path / "pool", 1, synthetic=False, seed=0)
    shutil.move(pool / "0000.png", pool / "<img src=x onerror=alert(1)>\u202egnp.png")
    audit_pool(spec(tmp_path))
    session = open_session(tmp_path / "run")
    with serving(LabelServer(session)) as server:
        item = Client(server).state()["item"]
    assert item["key"] == item["name"] == "<img src=x onerror=alert(1)>\\u202egnp.png"
    assert isinstance(session, Labelling)
