"""A stand-in for `vllm serve`: the same log lines, /health, and a grandchild that leaves the process group."""

import os
import signal
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """Healthy."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def value(flag):
    return sys.argv[sys.argv.index(flag) + 1]


folder = Path(sys.argv[2])
print("(APIServer pid=1) INFO 11-23 15:32:16 [model.py:733] Resolved architecture: DeepseekV3ForCausalLM", flush=True)
if (folder / "crash").exists():
    print("(APIServer pid=1) ERROR 11-23 15:32:17 [core.py:1] the fake engine was told to crash", flush=True)
    sys.exit(3)
if (folder / "stubborn").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-S", "-c", "import os, time; os.setsid(); time.sleep(600)"])
server = HTTPServer((value("--host"), int(value("--port"))), Handler)
print(f"(EngineCore pid=2) INFO 11-23 15:32:25 [core.py:133] serving from process {os.getpid()}", flush=True)
server.serve_forever()
