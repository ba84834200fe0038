"""Models go to the Hugging Face Hub and come back: against a server of our own that speaks its protocol."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

THERE_AND_BACK = """
import sys, torch
from djepa import Pipeline
pipe = Pipeline.from_pretrained(sys.argv[1], device="cpu")
address = pipe.push_to_hub("somebody/digits", commit_message="Mine")
loaded = Pipeline.from_pretrained("somebody/digits", device="cpu")
assert torch.equal(loaded.generate(3)[0].data, pipe.generate(3)[0].data)
print(loaded.name, address)
"""
COMMIT = "c0ffee" + 34 * "0"


class Hub(BaseHTTPRequestHandler):
    """One repository, empty until somebody commits to it; `files` and `said` belong to the server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format, *arguments):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.server.said.append(json.loads(body))
            self.reply({"url": f"http://127.0.0.1:{self.server.server_port}/somebody/digits", "id": "somebody/digits"})
        elif self.path == "/api/validate-yaml":
            self.reply({"errors": [], "warnings": []})
        elif self.path == "/api/models/somebody/digits/preupload/main":
            names = [file["path"] for file in json.loads(body)["files"]]
            self.reply({"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]})
        elif self.path == "/api/models/somebody/digits/commit/main":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                else:
                    self.server.said.append(line["value"])
            self.reply({"commitUrl": f"http://127.0.0.1/somebody/digits/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        else:
            self.reply({"error": "unknown"}, 404)

    def do_GET(self):
        name = self.path.removeprefix(f"/somebody/digits/resolve/{COMMIT}/")
        files = self.server.files
        if self.path == "/api/models/somebody/digits/revision/main" and files:
            self.reply({"id": "somebody/digits", "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]})
        elif self.path.startswith(f"/api/models/somebody/digits/tree/{COMMIT}"):
            self.reply([{"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                        for file, content in files.items()])
        elif name in files:
            self.reply(files[name], 200, {"ETag": f'"{hashlib.sha1(files[name]).hexdigest()}"', "X-Repo-Commit": COMMIT})
        else:
            self.reply({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def reply(self, content, status=200, headers=()):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(content), **dict(headers)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.said = {}, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def online(hub, tmp_path):
    """The environment of a process for which `hub` is the Hub."""
    return {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_mine",
            "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}


def test_a_model_goes_to_the_hub_and_comes_back(hub, online, process, trained):
    outcome = process(trained, code=THERE_AND_BACK, **online)
    assert outcome.code == 0, outcome.err
    assert outcome.out.split() == ["somebody/digits", f"http://127.0.0.1:{hub.server_port}/somebody/digits"]
    assert set(hub.files) == {"README.md", "config.json", "model.safetensors"}
    created, committed = hub.said
    assert created["name"] == "digits" and created["organization"] == "somebody" and committed["summary"] == "Mine"
    card = hub.files["README.md"].decode()
    assert "somebody/digits" in card and str(trained) not in card  # a path of this machine is nobody's business


def test_a_repository_that_is_not_there_is_refused_in_one_line(online, process):
    outcome = process("generate", "somebody/nothing", "--out", "x.png", **online)
    assert outcome.code == 2 and "'somebody/nothing'" in outcome.error()
    assert "Not Found" in outcome.err and outcome.err.count("\n") == 1
