"""What people see: a real browser on a real Airflow."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import requests
from playwright.sync_api import expect, sync_playwright

from dev.local_airflow import PASSWORD, USER
from tests.system.conftest import REFUSED_TOKEN, TOKEN

pytestmark = pytest.mark.since("3.1")

expect.set_options(timeout=60_000)

SCRIPT = "<script>window.top.broken = 1</script><img src=x onerror='window.top.broken = 1'>"
VIDEO = "document.querySelector('iframe').contentDocument.querySelector('video')"
#: As root, in a container, its sandbox does not work.
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
#: Where to keep the pictures that the README shows; by default nobody does.
PICTURES = os.environ.get("LUMA_PICTURES")


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium; the tests' Airflow is on this machine."""
    path = shutil.which("chromium")
    assert path, "There is no chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Ui:
    """Airflow's UI, of a user that is signed in."""

    def __init__(self, page, deployment):
        self.page = page
        self.deployment = deployment
        self.requests = []
        self.complaints = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self.heard)

    def heard(self, message):
        if message.type == "error" and "/luma/" in message.location["url"]:
            self.complaints.append(message.text)

    def sign_in(self):
        self.page.goto(f"{self.deployment.url}/auth/login")
        self.page.fill("input[name=username]", USER)
        self.page.fill("input[name=password]", PASSWORD)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/auth/login" not in url)

    def open(self, path):
        self.page.goto(f"{self.deployment.url}/{path}")

    def tab_of_task(self, dag_id, run_id, task_id, map_index=-1):
        """Open a task instance and go to its Luma tab, as a person does."""
        mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
        self.open(f"dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}")
        self.page.get_by_role("link", name="Luma", exact=True).click()
        return self.page.frame_locator("iframe[title=Luma]")

    def tab_of_run(self, dag_id, run_id):
        self.open(f"dags/{dag_id}/runs/{run_id}")
        self.page.get_by_role("link", name="Luma", exact=True).click()
        return self.page.frame_locator("iframe[title=Luma]")

    def follow(self, name):
        """Click a link of a task, which Airflow 3.1 opens in another window, and return the Luma tab that is there."""
        link = self.page.get_by_role("link", name=name)
        if link.get_attribute("target") == "_blank":
            with self.page.expect_popup() as opened:
                link.click()
            return opened.value.frame_locator("iframe[title=Luma]")
        link.click()
        return self.page.frame_locator("iframe[title=Luma]")

    def picture(self, name, tmp_path):
        self.page.mouse.move(0, 0)
        self.page.screenshot(path=Path(PICTURES or tmp_path) / f"{name}.png")


