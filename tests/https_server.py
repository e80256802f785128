"""A real HTTPS server on the loopback that serves one file, well or badly."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Server", "serve"]


@dataclass
class Server:
    """What it serves, how, and what it was asked for.

    Parameters
    ----------
    port : int
    content : bytes
    answer : callable
        Gets the handler and the first byte that was asked for; `Server.well` by default.
    requests : list of (str, str or None)
        Path and Range header of each request.
    """

    port: int = 0
    content: bytes = b""
    answer: Callable[[BaseHTTPRequestHandler, int], None] | None = None
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def well(self, handler: BaseHTTPRequestHandler, first: int) -> None:
        """Answer as a server should."""
        total = len(self.content)
        if first:
            handler.send_response(206)
            handler.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        else:
            handler.send_response(200)
        handler.send_header("Content-Length", str(total - first))
        handler.end_headers()
        handler.wfile.write(self.content[first:])

    def cut(self, handler: BaseHTTPRequestHandler, first: int, *, after: int) -> None:
        """Promise all of it, and close the connection after some bytes."""
        rest = self.content[first:]
        handler.send_response(206 if first else 200)
        if first:
            total = len(self.content)
            handler.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
        handler.send_header("Content-Length", str(len(rest)))
        handler.end_headers()
        handler.wfile.write(rest[:after])
        handler.wfile.flush()


@contextmanager
def serve(context: ssl.SSLContext | None) -> Iterator[Server]:
    """Run a server in a thread.

    Parameters
    ----------
    context : SSLContext or None
        None for plain HTTP.

    Yields
    ------
    server : Server
    """
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        timeout = 20

        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append((self.path, asked))
            first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            self.close_connection = True
            with suppress(OSError):  # Whoever asked may have gone.
                (state.answer or state.well)(self, first)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # A refused certificate ends the connection; that is the client's affair.

    server = Quiet(("127.0.0.1", 0), Handler)
    if context is not None:
        # Not before the thread of the request: a client that says nothing would hold up the rest.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
