"""The console script with a fake engine, a fake gateway, and a proof that says what $FAKE_VERDICT says.

Also what that script takes for its interpreter: `fake_baton.py -m baton VERB ...` is `baton VERB ...`.
"""

import json
import os
import runpy
import sys
import tempfile
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import baton.cli.down
import baton.cli.supervise
import baton.cli.up
from baton.local.session import Machine
from baton.prove.verdict import Check, Verdict
from baton.recipe.workers import load_workers

HERE = Path(__file__).parent


def this_machine():
    return Machine(
        env=dict(os.environ),
        cores=[0, 1],
        temp=Path(tempfile.gettempdir()),
        python=os.environ["FAKE_PYTHON"],
        vllm=(sys.executable, "-S", str(HERE / "fake_vllm.py")),
    )


async def ensure_engine(machine, progress, *, fetch):
    pass


async def prove_deployment(workers, gateway_url, *, random):
    ok = os.environ.get("FAKE_VERDICT", "proven") == "proven"
    return Verdict(checks=(Check(name="fake check", ok=ok, expected="yes", found="yes" if ok else "no"),))


def state_of(worker):
    try:
        urllib.request.urlopen(worker.url + "/health", timeout=1).close()
    except OSError:
        return "unreachable"
    return "ready"


def gateway(workers_file, port):
    workers = load_workers(workers_file).workers

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            states = [{"name": w.name, "state": state_of(w), "reason": ""} for w in workers]
            waiting = [state["name"] for state in states if state["state"] != "ready"]
            reason = f"waiting for {', '.join(waiting)}" if waiting else ""
            body = json.dumps({"ready": not waiting, "reason": reason, "workers": states, "pairs": []}).encode()
            self.send_response(503 if waiting else 200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


arguments = sys.argv[3:] if sys.argv[1:3] == ["-m", "baton"] else sys.argv[1:]
if arguments[0] == "gateway":
    gateway(Path(arguments[arguments.index("--workers") + 1]), int(arguments[arguments.index("--port") + 1]))
else:
    for module in (baton.cli.down, baton.cli.supervise, baton.cli.up):
        module.this_machine = this_machine
    baton.cli.up.ensure_engine = ensure_engine
    baton.cli.up.prove_deployment = prove_deployment
    sys.argv = ["baton", *arguments]
    runpy.run_module("baton", run_name="__main__")
