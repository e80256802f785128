"""Voilà as ``stemlab lab --voila`` starts it: ``python -m stemlab.cli._voila FOLDER``.

By itself, Voilà asks for no token unless told to, opens its page without one, answers under any
host name, and serves pictures to everybody.
"""

from __future__ import annotations

import tempfile
import threading
import webbrowser
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jupyter_server.base.handlers import JupyterHandler
from tornado import web
from voila.app import Voila
from voila.static_file_handler import AllowListFileHandler

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class _Files(JupyterHandler, AllowListFileHandler):  # type: ignore[misc]  # Voilà has no types
    """Serves pictures beside the notebooks, only to those who have the token."""

    @web.authenticated
    async def get(self, path: str, include_body: bool = True) -> None:
        await AllowListFileHandler.get(self, path, include_body)


class Pages(Voila):  # type: ignore[misc]  # Voilà has no types
    """Answers only under the names of this machine, unless the user's settings name another."""

    _redirect: Path | None = None

    def init_settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = super().init_settings()
        settings["allow_remote_access"] = self.ip not in _THIS_MACHINE
        return settings

    def init_handlers(self) -> list[Any]:
        return [
            (pattern, _Files if handler is AllowListFileHandler else handler, *more)
            for pattern, handler, *more in super().init_handlers()
        ]

    def launch_browser(self) -> None:
        """Open the address with the token through a file: other users can read command lines."""
        token = self.identity_provider.token
        url = self.connection_url + ("?" + urlencode({"token": token}) if token else "")
        with tempfile.NamedTemporaryFile(
            "w", suffix=".html", encoding="utf-8", delete=False
        ) as file:
            file.write(f'<meta http-equiv="refresh" content="0; url={escape(url)}">')
        self._redirect = Path(file.name)
        threading.Thread(target=webbrowser.open, args=[self._redirect.as_uri()]).start()

    def stop(self) -> None:
        """End the server."""
        super().stop()
        if self._redirect is not None:
            with suppress(OSError):
                self._redirect.unlink()


if __name__ == "__main__":
    Pages.launch_instance()
