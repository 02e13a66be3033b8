"""Headless Chromium driven over its debugging pipe: clicks, keys, files, screenshots, and every address it asked for.

The pipe needs no package: JSON messages, each ended by a zero byte, on the browser's file descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from triadbench.bench.report import browser


class Page:
    """A tab of a browser of its own. `addresses` and `errors` grow as the page goes on."""

    def __init__(self, microphone: Path | None = None):
        self._profile = tempfile.mkdtemp(prefix="triadbench-chromium-")
        command = [
            browser.find(),
            "--headless",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--autoplay-policy=no-user-gesture-required",
            "--mute-audio",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            f"--user-data-dir={self._profile}",
            "--remote-debugging-pipe",
        ]
        if microphone is not None:
            command.append(f"--use-file-for-fake-audio-capture={microphone}")
        if os.geteuid() == 0:
            command.append("--no-sandbox")
        from_us, to_browser = os.pipe()
        from_browser, to_us = os.pipe()
        pipes = f'exec 3<&{from_us} 4>&{to_us}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", pipes, "bash", *command],
            pass_fds=(from_us, to_us),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(from_us)
        os.close(to_us)
        self._out, self._in, self._rest, self._number, self._session = to_browser, from_browser, b"", 0, None
        self.addresses: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser and what it kept."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **params) -> dict:
        """One command of the DevTools protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive(60)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, timeout_s: float) -> dict:
        while b"\0" not in self._rest:
            if not select.select([self._in], [], [], timeout_s)[0]:
                raise AssertionError(f"the browser says nothing for {timeout_s} s")
            part = os.read(self._in, 1 << 20)
            if not part:
                raise AssertionError("the browser has ended")
            self._rest += part
        message, self._rest = self._rest.split(b"\0", 1)
        event = json.loads(message)
        self._note(event.get("method"), event.get("params", {}))
        return event

    def _note(self, method: str | None, params: dict) -> None:
        if method == "Network.requestWillBeSent":
            self.addresses.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"]))[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def elsewhere(self) -> list[str]:
        """Addresses that are not this machine's, nor inside the page itself."""
        return [
            url
            for url in self.addresses
            if urlsplit(url).scheme not in ("data", "blob", "about") and urlsplit(url).hostname != "127.0.0.1"
        ]

    def open(self, url: str) -> None:
        """Go there; wait for nothing."""
        self.call("Page.navigate", url=url)

    def run(self, expression: str):
        """The value of JavaScript, promises awaited."""
        result = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in result:
            raise AssertionError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression: str, timeout_s: float = 30.0):
        """Until JavaScript is true; its value."""
        end = time.monotonic() + timeout_s
        while not (value := self.run(f"(() => {{ try {{ return {expression} }} catch (e) {{ return null }} }})()")):
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout_s} s: {expression}; page: {self.text('body')[:1500]}")
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        """What is to be read there, or ""."""
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def wait_text(self, selector: str, words: str, timeout_s: float = 30.0) -> str:
        """Until the text there has these words."""
        return self.wait(
            f"(text => text.includes({json.dumps(words)}) && text)(document.querySelector({json.dumps(selector)}).innerText)",
            timeout_s,
        )

    def click(self, selector: str, words: str = "") -> None:
        """A real mouse click on the first visible element there that has these words."""
        where = (
            f"(() => {{ const all = [...document.querySelectorAll({json.dumps(selector)})];"
            f" const one = all.find(e => e.innerText.includes({json.dumps(words)}) && e.getClientRects().length);"
            " if (!one || one.disabled) return null; one.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        place = self.wait(where)
        while (later := self.run(f"new Promise(done => setTimeout(() => done({where}), 60))")) != place:
            place = later or place  # something above it still grows
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def key(self, key: str, code: int) -> None:
        """Press one key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def send(self, selector: str, file: Path) -> None:
        """Give a file to the input inside an element."""
        self.wait(f"!!document.querySelector({json.dumps(selector + ' input[type=file]')})")
        element = self.call(
            "Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector + ' input[type=file]')})"
        )
        self.call("DOM.setFileInputFiles", files=[str(file)], objectId=element["result"]["objectId"])

    def size(self, width: int, height: int) -> None:
        """Of the window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        box = self.call("Page.getLayoutMetrics")["cssContentSize"]
        taken = self.call(
            "Page.captureScreenshot",
            captureBeyondViewport=True,
            clip={"x": 0, "y": 0, "width": box["width"], "height": min(box["height"], 3000), "scale": 1},
        )
        path.write_bytes(base64.b64decode(taken["data"]))