@pytest.fixture
def ui(chromium, deployment, request):
    """A browser window, in which nothing of Luma's may complain."""
    options = {"viewport": {"width": 1200, "height": 720}, "color_scheme": "light", **getattr(request, "param", {})}
    context = chromium.new_context(**options, permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(60_000)
    ui = Ui(context.new_page(), deployment)
    ui.sign_in()
    yield ui
    context.close()
    assert ui.complaints == []


@pytest.fixture(scope="module")
def archive(deployment):
    """A run that has stored a video."""
    run_id = deployment.run("example_luma_archive", conf={"folder": "s3://aws_default@bucket/videos/"})
    assert deployment.wait("example_luma_archive", run_id) == "success"
    return run_id


@pytest.fixture(scope="module")
def many(deployment):
    """A run of videos, of which some fail."""
    prompts = [
        "A paper boat crosses a puddle",
        "The sun rises over a city of glass",
        "Aurora over a sleeping village",
        "A lighthouse in the fog [fail]",
        "Somebody famous [moderated]",
        SCRIPT,
    ]
    run_id = deployment.run("luma_ui", conf={"prompts": prompts})
    assert deployment.wait("luma_ui", run_id) == "failed"
    return run_id


def detail(frame, name):
    """Return what the page says beside a name."""
    return frame.locator(f"dt:text-is('{name}') + dd:visible")


class TestConnectionForm:
    def test_form(self, ui, sandbox, tmp_path):
        """The form asks for a token and a gateway by these names, and what it saves is a good connection."""
        page = ui.page
        page.set_viewport_size({"width": 1200, "height": 760})
        ui.open("connections")
        page.get_by_role("button", name="Add Connection").click()
        form = page.get_by_role("dialog")
        form.locator("input[name=connection_id]").fill("luma_from_form")
        form.get_by_role("combobox").click()
        page.keyboard.type("Luma")
        page.keyboard.press("Enter")
        gateway = form.get_by_role("textbox", name="Gateway").or_(form.locator("input[name=host]"))
        expect(gateway).to_have_attribute("placeholder", "https://www.kkiai.com")
        field = form.locator("input[name=password]")
        expect(field).to_have_attribute("type", "password")
        expect(form.get_by_text("API token")).to_be_visible()
        for hidden in ("login", "port", "schema", "description"):
            expect(form.locator(f"[name={hidden}]")).to_have_count(0)
        ui.picture("form", tmp_path)
        form.get_by_text("Extra Fields", exact=True).click()
        expect(form.get_by_text("Timeout (seconds)")).to_be_visible()
        expect(form.get_by_text("How long one request may take.")).to_be_visible()
        expect(form.get_by_text("Verify TLS")).to_be_visible()
        form.get_by_text("Standard Fields", exact=True).click()
        gateway.fill(sandbox.url)
        field.fill(TOKEN)
        form.get_by_role("button", name="Save").click()
        expect(page.get_by_text("luma_from_form")).to_be_visible()
        saved = ui.deployment.api("GET", "connections/luma_from_form")
        tested = ui.deployment.api("POST", "connections/test", json=saved)
        assert tested == {"status": True, "message": f"{sandbox.url} is a Luma gateway and takes the token."}

    @pytest.mark.parametrize(
        ("token", "said"),
        [(TOKEN, "is a Luma gateway and takes the token"), (REFUSED_TOKEN, "The token is refused")],
        ids=["good", "refused"],
    )
    def test_button(self, ui, sandbox, token, said):
        """The test button says what a connection is good for."""
        # Airflow 3.3.2 sends port 0 for a connection that has none, and then refuses to test it with its own token.
        host, _, port = sandbox.url.rpartition(":")
        ui.deployment.add_connection("luma_tested", conn_type="luma", host=host, port=int(port), password=token)
        ui.open("connections")
        row = ui.page.get_by_role("row").filter(has_text="luma_tested")
        with ui.page.expect_response(lambda response: response.url.endswith("/connections/test")) as answered:
            row.get_by_role("button", name=re.compile("Test")).click()
        assert said in answered.value.json()["message"]


class TestLinks:
    def test_watch(self, ui, archive):
        """The links of the task that waited lead to the video, and to the Luma tab."""
        generation = ui.deployment.xcom("example_luma_archive", archive, "wait")
        ui.open(f"dags/example_luma_archive/runs/{archive}/tasks/wait/details")
        expect(ui.page.get_by_role("link", name="Watch video")).to_have_attribute("href", generation["video_url"])
        frame = ui.follow("Luma task")
        expect(detail(frame, "Luma task")).to_contain_text(generation["id"])

    def test_no_video_yet(self, ui, archive):
        """The one that only submitted has the link to the id, and none to a video."""
        ui.open(f"dags/example_luma_archive/runs/{archive}/tasks/submit/details")
        expect(ui.page.get_by_role("link", name="Luma task")).to_be_visible()
        expect(ui.page.get_by_role("link", name="Watch video")).to_have_count(0)

    def test_mapped(self, ui, many):
        """A mapped task has its own."""
        ui.open(f"dags/luma_ui/runs/{many}/tasks/make/mapped/1/details")
        generation = ui.deployment.xcom("luma_ui", many, "make", "generation", map_index=1)
        expect(ui.page.get_by_role("link", name="Watch video")).to_have_attribute("href", generation["video_url"])
        frame = ui.follow("Luma task")
        expect(detail(frame, "Prompt")).to_have_text("The sun rises over a city of glass")
        expect(detail(frame, "Task")).to_have_text("make [1]")


class TestTaskTab:
    def test_plays(self, ui, archive, tmp_path):
        """The tab of a task plays the video, and says what is known of it."""
        generation = ui.deployment.xcom("example_luma_archive", archive, "wait")
        frame = ui.tab_of_task("example_luma_archive", archive, "wait")
        video = frame.locator("video")
        expect(video).to_have_attribute("poster", generation["thumbnail_url"])
        expect(detail(frame, "State")).to_have_text("Completed")
        expect(detail(frame, "Prompt")).to_have_text("A paper boat crosses a puddle")
        expect(detail(frame, "Model")).to_have_text("–")  # noqa: RUF001 - the API chooses
        expect(detail(frame, "Size")).to_have_text("640 × 360")  # noqa: RUF001
        expect(detail(frame, "Length")).to_have_text("4 s")
        expect(detail(frame, "Took")).to_have_text(re.compile(r"\d+ s"))
        stored = ui.deployment.xcom("example_luma_archive", archive, "download")
        expect(detail(frame, "Stored at")).to_have_text(stored)
        ui.page.wait_for_function(f"() => {VIDEO}.readyState > 0")
        ui.page.wait_for_timeout(1000)
        ui.picture("task", tmp_path)
        video.focus()
        ui.page.keyboard.press("Space")
        ui.page.wait_for_function(f"() => {VIDEO}.currentTime > 0.3")

    @pytest.mark.parametrize("task_id", ["submit", "download"])
    def test_others_of_the_run(self, ui, archive, task_id):
        """The task that only submitted, and the one that stored, know of it, too."""
        frame = ui.tab_of_task("example_luma_archive", archive, task_id)
        expect(frame.locator("video")).to_have_attribute("src", re.compile("/video.mp4$"))
        expect(detail(frame, "Prompt")).to_have_text("A paper boat crosses a puddle")

    def test_copy(self, ui, archive):
        """The id is copied with a click."""
        frame = ui.tab_of_task("example_luma_archive", archive, "submit")
        frame.get_by_role("button", name="Copy").click()
        expect(frame.get_by_role("button", name="Copied")).to_be_visible()
        copied = ui.page.evaluate("navigator.clipboard.readText()")
        assert copied == ui.deployment.xcom("example_luma_archive", archive, "submit")

    def test_while_it_runs(self, ui, deployment):
        """While it is made the tab says for how long, and then shows the video by itself."""
        run_id = deployment.run("luma_ui", conf={"prompts": ["A boat at night [slow]"]})
        deployment.wait_for_task("luma_ui", run_id, "make", 0, state="deferred")
        frame = ui.tab_of_task("luma_ui", run_id, "make", 0)
        expect(detail(frame, "State")).to_have_text(re.compile(r"Being made for \d+ s"))
        expect(frame.locator("video")).to_be_hidden()
        box = frame.locator(".stage").bounding_box()
        expect(frame.locator("video")).to_be_visible(timeout=90_000)
        expect(detail(frame, "State")).to_have_text("Completed")
        assert frame.locator(".stage").bounding_box() == box

    @pytest.mark.parametrize(
        ("map_index", "reason", "advice"),
        [
            (3, "Job failed", "submitting it again may help"),
            (4, "Advanced prompt moderation failed", "change the prompt"),
        ],
    )
    def test_failed(self, ui, many, map_index, reason, advice):
        """Of a generation that failed it says why, and what to do."""
        frame = ui.tab_of_task("luma_ui", many, "make", map_index)
        expect(detail(frame, "State")).to_have_text("Failed")
        expect(frame.locator(".problem")).to_contain_text(reason)
        expect(frame.locator(".problem")).to_contain_text(advice)

    def test_not_lumas(self, ui, archive):
        """On a task that is not Luma's there is one quiet line."""
        frame = ui.tab_of_task("example_luma_archive", archive, "show")
        expect(frame.locator("body")).to_have_text("No Luma video in this task.", use_inner_text=True)

    def test_text_not_markup(self, ui, many):
        """A prompt is text, whatever is in it."""
        frame = ui.tab_of_task("luma_ui", many, "make", 5)
        expect(detail(frame, "Prompt")).to_have_text(SCRIPT)
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.get_by_text(SCRIPT)).to_be_visible()
        assert ui.page.evaluate("window.broken") is None

    def test_forged(self, ui, deployment):
        """What no task of Luma's has written is shown as text, and none of its URLs is used."""
        run_id = deployment.run("luma_forged")
        assert deployment.wait("luma_forged", run_id) == "success"
        frame = ui.tab_of_task("luma_forged", run_id, "forged")
        expect(detail(frame, "Luma task")).to_contain_text("forged")
        expect(detail(frame, "Images")).to_contain_text("data:text/html,<script>")
        assert frame.locator("[href], video[src]").count() == 0
        frame = ui.tab_of_task("luma_forged", run_id, "garbage")
        expect(frame.locator("#notice")).to_have_text("No Luma video in this task.")

    @pytest.mark.parametrize("ui", [{"color_scheme": "dark"}], indirect=True)
    def test_dark(self, ui, archive):
        """It is dark where Airflow is, and becomes light with it."""
        frame = ui.tab_of_task("example_luma_archive", archive, "wait")
        expect(frame.locator("html")).to_have_class("dark")
        ui.page.emulate_media(color_scheme="light")
        ui.page.evaluate("document.documentElement.classList.remove('dark')")
        expect(frame.locator("html")).not_to_have_class("dark")

    @pytest.mark.parametrize("ui", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
    def test_phone(self, ui, archive, many):
        """On a phone nothing has to be scrolled sideways."""
        for path in (
            f"dags/example_luma_archive/runs/{archive}/tasks/wait/-1/video",
            f"dags/luma_ui/runs/{many}/videos",
        ):
            ui.open(f"luma/{path}")
            expect(ui.page.locator("video, #wall button").first).to_be_visible()
            assert ui.page.evaluate("document.documentElement.scrollWidth") == 390


class TestRunTab:
    def test_wall(self, ui, many, tmp_path):
        """A run shows all its videos, those that failed among them; no video is fetched before it is asked for."""
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.locator("#notice")).to_have_text("6 videos: 4 completed, 2 failed")
        expect(frame.locator("#wall img:visible")).to_have_count(4)
        expect(frame.locator("#wall li").filter(has_text="Job failed")).to_contain_text(
            "A lighthouse in the fog [fail]"
        )
        ui.page.wait_for_timeout(500)
        ui.picture("run", tmp_path)
        assert not [url for url in ui.requests if url.endswith(".mp4")]

    def test_enlarge(self, ui, many):
        """With the keyboard alone a tile is enlarged, played and closed, and then is where one was."""
        frame = ui.tab_of_run("luma_ui", many)
        tile = frame.get_by_role("button").filter(has_text="Aurora over a sleeping village")
        tile.focus()
        ui.page.keyboard.press("Enter")
        expect(frame.get_by_role("dialog")).to_be_visible()
        expect(detail(frame, "Prompt")).to_have_text("Aurora over a sleeping village")
        frame.locator("dialog video").focus()
        ui.page.keyboard.press("Space")
        ui.page.wait_for_function(f"() => {VIDEO}.currentTime > 0.3")
        ui.page.keyboard.press("Escape")
        expect(frame.get_by_role("dialog")).to_be_hidden()
        expect(tile).to_be_focused()

    def test_hundreds(self, ui, many, deployment):
        """Of hundreds, all are there, and only those posters are fetched that are near to be seen."""
        multiply(deployment.database, many, 500)
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.locator("#wall li")).to_have_count(506)
        expect(frame.locator("#notice")).to_contain_text("506 videos: 504 completed, 2 failed")
        ui.page.wait_for_timeout(1000)
        luma = [url for url in ui.requests if "/luma/" in url and "?" not in url]
        assert len([url for url in luma if url.endswith("/videos")]) == 1
        assert len([url for url in luma if url.endswith(".json")]) == 1
        assert len([url for url in ui.requests if "poster" in url]) < 80

    def test_no_run(self, ui):
        """A run that is not there is said to be so."""
        ui.open("luma/dags/luma_ui/runs/nowhere/videos")
        expect(ui.page.locator("#notice")).to_have_text("Airflow knows no such run, or no such task in it.")
        ui.complaints.clear()


