"""
Find a browser for the tests of the UI: an installed browser, else Playwright's, else Debian's package.

`python dev/browser.py check tests/system` runs on any Python. It fails within two seconds if there is no browser and no
place to get it from. `.venv/bin/python dev/browser.py get tests/system` installs a browser if it is missing. Both do
nothing if the tests need no browser.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Playwright

COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Chromium's own sandbox does not work for root in a container.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
#: The tests that need a browser, and the folders that contain them.
TESTS = {"tests", "tests/system", "tests/system/test_ui.py"}
#: The codec of the sandbox's clips. Some builds of Chromium cannot play it.
CODEC = 'video/mp4; codecs="avc1.42E01E"'
NONE = f"""\
The tests of Airflow's UI need a browser, and this machine cannot get it:
- {", ".join(COMMANDS)}: not in the PATH, or cannot play H.264 video
- Playwright's browser: not installed, and {{host}} cannot be reached; or it cannot run, or cannot play H.264 video
- Debian's package chromium: needs root, apt-get and Debian's archive
Install Chromium or Chrome, or run the other tests: make test TESTS="tests/unit tests/wire tests/docs"
"""


def needed(tests: list[str]) -> bool:
    """Return whether one of these arguments of pytest is, or contains, a test that needs a browser."""
    return any(test.partition("::")[0].rstrip("/") in TESTS for test in tests)


def check() -> None:
    """Exit with advice if there is no browser and no place to get it from."""
    if not (any(map(shutil.which, COMMANDS)) or playwright_has_one() or may_install() or is_reachable()):
        sys.exit(NONE.format(host=download_host()))


def get() -> None:
    """Install a browser if it is missing; exit with advice if that fails."""
    from playwright.sync_api import sync_playwright

    for install in (lambda: None, install_playwrights, install_debians):
        install()
        with sync_playwright() as playwright:
            try:
                launch(playwright).close()
            except LookupError:
                continue
            return
    sys.exit(NONE.format(host=download_host()))


def launch(playwright: Playwright) -> Browser:
    """Start the first browser that can play the sandbox's clips; raise a LookupError if there is no such browser."""
    from playwright.sync_api import Error

    # None stands for Playwright's browser.
    for path in [*filter(None, map(shutil.which, COMMANDS)), None]:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        except Error:
            continue
        page = browser.new_page()
        can_play = page.evaluate("(codec) => document.createElement('video').canPlayType(codec)", CODEC)
        page.close()
        if can_play:
            return browser
        browser.close()
    raise LookupError("There is no browser. Run: make test TESTS=tests/system/test_ui.py")


def playwright_has_one() -> bool:
    """Return whether Playwright has a Chromium of any version on this machine."""
    cache = "Library/Caches" if sys.platform == "darwin" else ".cache"
    folder = os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / cache / "ms-playwright"
    return any(Path(folder).glob("chromium*"))


def download_host() -> str:
    """Return the address from which Playwright downloads its browsers."""
    return os.environ.get("PLAYWRIGHT_DOWNLOAD_HOST") or "https://cdn.playwright.dev"


def is_reachable() -> bool:
    """Return whether Playwright's download server answers."""
    try:
        urllib.request.urlopen(urllib.request.Request(download_host(), method="HEAD"), timeout=2).close()  # noqa: S310
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def may_install() -> bool:
    """Return whether this user can install Debian's packages."""
    return os.name == "posix" and os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_playwrights() -> None:
    """Install Playwright's Chromium, if its download server can be reached."""
    if is_reachable():
        print("Fetching Playwright's Chromium (once) …", flush=True)
        command = [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def install_debians() -> None:
    """Install Debian's package, if this user can."""
    if may_install():
        print("Installing Debian's chromium (once) …", flush=True)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            subprocess.run(["apt-get", "--quiet", *command], env=env, stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    action, *tests = sys.argv[1:]
    if needed(tests):
        {"check": check, "get": get}[action]()
