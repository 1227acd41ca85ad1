"""The programs of `tsfc mixin examples` that `--notify-exec` starts."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from tsfc.core.watchdog.notices import Notice, encode

EXAMPLES = Path(__file__).parents[1] / "src/tsfc/mixin/files/examples"
LINE = "RESTART: nas on relay for 650s, restarting tailscaled"
NEWS = encode((Notice(1_800_000_000, "RESTART", LINE),))


def tell(name: str, edit: Callable[[str], str], directory: Path) -> None:
    """Run an example with one notice, after an edit that a user would make."""
    text = (EXAMPLES / name).read_text()
    assert edit(text) != text
    program = directory / name
    program.write_text(edit(text))
    subprocess.run([sys.executable, program], input=NEWS, check=True, timeout=20)


def test_ntfy_gets_the_line_as_text(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    class Topic(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Topic) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/topic"
        tell("notify-ntfy", lambda text: text.replace("https://ntfy.sh/change-me", url), tmp_path)
        thread.join()
    assert bodies == [LINE.encode()]


def test_a_mail_has_the_line(tmp_path: Path) -> None:
    """The server says yes to all that a client of SMTP says (RFC 5321)."""
    heard: list[str] = []

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw", newline="\r\n") as stream:
            answer = "220 ready"
            while not answer.startswith("221"):
                stream.write(f"{answer}\n")
                stream.flush()
                heard.append(stream.readline().rstrip("\r\n"))
                said = heard[-1].lower()
                if said == "data":
                    stream.write("354 go on\n")
                    stream.flush()
                    while heard[-1] != ".":
                        heard.append(stream.readline().rstrip("\r\n"))
                answer = "221 bye" if said == "quit" else "250 yes"
            stream.write(f"{answer}\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        server = f'("127.0.0.1", {listener.getsockname()[1]})'
        tell("notify-mail", lambda text: text.replace('("localhost", 25)', server), tmp_path)
        thread.join()
    assert LINE in heard
    assert "To: root@localhost" in heard
