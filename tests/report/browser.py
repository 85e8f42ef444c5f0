"""A headless Chromium out of Debian packages, unpacked and not installed, spoken to over a pipe (DevTools protocol)."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.packages import unpacked

# what the browser links besides libc, all of bookworm, so that it runs on newer ones, too; about 100 MB, once
PACKAGES = (
    "chromium-headless-shell chromium-common fontconfig-config fonts-dejavu-core libasound2 libasyncns0 libatk1.0-0 "
    "libatspi2.0-0 libblkid1 libbrotli1 libbsd0 libcap2 libdav1d6 libdbus-1-3 libdouble-conversion3 libdrm2 libexpat1 "
    "libffi8 libflac12 libfontconfig1 libfreetype6 libgbm1 libgcrypt20 libglib2.0-0 libgpg-error0 libgraphite2-3 "
    "libharfbuzz-subset0 libharfbuzz0b libjpeg62-turbo liblcms2-2 liblz4-1 liblzma5 libmd0 libminizip1 libmount1 "
    "libmp3lame0 libmpg123-0 libnspr4 libnss3 libogg0 libopenh264-7 libopenjp2-7 libopus0 libpcre2-8-0 libpng16-16 "
    "libpulse0 libselinux1 libsndfile1 libsqlite3-0 libsystemd0 libudev1 libvorbis0a libvorbisenc2 libwayland-server0 "
    "libx11-6 libx11-xcb1 libxau6 libxcb1 libxcomposite1 libxdamage1 libxdmcp6 libxext6 libxfixes3 libxi6 "
    "libxkbcommon0 libxnvctrl0 libxrandr2 libxrender1 libzstd1 zlib1g"
)
FROM_ANY_DEBIAN = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libgcc_s.so.1", "libstdc++.so.6"}
AXE = "axe-playwright-python==0.1.8"  # carries axe-core 4.12.1 as axe.min.js; nothing else of it is used


def chromium(cache: Path) -> list[str]:
    """Return the beginning of a command line that starts the browser; it is downloaded if it is not in the cache."""
    directory = cache / "tests" / "chromium"
    directory.mkdir(parents=True, exist_ok=True)
    root = unpacked(cache, *PACKAGES.split(), suite="bookworm")
    fonts = directory / "fonts.conf"
    fonts.write_text(
        f"<fontconfig><dir>{root}/usr/share/fonts</dir><cachedir>{directory}/fonts-cache</cachedir></fontconfig>"
    )
    libraries = sorted({str(path.parent) for path in root.glob("**/*.so*")})
    environment = (f"LD_LIBRARY_PATH={':'.join(libraries)}", f"FONTCONFIG_FILE={fonts}")
    program = str(root / "usr" / "lib" / "chromium" / "chromium-headless-shell")
    linked = subprocess.run(["env", *environment, "ldd", program], capture_output=True, text=True, check=True).stdout
    found = {name: path for name, path in re.findall(r"(\S+) => (not found|\S+)", linked) if str(root) not in path}
    assert found.keys() <= FROM_ANY_DEBIAN, f"a machine may lack {found}: add their packages"
    return ["env", *environment, program]


def axe(cache: Path) -> str:
    """The source of axe-core, which looks for what keeps people from reading a page."""
    directory = cache / "tests" / "axe"
    if not list(directory.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), AXE]
        subprocess.run(command, check=True)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read("axe_playwright_python/axe.min.js").decode()


class Page:
    """One tab. `said` is what the page wrote to the console or threw; `asked` are the addresses it asked for."""

    def __init__(self, send: Callable[..., Any]) -> None:
        self._send = send
        self.said: list[str] = []
        self.asked: list[str] = []

    def heard(self, event: dict[str, Any]) -> None:
        """Take note of an event of the browser."""
        parameters = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.asked.append(parameters["request"]["url"])
        elif event["method"] in {"Runtime.consoleAPICalled", "Runtime.exceptionThrown"}:
            self.said.append(json.dumps(parameters))
        elif event["method"] == "Log.entryAdded":
            self.said.append(parameters["entry"]["text"])

    def look(self, file: Path, *, width: int, dark: bool = False) -> None:
        """Open a file in a window of this width."""
        self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = "dark" if dark else "light"
        self._send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._send("Page.navigate", url=file.as_uri())
        self.run("new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', done))")

    def media(self, kind: str) -> None:
        """Show the page as on a `screen`, or in `print`."""
        self._send("Emulation.setEmulatedMedia", media=kind)

    def run(self, script: str) -> Any:
        """The value of a script, or of what it promises."""
        answer = self._send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self) -> bytes:
        """The whole page as PNG."""
        answer = self._send("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        return base64.b64decode(answer["data"])

    def printed(self) -> bytes:
        """The page as PDF, as a printer gets it."""
        answer = self._send("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        return base64.b64decode(answer["data"])


@contextmanager
def browsing(command: list[str], profile: Path) -> Iterator[Page]:
    """A browser with one tab; it has no way to any network but what a page asks for is still heard."""
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()
    options = [
        "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "about:blank",
    ]  # fmt: skip
    # the protocol's two ends must be 3 and 4 in the browser; 10 and up first, lest one overwrites the other
    ours = [fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 10) for handle in (from_us, to_us)]
    process = subprocess.Popen(
        [*command, *options],
        pass_fds=(3, 4),
        preexec_fn=lambda: [os.dup2(handle, number) for number, handle in enumerate(ours, start=3)] and None,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for handle in ours:
        os.close(handle)
    os.close(from_us)
    os.close(to_us)
    try:
        yield _tab(to_browser, from_browser)
    finally:
        for handle in (to_browser, from_browser):
            with suppress(OSError):
                os.close(handle)
        process.kill()
        process.wait()


def _tab(to_browser: int, from_browser: int) -> Page:
    number = 0
    rest = b""
    page: Page | None = None

    def receive() -> dict[str, Any]:
        nonlocal rest
        while b"\0" not in rest:
            chunk = os.read(from_browser, 1 << 16)
            assert chunk, "the browser ended"
            rest += chunk
        message, _, rest = rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def send(method: str, session: str = "", **parameters: Any) -> Any:
        nonlocal number
        number += 1
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(to_browser, data) :]
        while True:
            answer = receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            if page is not None and "method" in answer:
                page.heard(answer)

    target = send("Target.createTarget", url="about:blank")["targetId"]
    session = send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    page = Page(lambda method, **parameters: send(method, session, **parameters))
    for domain in ("Page", "Runtime", "Network", "Log"):
        send(f"{domain}.enable", session)
    return page
