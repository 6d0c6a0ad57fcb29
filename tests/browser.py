"""Run a script in headless Chromium: a local server has the files and takes the result."""

import contextlib
import http.server
import json
import mimetypes
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

CHROMIUM = next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
)
FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--enable-unsafe-webgpu",
         "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan",
         "--disable-background-networking", "--disable-component-update", "--no-first-run"]
OWN_HOSTS = ("google.com", "googleapis.com", "gvt1.com")  # which Chromium itself asks for updates
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module">
window.report = (result) => fetch("/result", { method: "POST", body: JSON.stringify(result) });
window.onerror = (message) => report({ error: String(message) });
window.onunhandledrejection = (event) => report({ error: String(event.reason) });
</script><script type="module" src="/script.mjs"></script>"""


def run_page(script, files, timeout=300, size=(1280, 900)):
    """The value that a module script passes to `report`; RuntimeError with its error.

    Parameters
    ----------
    script : str
        JavaScript module; it shares the server's origin with `files`.
    files : dict of str to bytes, str or Path
        What lies under a URL path: content, or a file or folder on disk.
    size : (int, int)
        Of the window.

    Returns
    -------
    The reported value; a dict gets "requests", every request that the browser made, in order.
    """
    done, result, requests = threading.Event(), [], []
    own = {"/page.html": PAGE.encode(), "/script.mjs": script.encode()} | files

    class Handler(http.server.BaseHTTPRequestHandler):
        def note(self):
            host = self.path.removeprefix("http://").partition("/")[0].partition(":")[0]
            if not host.endswith(OWN_HOSTS):
                requests.append(self.path.removeprefix(f"http://{self.headers.get('Host')}"))

        def do_GET(self):
            self.note()
            path = self.path.partition("?")[0]
            path = path.removeprefix(f"http://127.0.0.1:{self.server.server_port}")
            found = next(
                (own[top] for top in (path, *map(str, Path(path).parents)) if top in own), None
            )
            if isinstance(found, str | Path) and Path(found).is_dir():
                top = next(t for t in map(str, Path(path).parents) if t in own)
                found = Path(found) / path.removeprefix(top).lstrip("/")
            if isinstance(found, str | Path):
                found = Path(found).read_bytes() if Path(found).is_file() else None
            self.send_response(404 if found is None else 200)
            kind = "text/javascript" if path.endswith((".mjs", ".js")) else None
            kind = kind or (
                "application/wasm" if path.endswith(".wasm") else mimetypes.guess_type(path)[0]
            )
            self.send_header("Content-Type", kind or "application/octet-stream")
            self.end_headers()
            self.wfile.write(found or b"")

        def do_POST(self):
            self.note()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            if self.path.endswith("/result"):
                result.append(json.loads(body))
                done.set()

        def do_CONNECT(self):  # a request to another host over TLS
            self.note()
            self.close_connection = True

        def handle(self):
            with contextlib.suppress(ConnectionError):  # the browser left
                super().handle()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={profile}",
            f"--window-size={size[0]},{size[1]}",
        ]
        # every request, to whatever host, comes to this server
        words += [f"--proxy-server={address}", "--proxy-bypass-list=<-loopback>"]
        process = subprocess.Popen(
            [*words, f"http://{address}/page.html"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            if not done.wait(timeout):
                raise RuntimeError(f"no result after {timeout} s")
        finally:
            process.kill()
            process.wait()
            server.shutdown()
    if isinstance(result[0], dict):
        if "error" in result[0]:
            raise RuntimeError(result[0]["error"])
        result[0]["requests"] = requests
    return result[0]
