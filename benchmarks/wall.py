"""
Measure how quickly a DAG run's Luma tab opens with 500 videos: `make wall`.

A real Airflow makes one video. Its task and record are then copied 500 times in Airflow's database. The tab is compared
with the simplest page: 500 players.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from airflow_provider_luma.sandbox import Sandbox
from dev.browser import launch
from dev.local_airflow import TOKEN
from tests.support.deployment import Deployment
from tests.support.ui import Ui, multiply

if TYPE_CHECKING:
    from playwright.sync_api import Page

TURNS = 3
READY = """(count) => {
  const inside = document.querySelector("iframe")?.contentDocument ?? document;
  const seen = [...inside.querySelectorAll("#wall img, video[src]")]
    .filter((one) => one.getBoundingClientRect().top < 700);
  return inside.querySelectorAll("#wall li, video").length >= count
    && seen.every((one) => one.complete || one.readyState > 0);
}"""


def timed(page: Page, open_it: Any, count: int) -> tuple[float, int]:
    """Return the seconds until all videos are listed and the visible ones drawn, and the requests a second later."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    began = time.monotonic()
    open_it()
    page.wait_for_function(READY, arg=count, timeout=120_000)
    took = time.monotonic() - began
    page.wait_for_timeout(1000)
    return took, len([url for url in asked if "/luma/" in url or "/cdn/" in url])


def main(count: int) -> None:
    """Make one video, copy it, and open all copies in the tab and in the simple page."""
    with tempfile.TemporaryDirectory() as folder, Sandbox(token=TOKEN, seconds=0) as sandbox:
        dag = Path(__file__).parents[1] / "tests" / "system" / "dags" / "luma_ui.py"
        with Deployment(Path(folder) / "home", dag) as airflow, sync_playwright() as playwright:
            airflow.add_connection("luma_default", conn_type="luma", host=sandbox.url, password=TOKEN)
            run_id = airflow.run("luma_ui")
            airflow.wait("luma_ui", run_id)
            generation = airflow.xcom("luma_ui", run_id, "make", "generation", 0)
            multiply(airflow.database, run_id, count)
            urls = generation["video_url"], generation["thumbnail_url"]
            player = '<video preload=metadata src="{0}?{2}" poster="{1}?{2}"></video>'
            naive = "".join(player.format(*urls, index) for index in range(count))
            browser = launch(playwright)
            print(f"{count} videos      the tab             as many players")
            for _ in range(TURNS):
                ui = Ui(browser.new_context(viewport={"width": 1400, "height": 900}).new_page(), airflow)
                ui.sign_in()
                ui.open(f"dags/luma_ui/runs/{run_id}")
                tab = ui.page.get_by_role("link", name="Luma", exact=True)
                tab.wait_for()
                ours = timed(ui.page, tab.click, count)
                page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
                page.goto(sandbox.url)
                theirs = timed(page, lambda page=page: page.set_content(naive, wait_until="commit"), count)
                print(
                    f"open after, s   {ours[0]:7.2f}  1/{theirs[0] / ours[0]:<8.1f}{theirs[0]:10.2f}\n"
                    f"requests        {ours[1]:7}  1/{theirs[1] / ours[1]:<8.1f}{theirs[1]:10}"
                )
            browser.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 500)
