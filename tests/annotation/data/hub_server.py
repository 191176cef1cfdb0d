"""A stand-in for a hub that speaks the protocol of huggingface_hub: repositories, LFS and commits."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_write_token_of_rita"


class Hub:
    """`repositories[name] = {"private": bool, "files": {path: bytes}}`, and each commit's message."""

    def __init__(self):
        self.repositories, self.commits, self.objects = {}, [], {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def answer(self, status, body=None, **headers):
                data = json.dumps(body or {}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(data)

            def body(self):
                if self.headers.get("Transfer-Encoding") == "chunked":
                    data = b""
                    while size := int(self.rfile.readline(), 16):
                        data += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                    return data
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def do_GET(self):
                name = (
                    self.path.partition("?")[0].removeprefix("/api/datasets/").split("/revision")[0]
                )
                found = hub.repositories.get(name)
                if found is None or not self.is_allowed():
                    self.answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
                else:
                    self.answer(
                        200, {"id": name, "private": found["private"], "tags": [], "downloads": 0}
                    )

            def is_allowed(self):
                return self.headers.get("Authorization") == f"Bearer {TOKEN}"

            def do_POST(self):
                data = self.body()
                if not self.is_allowed():
                    return self.answer(401, {"error": "Invalid username or password."})
                path = self.path.partition("?")[0]
                if path == "/api/validate-yaml":
                    return self.answer(200, {"errors": [], "warnings": []})
                if path == "/api/repos/create":
                    asked = json.loads(data)
                    name = f"{asked.get('organization', 'rita')}/{asked['name']}"
                    if name in hub.repositories:
                        return self.answer(409, {"url": f"{hub.url}/datasets/{name}"})
                    private = asked.get("private", asked.get("visibility") == "private")
                    hub.repositories[name] = {"private": private, "files": {}}
                    return self.answer(200, {"url": f"{hub.url}/datasets/{name}"})
                if "/preupload/" in path:
                    files = json.loads(data)["files"]
                    modes = [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if file["path"].endswith("parquet") else "regular",
                            "shouldIgnore": False,
                        }
                        for file in files
                    ]
                    return self.answer(200, {"files": modes})
                if path.endswith("/objects/batch"):
                    objects = [
                        {**item, "actions": {"upload": {"href": f"{hub.url}/store/{item['oid']}"}}}
                        for item in json.loads(data)["objects"]
                    ]
                    return self.answer(200, {"transfer": "basic", "objects": objects})
                if "/commit/" in path:
                    return self.commit(
                        path.removeprefix("/api/datasets/").split("/commit/")[0], data
                    )
                return self.answer(404, {"error": path})

            def commit(self, name, data):
                files = hub.repositories[name]["files"]
                for line in map(json.loads, data.splitlines()):
                    value = line["value"]
                    if line["key"] == "header":
                        hub.commits.append(value["summary"])
                    elif line["key"] == "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        files[value["path"]] = hub.objects[value["oid"]]
                url = f"{hub.url}/datasets/{name}/commit/{'0' * 40}"
                return self.answer(200, {"commitUrl": url, "commitOid": "0" * 40, "success": True})

            def do_PUT(self):
                data = self.body()
                assert hashlib.sha256(data).hexdigest() == self.path.rpartition("/")[2]
                hub.objects[self.path.rpartition("/")[2]] = data
                self.answer(200)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
