"""A small local server that speaks the OpenAI protocol: /v1/chat/completions, /v1/files, /v1/batches.

Started by a test, real HTTP, answers scripted. What a request is about is read from the seed in its body.
"""

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = (
    "Image description: A woman looks at the camera. Her hair is short.\n"
    "Forgery reasoning: Sharpness does not change across the outline of the face. The skin shows pores.\n"
    "Analysis result: real\n"
    "Probability: 0.90\n"
    "Forgery type: Real"
)
USAGE = {"prompt_tokens": 1000, "completion_tokens": 200}


def completion(text=ANSWER, finish="stop", usage=USAGE, **message):
    """The JSON of a chat completion."""
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": "m", "usage": usage,
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
    }  # fmt: skip


def error(message, code=None):
    return {"error": {"message": message, "type": "t", "code": code, "param": None}}


class Server:
    """script: (seed, attempt from 0) -> (status, body: dict or str, headers), or None for a plain answer; it runs in
    the request's thread and may block. requests: bodies of all chat completions. answered: seeds that got status 200.
    batches: id -> batch; `finish` ends one. most: chat completions under way at the same time, at most."""

    def __init__(self, script=None):
        self.script, self.lock = script or (lambda seed, attempt: None), threading.Lock()
        self.requests, self.answered, self.headers, self.calls = [], [], [], []
        self.now = self.most = 0
        self.files, self.batches, self.batch_status = {}, {}, "completed"

    def chat(self, body):
        seed = body.get("seed")
        with self.lock:
            attempt = sum(r.get("seed") == seed for r in self.requests)
            self.requests.append(body)
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            status, reply, headers = self.script(seed, attempt) or (200, completion(), {})
        finally:
            with self.lock:
                self.now -= 1
        with self.lock:
            if status == 200:
                self.answered.append(seed)
        return status, reply, headers

    def make_batch(self, body):
        number = f"batch_{len(self.batches)}"
        self.batches[number] = {
            "id": number, "object": "batch", "endpoint": body["endpoint"], "input_file_id": body["input_file_id"],
            "completion_window": "24h", "status": "in_progress", "created_at": 0, "metadata": body.get("metadata"),
            "output_file_id": None, "error_file_id": None,
        }  # fmt: skip
        return self.batches[number]

    def finish(self, number):
        """Answers a batch from the script, once."""
        batch, out, bad = self.batches[number], [], []
        for line in self.files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            status, reply, _ = self.chat(request["body"])
            entry = {"custom_id": request["custom_id"], "response": {"status_code": status, "body": reply}}
            (out if status == 200 else bad).append(json.dumps(entry | {"error": None}))
        for name, lines in (("output_file_id", out), ("error_file_id", bad)):
            if lines:
                batch[name] = f"{name}-{number}"
                self.files[batch[name]] = "\n".join(reversed(lines))  # the order is not promised
        batch["status"] = "completed"

    def get(self, path):
        if match := re.fullmatch(r"/v1/batches/(\w+)", path):
            batch = self.batches[match[1]]
            if batch["status"] == "in_progress" and self.batch_status == "completed":
                self.finish(match[1])
            elif self.batch_status == "failed":
                batch |= {"status": "failed", "errors": {"object": "list", "data": [{"message": "file too odd"}]}}
            return 200, batch, {}
        if path.startswith("/v1/batches"):
            return 200, {"object": "list", "data": list(self.batches.values())[::-1], "has_more": False}, {}
        if match := re.fullmatch(r"/v1/files/([\w-]+)/content", path):
            return 200, self.files[match[1]], {}
        return 404, error("not found"), {}

    def post(self, path, data):
        if path == "/v1/chat/completions":
            return self.chat(json.loads(data))
        if path == "/v1/files":
            number = f"file-{len(self.files)}"
            self.files[number] = (
                next(p for p in data.split(b"\r\n\r\n") if b'"custom_id"' in p).split(b"\r\n")[0].decode()
            )
            made = {"id": number, "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"}
            return 200, made | {"status": "processed"}, {}
        if path == "/v1/batches":
            return 200, self.make_batch(json.loads(data)), {}
        return 404, error("not found"), {}


@contextmanager
def serve(script=None):
    """A running Server; its address as `url`."""
    server = Server(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def _send(self, status, body, headers):
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in ({"Content-Type": "application/json"} | headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def _handle(self, data=None):
            server.calls.append((self.command, self.path))
            server.headers.append({name.lower(): value for name, value in self.headers.items()})
            path = self.path.split("?")[0]
            reply = server.get(path) if data is None else server.post(path, data)
            try:
                self._send(*reply)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # a client that timed out or was killed

        def do_GET(self):
            self._handle()

        def do_POST(self):
            self._handle(self.rfile.read(int(self.headers["Content-Length"])))

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
