"""A server that speaks OpenAI's chat completions (vLLM and llama.cpp do): its address, its key, one request.

    POST http://localhost:8000/v1/chat/completions   {"model": "gpt-oss-120b", "messages": [...], "seed": 7, ...}

The key is read from the environment for each request and kept in no object; it leaves the machine under https alone. No
redirect is followed and no proxy is used: either would carry the key to another host.
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

LARGEST = 4 << 20  # bytes of a reply
CONNECT = 30.0  # seconds for a connection
SECRET = 8  # characters; a shorter key ("EMPTY", "none") stands there for form's sake and may occur in any text


class Reply(NamedTuple):
    status: int  # 0: there was no whole reply, and ``body`` says why
    body: bytes
    retry_after: str = ""


class Server:
    def __init__(self, url: str, key_variable: str = "MINIFLEMING_API_KEY", timeout: float = 600.0):
        """``timeout``: seconds for a whole reply. Raises BadInput, which never repeats the address or the key."""
        try:
            parts = urlsplit(url)
            self.host, self.port, self.https = parts.hostname or "", parts.port, parts.scheme == "https"
        except ValueError:
            raise BadInput("the server's address is none: it looks like http://localhost:8000/v1") from None
        if "@" in parts.netloc:
            raise BadInput("the server's address holds a user name or password: a key belongs in " + key_variable)
        if parts.scheme not in ("http", "https") or not self.host or "?" in url or "#" in url \
                or not re.fullmatch("[!-~]+", url):
            raise BadInput("the server's address must look like http://localhost:8000/v1 or https://host/v1")
        self.path = parts.path.rstrip("/") + "/chat/completions"
        self.key_variable, self.timeout = key_variable, timeout
        self.key()

    def key(self) -> str:
        """The key, "" for none. Raises BadInput if it cannot be sent, or would be readable on its way."""
        key = os.environ.get(self.key_variable, "")
        if not re.fullmatch("[!-~]*", key):
            raise BadInput(f"{self.key_variable}: a key holds no white space, line end or character beyond ASCII")
        if key and not self.https and not is_local(self.host):
            raise BadInput(f"{self.key_variable} is set and would travel in clear text: https, or unset it")
        return key

    def hide(self, text: str) -> str:
        """A server's text without the key, should it repeat it."""
        key = self.key()
        return text.replace(key, "[key]") if len(key) >= SECRET else text

    def tell(self, reply: Reply) -> str:
        """Status and the beginning of the body, on one line."""
        text = self.hide(reply.body[:LARGEST].decode("utf-8", "replace").replace("\\/", "/"))
        text = "".join(c if c.isprintable() else " " for c in text[:2000])
        return f"{self.host}: {reply.status or 'no reply'}: {' '.join(text.split())[:200]}"

    def post(self, body: bytes) -> Reply:
        """Raises RunFailed for a certificate that does not hold; every other failure is a reply with status 0."""
        key, end = self.key(), time.monotonic() + self.timeout
        headers = {"Content-Type": "application/json", "Connection": "close"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        kind = HTTPSConnection if self.https else HTTPConnection
        connection = kind(self.host, self.port, timeout=min(CONNECT, self.timeout))
        try:
            connection.connect()
            socket = connection.sock
            socket.settimeout(self.timeout)
            connection.request("POST", self.path, body, headers)
            response, data = connection.getresponse(), bytearray()
            while piece := response.read1(1 << 16):
                data += piece
                if len(data) > LARGEST:
                    return Reply(0, f"a reply of more than {LARGEST} bytes".encode())
                if time.monotonic() > end:  # it came in drops
                    raise TimeoutError("timed out")
                socket.settimeout(max(end - time.monotonic(), 0.001))
            return Reply(response.status, bytes(data), response.getheader("Retry-After", ""))
        except ssl.SSLCertVerificationError as error:
            raise RunFailed(f"{self.host}: {error.verify_message}: the server's certificate does not hold") from None
        except (OSError, HTTPException) as error:
            return Reply(0, (str(error) or type(error).__name__).encode())
        finally:
            connection.close()


def is_local(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
