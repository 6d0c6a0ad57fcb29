"""Headless Chromium told what to do over a pipe: keys, the accessibility tree, pictures.

The DevTools protocol (https://chromedevtools.github.io/devtools-protocol/): JSON messages that end
with a zero byte, ours on Chromium's descriptor 3, its own on 4.
"""

import base64
import contextlib
import http.server
import json
import os
import subprocess
import tempfile
import threading
import time
from functools import partial

from browser import CHROMIUM

FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--disable-component-update", "--no-first-run", "--remote-debugging-pipe"]
KEYS = {"Tab": 9, "Enter": 13, " ": 32}
TEXT = {"Enter": "\r", " ": " "}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def open_folder(folder, **settings):
    """A `Page` of the index.html in a folder; `settings` are those of `Page.resize`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    commands, to_chromium = os.pipe()
    from_chromium, messages = os.pipe()

    def connect():  # in the child; through high numbers, since one of the pipes' may be 3 or 4
        read, write = os.dup(commands), os.dup(messages)
        os.dup2(read, 3)
        os.dup2(write, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"], preexec_fn=connect,
            pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(commands)
        os.close(messages)
        try:
            page = Page(to_chromium, from_chromium)
            page.resize(**settings)
            page("Page.navigate", url=f"http://127.0.0.1:{server.server_port}/index.html")
            yield page
        finally:
            process.kill()
            process.wait()
            os.close(to_chromium)
            os.close(from_chromium)
            server.shutdown()
            server.server_close()


class Page:
    """A tab. Called with a method of the protocol and its parameters, it gives the result."""

    def __init__(self, to_chromium, from_chromium):
        self.to_chromium, self.from_chromium = to_chromium, from_chromium
        self.unread, self.count, self.session, self.events = b"", 0, None, []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Accessibility"):
            self(f"{domain}.enable")

    def __call__(self, method, **parameters):
        self.count += 1
        message = dict(id=self.count, method=method, params=parameters)
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_chromium, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") != self.count:
                self.events.append(answer)
            elif "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            else:
                return answer["result"]

    def receive(self):
        while b"\0" not in self.unread:
            part = os.read(self.from_chromium, 2**20)
            if not part:
                raise RuntimeError("Chromium ended")
            self.unread += part
        message, _, self.unread = self.unread.partition(b"\0")
        return json.loads(message)

    def wait_for_event(self, method):
        """The parameters of the next event of a kind, which is then forgotten."""
        while True:
            for event in self.events:
                if event.get("method") == method:
                    self.events.remove(event)
                    return event["params"]
            self.events.append(self.receive())

    def evaluate(self, script):
        """The value of a JavaScript expression."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def wait_until(self, script, timeout=120):
        """Wait for a JavaScript expression to be true."""
        end = time.monotonic() + timeout
        while not self.evaluate(script):
            if time.monotonic() > end:
                raise RuntimeError(f"after {timeout} s not true: {script}")
            time.sleep(0.05)

    def resize(self, width=1100, height=900, dark=False):
        """A window of that size, in a light or dark scheme."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height,
             deviceScaleFactor=1, mobile=width < 500)
        scheme = "dark" if dark else "light"
        self("Emulation.setEmulatedMedia",
             features=[dict(name="prefers-color-scheme", value=scheme)])

    def press(self, key):
        """Press and release a key of `KEYS`."""
        names = dict(key=key, code="Space" if key == " " else key,
                     windowsVirtualKeyCode=KEYS[key])
        pressed = names | (dict(text=TEXT[key]) if key in TEXT else {})
        self("Input.dispatchKeyEvent", type="keyDown", **pressed)
        self("Input.dispatchKeyEvent", type="keyUp", **names)

    def accessible(self):
        """The accessibility tree in its order: (role, name, properties) of what is not ignored."""
        nodes = []
        for node in self("Accessibility.getFullAXTree")["nodes"]:
            if not node["ignored"]:
                properties = {p["name"]: p["value"].get("value") for p in node["properties"]}
                name = node.get("name", {}).get("value", "")
                nodes.append((node["role"]["value"], name, properties))
        return nodes

    def screenshot(self, path):
        """A picture of the whole page."""
        picture = self("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