class TestRights:
    def paths(self, run_id):
        run, task = f"dags/example_luma_archive/runs/{run_id}", "tasks/wait/-1/video"
        return [f"luma/{run}/{path}{end}" for path in ("videos", task) for end in ("", ".json")]

    def test_nobody(self, deployment, archive):
        """Who is not signed in sees nothing."""
        for path in self.paths(archive):
            answer = requests.get(f"{deployment.url}/{path}", timeout=30)
            assert answer.status_code == 401
            assert "puddle" not in answer.text

    def test_outsider(self, chromium, deployment, archive):
        """Who may not see a DAG sees nothing of it here either."""
        password = json.loads((deployment.home / "passwords.json").read_text())["outsider"]
        login = {"username": "outsider", "password": password}
        token = requests.post(f"{deployment.url}/auth/token", json=login, timeout=30).json()["access_token"]
        context = chromium.new_context()
        context.add_cookies([{"name": "_token", "value": token, "url": deployment.url}])
        page = context.new_page()
        page.goto(f"{deployment.url}/dags/example_luma_quickstart")
        expect(page.get_by_role("heading", name="example_luma_quickstart")).to_be_visible()
        for path in self.paths(archive):
            answer = page.goto(f"{deployment.url}/{path}")
            assert answer.status == 403
            assert "puddle" not in answer.text()
        context.close()

    def test_headers(self, deployment, archive):
        """The page may run nothing but its own script, and be framed by nobody but Airflow; the token is not in it."""
        for path in self.paths(archive):
            headers = {"Authorization": f"Bearer {deployment.api_token()}"}
            answer = requests.get(f"{deployment.url}/{path}", headers=headers, timeout=30)
            assert answer.status_code == 200
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert re.search(r"script-src 'sha256-[^']+';", policy)
            assert "frame-ancestors 'self'" in policy
            assert answer.headers["Cache-Control"] == "no-store"
            assert TOKEN not in answer.text


def multiply(database, run_id, times):
    """Copy the first video of a run, with its record, to as many further tasks, straight into Airflow's database."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.row_factory = sqlite3.Row
        where = "WHERE run_id = ? AND task_id = 'make' AND map_index = 0"
        task = dict(connection.execute(f"SELECT * FROM task_instance {where}", [run_id]).fetchone())  # noqa: S608
        xcom = dict(connection.execute(f"SELECT * FROM xcom {where} AND key = 'luma'", [run_id]).fetchone())  # noqa: S608
        old = json.loads(xcom["value"])
        for index in range(times):
            generation_id = f"00000000-0000-4000-8000-{index:012}"
            poster = f"{old['generation']['thumbnail_url']}?poster={index}"
            generation = {**old["generation"], "id": generation_id, "thumbnail_url": poster}
            request = {**old["request"], "user_prompt": f"A paper boat crosses puddle number {index}"}
            record = {**old, "generation_id": generation_id, "generation": generation, "request": request}
            task |= {"id": f"{index:032x}", "map_index": 100 + index}
            xcom |= {"map_index": 100 + index, "value": json.dumps(record)}
            for table, row in (("task_instance", task), ("xcom", xcom)):
                names = ", ".join(row)
                marks = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608
        connection.commit()
