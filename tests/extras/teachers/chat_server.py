"""A small real server of chat completions, in a thread: what it does with a request is a function of the test.

    with ChatServer(good) as server:
        Endpoint(server.url, "m", answers)

A behaviour takes (handler, request, number of the request) and returns (status, headers, body), or None if it has
answered in its own way.
"""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def chat(content, finish="stop", **message) -> dict:
    return {"choices": [{"message": {"role": "assistant", "content": content} | message, "finish_reason": finish}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 3}}


def good(handler, request, number):
    """The seed decides the answer, so that a test can tell which request an answer belongs to."""
    seed = request["seed"]
    return 200, {}, chat(f"It has {seed}. <answer>{'AB'[seed % 2]}</answer>")


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        book = self.server.book
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with book.lock:
            number = len(book.requests)
            book.requests.append(request)
            book.headers.append((self.path, dict(self.headers)))
            book.times.append(time.monotonic())
            book.now += 1
            book.peak = max(book.peak, book.now)
        try:
            told = book.behave(self, request, number)
        finally:
            with book.lock:  # before the reply, which lets the client's worker go on
                book.now -= 1
        if told:
            self.tell(*told)

    def do_GET(self):
        self.server.book.gets += 1
        self.tell(200, {}, {})

    def tell(self, status, headers, body):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(data)
        except OSError:
            pass  # the client has hung up

    def log_message(self, *args):
        pass


class Quiet(ThreadingHTTPServer):
    daemon_threads, block_on_close, request_queue_size = True, False, 64

    def handle_error(self, request, client_address):
        pass


class ChatServer:
    def __init__(self, behave=good, context=None):
        self.behave, self.lock = behave, threading.Lock()
        self.requests, self.headers, self.times, self.now, self.peak, self.gets = [], [], [], 0, 0, 0
        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.server.book = self
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.port}/v1"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
