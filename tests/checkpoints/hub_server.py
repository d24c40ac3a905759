"""A local HTTP server that imitates what the two hubs' clients ask for, with transfers that can be cut."""

import hashlib
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlparse

LARGE = (".safetensors", ".bin")  # what the hub keeps in large file storage, named by its SHA-256


@dataclass
class Hub:
    """Contents of the server.

    Attributes:
        repos: id -> revision name -> (commit, path -> bytes).
        cut: path -> how many bytes of it are sent before the connection is closed.
        stall: path -> how many bytes of it are sent before the server falls silent, until ``stall`` is cleared.
        outage: paths that answer 503 to whoever wants to go on in them.
        gated: ids that may not be read.
        damaged: paths whose content arrives as zeros.
        requests: (method, path with query, Range header or None) of everything asked.
    """

    url: str = ""
    repos: dict[str, dict[str, tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    stall: dict[str, int] = field(default_factory=dict)
    outage: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def publish(self, repo: str, revision: str, files: dict[str, bytes]) -> str:
        """Add a revision; returns its commit. The commit itself is a name for it too."""
        digest = hashlib.sha1(json.dumps({name: len(data) for name, data in files.items()}).encode())
        for name in sorted(files):
            digest.update(files[name])
        commit = digest.hexdigest()
        revisions = self.repos.setdefault(repo, {})
        revisions[revision] = revisions[commit] = (commit, files)
        return commit

    def fetched(self, part: str) -> list[tuple[str, str, str | None]]:
        """GET requests whose path contains ``part``."""
        return [request for request in self.requests if request[0] == "GET" and part in request[1]]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@contextmanager
def running(hub: Hub):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(hub))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def handler_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            hub.requests.append((self.command, self.path, self.headers.get("Range")))
            parts = unquote(urlparse(self.path).path).strip("/").split("/")
            query = {key: values[0] for key, values in parse_qs(urlparse(self.path).query).items()}
            if parts[:2] == ["api", "models"]:
                self.hugging_face_api("/".join(parts[2:4]), parts[4], parts[5])
            elif parts[2:3] == ["resolve"]:
                self.hugging_face_file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
            elif parts[:3] == ["api", "v1", "models"]:
                self.modelscope("/".join(parts[3:5]), parts[5:], query)
            else:
                self.send_json({}, 404)

        def hugging_face_api(self, repo, what, revision):
            if repo not in hub.repos:
                return self.send_json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            if repo in hub.gated:
                return self.send_json({"error": "Access is restricted"}, 403, {"X-Error-Code": "GatedRepo"})
            if revision not in hub.repos[repo]:
                return self.send_json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
            commit, files = hub.repos[repo][revision]
            if what == "revision":
                siblings = [{"rfilename": name} for name in files]
                return self.send_json({"id": repo, "modelId": repo, "sha": commit, "siblings": siblings, "tags": []})
            return self.send_json([self.tree_entry(name, data) for name, data in files.items()])

        def tree_entry(self, name, data):
            entry = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            if name.endswith(LARGE):
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            return entry

        def hugging_face_file(self, repo, revision, name):
            commit, files = hub.repos[repo][revision]
            data = files[name]
            digest = (hashlib.sha256 if name.endswith(LARGE) else hashlib.sha1)(data).hexdigest()
            return self.send_file(name, data, {"ETag": f'"{digest}"', "X-Repo-Commit": commit})

        def modelscope(self, repo, what, query):
            revision = query.get("Revision", "master")
            if repo not in hub.repos or revision not in hub.repos[repo]:
                return self.send_json({"Code": 10010205001, "Message": "record not found", "Success": False}, 404)
            files = hub.repos[repo][revision][1]
            if what == ["repo"]:
                return self.send_file(query["FilePath"], files[query["FilePath"]], {})
            listing = [
                {"Path": name, "Type": "blob", "Size": len(data), "Sha256": hashlib.sha256(data).hexdigest()}
                for name, data in files.items()
            ]
            return self.send_json({"Code": 200, "Success": True, "Data": {"Files": listing}})

        def send_json(self, value, status=200, headers=None):
            self.send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

        def send_file(self, name, data, headers):
            first = 0
            wanted = self.headers.get("Range")
            if wanted:
                first = int(wanted.removeprefix("bytes=").split("-")[0])
                headers |= {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"}
            headers |= {"Accept-Ranges": "bytes"}
            if wanted and name in hub.outage:
                return self.send_json({}, 503)
            if name in hub.damaged:
                data = bytes(len(data))
            return self.send(206 if wanted else 200, data[first:], headers, name)

        def send(self, status, body, headers, name=None):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            limit = hub.cut.get(name, hub.stall.get(name))
            self.wfile.write(body[:limit])
            self.wfile.flush()
            while name in hub.stall:
                time.sleep(0.01)
            self.close_connection = limit is not None

    return Handler
