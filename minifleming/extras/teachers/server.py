"""A server with an OpenAI-style chat completions API, as vLLM and llama.cpp have: URL, key, request.

    POST http://localhost:8000/v1/chat/completions
    {"model": "gpt-oss-120b", "messages": [...], "seed": 7, ...}

The key is read from the environment for each request and stored in no object; it leaves the machine
only over https. No redirect is followed and no proxy is used: either would send the key elsewhere.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import NamedTuple
from urllib.parse import urlsplit

from minifleming.run.errors import BadInput, RunFailed

KEY_VARIABLE = "MINIFLEMING_API_KEY"
MAX_BYTES = 4 << 20  # of a reply
CONNECT_SECONDS = 30.0
SECRET = 8  # characters; a shorter key ("EMPTY", "none") is a placeholder and may occur in any text


class Reply(NamedTuple):
    status: int  # 0: there was no complete reply, and ``body`` says why
    body: bytes
    retry_after: float = 0.0  # seconds; dates and unreadable values count as 0


class Server:
    def __init__(self, url: str, timeout: float = 600.0):
        """``timeout``: seconds for a reply. Raises BadInput without repeating the URL or key."""
        try:
            parts = urlsplit(url)
            self.host = parts.hostname or ""
            self.port = parts.port
        except ValueError:
            parts = urlsplit("")
        is_web = parts.scheme in ("http", "https") and parts.hostname
        if not is_web or not re.fullmatch(r"[!-~]+", url) or re.search("[?#@]", url):
            reason = "the server's address must look like http://localhost:8000/v1 or https://h/v1"
            raise BadInput(f"{reason}; a key belongs in {KEY_VARIABLE}")
        self.https = parts.scheme == "https"
        self.path = parts.path.rstrip("/") + "/chat/completions"
        self.timeout = timeout
        self.key()

    def key(self) -> str:
        """Returns the key, "" for none. Raises BadInput if it cannot be sent, or not safely."""
        key = os.environ.get(KEY_VARIABLE, "")
        if not re.fullmatch("[!-~]*", key):
            reason = "a key holds no white space, line end or character beyond ASCII"
            raise BadInput(f"{KEY_VARIABLE}: {reason}")
        if key and not self.https and not is_local(self.host):
            reason = "is set and would travel in clear text: https, or unset it"
            raise BadInput(f"{KEY_VARIABLE} {reason}")
        return key

    def hide_key(self, text: str) -> str:
        """Returns a server's text without the key, in case it repeats it."""
        key = self.key()
        return text.replace(key, "[key]") if len(key) >= SECRET else text

    def describe(self, reply: Reply) -> str:
        """Returns the status and the beginning of the body, on one line."""
        text = reply.body[:MAX_BYTES].decode("utf-8", "replace").replace("\\/", "/")
        text = self.hide_key(text)[:2000]
        text = "".join(char if char.isprintable() else " " for char in text)
        return f"{self.host}: {reply.status or 'no reply'}: {' '.join(text.split())[:200]}"

    def post(self, body: bytes) -> Reply:
        """Raises RunFailed for an invalid certificate; other failures are a reply with status 0."""
        headers = {"Content-Type": "application/json", "Connection": "close"}
        key = self.key()
        if key:
            headers["Authorization"] = f"Bearer {key}"
        kind = HTTPSConnection if self.https else HTTPConnection
        connection = kind(self.host, self.port, timeout=min(CONNECT_SECONDS, self.timeout))
        try:
            return self._exchange(connection, body, headers)
        except ssl.SSLCertVerificationError as error:
            reason = f"{error.verify_message}: the server's certificate does not hold"
            raise RunFailed(f"{self.host}: {reason}") from None
        except (OSError, HTTPException) as error:
            return Reply(0, (str(error) or type(error).__name__).encode())
        finally:
            connection.close()

    def _exchange(self, connection: HTTPConnection, body: bytes, headers: dict) -> Reply:
        end = time.monotonic() + self.timeout
        connection.connect()
        socket = connection.sock
        socket.settimeout(self.timeout)
        connection.request("POST", self.path, body, headers)
        response = connection.getresponse()
        data = bytearray()
        while piece := response.read1(1 << 16):
            data += piece
            if len(data) > MAX_BYTES:
                return Reply(0, f"a reply of more than {MAX_BYTES} bytes".encode())
            if time.monotonic() > end:  # a slow trickle passes the socket's own timeout
                raise TimeoutError("timed out")
            socket.settimeout(max(end - time.monotonic(), 0.001))
        header = response.getheader("Retry-After", "").strip()
        seconds = float(header) if re.fullmatch(r"\d+(\.\d+)?", header, re.ASCII) else 0.0
        return Reply(response.status, bytes(data), seconds)


def is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
