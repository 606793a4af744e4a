"""The Luma tab and the connection form, in a real browser on a real Airflow."""

from __future__ import annotations

import json
import re

import pytest
import requests
from playwright.sync_api import expect, sync_playwright

from dev import browser
from tests.support.deployment import AIRFLOW
from tests.support.tokens import REFUSED_TOKEN, TOKEN
from tests.support.ui import Ui, multiply

pytestmark = pytest.mark.since("3.1")

expect.set_options(timeout=60_000)

#: True for pre-releases too.
SINCE_3_4 = AIRFLOW.release >= (3, 4)
SCRIPT = "<script>window.top.broken = 1</script><img src=x onerror='window.top.broken = 1'>"
VIDEO = "document.querySelector('iframe').contentDocument.querySelector('video')"


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        chromium = browser.launch(playwright)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def signed_in(chromium, deployment):
    """The cookies of a user who has signed in."""
    context = chromium.new_context()
    context.set_default_timeout(60_000)
    Ui(context.new_page(), deployment).sign_in()
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def ui(chromium, signed_in, deployment, request):
    """A browser window. The test fails if Luma's page logs an error in it."""
    options = {"viewport": {"width": 1200, "height": 720}, "color_scheme": "light", **getattr(request, "param", {})}
    permissions = ["clipboard-read", "clipboard-write"]
    context = chromium.new_context(**options, permissions=permissions, storage_state=signed_in)
    context.set_default_timeout(60_000)
    ui = Ui(context.new_page(), deployment)
    yield ui
    context.close()
    assert ui.complaints == []


@pytest.fixture(scope="module")
def run_ids(deployment):
    """Start both runs below at the same time."""
    prompts = [
        "A paper boat crosses a puddle",
        "The sun rises over a city of glass",
        "Aurora over a sleeping village",
        "A lighthouse in the fog [fail]",
        "Somebody famous [moderated]",
        SCRIPT,
    ]
    return {
        "archive": deployment.run("example_luma_archive", conf={"folder": "s3://aws_default@bucket/videos/"}),
        "many": deployment.run("luma_ui", conf={"prompts": prompts}),
    }


@pytest.fixture(scope="module")
def archive(deployment, run_ids):
    """A run that has stored a video."""
    assert deployment.wait("example_luma_archive", run_ids["archive"]) == "success"
    return run_ids["archive"]


@pytest.fixture(scope="module")
def many(deployment, run_ids):
    """A run of six videos; two of them fail."""
    assert deployment.wait("luma_ui", run_ids["many"]) == "failed"
    return run_ids["many"]


@pytest.fixture(scope="module")
def loop(deployment):
    """A run that has made a video in each of two iterations."""
    return deployment.run_to_end("luma_loop")


def detail(frame, name):
    """Return the element that shows the fact of this name."""
    return frame.locator(f"dt:text-is('{name}') + dd:visible")


def answer_with(page, name, change):
    """Change the server's answers before the tab gets them."""

    def answer(route):
        response = route.fetch()
        found = response.json()
        change(found)
        route.fulfill(response=response, json=found)

    page.route(f"**/{name}*", answer)


class TestConnectionForm:
    def test_form_saves_connection(self, ui, sandbox, tmp_path):
        """The form asks for a token and a host, hides unused fields, and saves a connection that works."""
        page = ui.page
        page.set_viewport_size({"width": 1200, "height": 760})
        ui.open("connections")
        page.get_by_role("button", name="Add Connection").click()
        form = page.get_by_role("dialog")
        form.locator("input[name=connection_id]").fill("luma_from_form")
        form.get_by_role("combobox").click()
        page.keyboard.type("Luma")
        page.keyboard.press("Enter")
        host = form.get_by_role("textbox", name="Host").or_(form.locator("input[name=host]"))
        expect(host).to_have_attribute("placeholder", re.compile("leave empty for the default"))
        field = form.locator("input[name=password]")
        expect(field).to_have_attribute("type", "password")
        expect(form.get_by_text("API token")).to_be_visible()
        for hidden in ("login", "port", "schema", "description"):
            expect(form.locator(f"[name={hidden}]")).to_have_count(0)
        ui.picture("form", tmp_path)
        # Airflow 3.4 shows all fields at once.
        if not SINCE_3_4:
            form.get_by_text("Extra Fields", exact=True).click()
        expect(form.get_by_text("Timeout (seconds)")).to_be_visible()
        expect(form.get_by_text("Limit for one request.")).to_be_visible()
        expect(form.get_by_text("Verify TLS")).to_be_visible()
        if not SINCE_3_4:
            form.get_by_text("Standard Fields", exact=True).click()
        host.fill(sandbox.url)
        field.fill(TOKEN)
        form.get_by_role("button", name="Save").click()
        expect(page.get_by_text("luma_from_form")).to_be_visible()
        saved = ui.deployment.api("GET", "connections/luma_from_form")
        tested = ui.deployment.api("POST", "connections/test", json=saved)
        assert tested == {"status": True, "message": f"{sandbox.url} is a Luma gateway and accepts the token."}

    @pytest.mark.parametrize(
        ("token", "said"),
        [(TOKEN, "is a Luma gateway and accepts the token"), (REFUSED_TOKEN, "Check the token")],
        ids=["good", "refused"],
    )
    def test_test_button_reports_token(self, ui, sandbox, token, said):
        """The test button reports whether the API accepts the token."""
        # For a connection without a port, Airflow 3.3.2 sends port 0 and then refuses to test it with its own token.
        host, _, port = sandbox.url.rpartition(":")
        ui.deployment.add_connection("luma_tested", conn_type="luma", host=host, port=int(port), password=token)
        ui.open("connections")
        row = ui.page.get_by_role("row").filter(has_text="luma_tested")
        with ui.page.expect_response(lambda response: response.url.endswith("/connections/test")) as answered:
            row.get_by_role("button", name=re.compile("Test")).click()
        assert said in answered.value.json()["message"]


class TestLinks:
    def test_waiting_task_links_to_video(self, ui, archive):
        """The page of a task that waited has a link to its video."""
        generation = ui.deployment.xcom("example_luma_archive", archive, "wait")
        ui.open(f"dags/example_luma_archive/runs/{archive}/tasks/wait/details")
        expect(ui.page.get_by_role("link", name="Watch video")).to_have_attribute("href", generation["video_url"])

    def test_submitting_task_has_no_link(self, ui, archive):
        """The page of a task that only submitted has no link to a video."""
        ui.open(f"dags/example_luma_archive/runs/{archive}/tasks/submit/details")
        expect(ui.page.get_by_role("link", name="Luma", exact=True)).to_be_visible()
        expect(ui.page.get_by_role("link", name="Watch video")).to_have_count(0)

    def test_mapped_task_links_to_video(self, ui, many):
        """The page of a mapped task has a link to its own video, and a tab with its own facts."""
        ui.open(f"dags/luma_ui/runs/{many}/tasks/make/mapped/1/details")
        generation = ui.deployment.xcom("luma_ui", many, "make", "generation", map_index=1)
        expect(ui.page.get_by_role("link", name="Watch video")).to_have_attribute("href", generation["video_url"])
        frame = ui.tab_of_task("luma_ui", many, "make", 1)
        expect(detail(frame, "Prompt")).to_have_text("The sun rises over a city of glass")
        expect(detail(frame, "Task")).to_have_text("make [1]")


class TestTaskTab:
    def test_tab_plays_video(self, ui, archive, tmp_path):
        """The tab of a task plays its video and shows its facts."""
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
    def test_related_tasks_show_same_video(self, ui, archive, task_id):
        """The task that submitted and the task that stored show the same video."""
        frame = ui.tab_of_task("example_luma_archive", archive, task_id)
        expect(frame.locator("video")).to_have_attribute("src", re.compile("/video.mp4$"))
        expect(detail(frame, "Prompt")).to_have_text("A paper boat crosses a puddle")

    def test_button_copies_generation_id(self, ui, archive):
        """A button copies the generation id."""
        frame = ui.tab_of_task("example_luma_archive", archive, "submit")
        frame.get_by_role("button", name="Copy").click()
        expect(frame.get_by_role("button", name="Copied")).to_be_visible()
        copied = ui.page.evaluate("navigator.clipboard.readText()")
        assert copied == ui.deployment.xcom("example_luma_archive", archive, "submit")

    def test_tab_follows_generation(self, ui, deployment, sandbox):
        """The tab counts the seconds of a running generation, then shows the video, without a reload."""
        prompt = "A boat at night [slow]"
        run_id = deployment.run("luma_ui", conf={"prompts": [prompt]})
        deployment.wait_for_task("luma_ui", run_id, "make", 0, state="deferred")
        frame = ui.tab_of_task("luma_ui", run_id, "make", 0)
        expect(detail(frame, "State")).to_have_text(re.compile(r"Being made for \d+ s"))
        expect(frame.locator("video")).to_be_hidden()
        # Relative to the frame, because parts of Airflow's page above it appear and disappear.
        place = "stage => stage.getBoundingClientRect().toJSON()"
        before = frame.locator(".stage").evaluate(place)
        (generation_id,) = [one["id"] for one in sandbox.report()["generations"] if one["prompt"] == prompt]
        sandbox.finish(generation_id)
        expect(frame.locator("video")).to_be_visible(timeout=90_000)
        expect(detail(frame, "State")).to_have_text("Completed")
        assert frame.locator(".stage").evaluate(place) == before

    @pytest.mark.parametrize(
        ("map_index", "reason", "advice"),
        [
            (3, "Job failed", "retry or clear the task that submitted it"),
            (4, "Advanced prompt moderation failed", "change the prompt"),
        ],
    )
    def test_failed_generation_shows_advice(self, ui, many, map_index, reason, advice):
        """The tab of a failed generation shows the reason and what to do."""
        frame = ui.tab_of_task("luma_ui", many, "make", map_index)
        expect(detail(frame, "State")).to_have_text("Failed")
        expect(frame.locator(".problem")).to_contain_text(reason)
        expect(frame.locator(".problem")).to_contain_text(advice)

    def test_vertical_video_keeps_ratio(self, ui, archive):
        """A vertical video has its ratio before it is loaded."""
        answer_with(ui.page, "video.json", lambda found: found["video"].update(ratio=9 / 16, video_url=None))
        stage = ui.tab_of_task("example_luma_archive", archive, "wait").locator(".stage")
        expect(stage).to_contain_text("the API gave no URL of the video")
        box = stage.bounding_box()
        assert box["width"] / box["height"] == pytest.approx(9 / 16, abs=0.01)

    @pytest.mark.parametrize(
        ("stored", "advice"),
        [
            (["s3://bucket/boat.mp4"], "Your copy is at the address under “Stored at”."),
            ([], "To get a fresh URL, pass the generation id"),
        ],
        ids=["stored", "not stored"],
    )
    def test_expired_url_shows_advice(self, ui, archive, stored, advice):
        """If the URL has expired, the tab says where the video is."""

        def expire(found):
            found["video"].update(
                video_url=found["video"]["video_url"].replace("/cdn/", "/cdn/until-1/"), stored=stored
            )

        answer_with(ui.page, "video.json", expire)
        frame = ui.tab_of_task("example_luma_archive", archive, "wait")
        expect(frame.locator(".stage")).to_contain_text(advice)

    def test_other_task_has_no_video(self, ui, archive):
        """The tab of another operator says that it has no video."""
        frame = ui.tab_of_task("example_luma_archive", archive, "show")
        expect(frame.locator("body")).to_have_text("No Luma video in this task.", use_inner_text=True)

    def test_prompt_is_shown_as_text(self, ui, many):
        """HTML and scripts in a prompt are shown as text."""
        frame = ui.tab_of_task("luma_ui", many, "make", 5)
        expect(detail(frame, "Prompt")).to_have_text(SCRIPT)
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.get_by_text(SCRIPT)).to_be_visible()
        assert ui.page.evaluate("window.broken") is None

    def test_forged_record_is_harmless(self, ui, deployment):
        """A forged record is shown as text, and its URLs are not used. Any DAG can push such an XCom."""
        run_id = deployment.run_to_end("luma_forged")
        frame = ui.tab_of_task("luma_forged", run_id, "forged")
        expect(detail(frame, "Generation id")).to_contain_text("forged")
        expect(detail(frame, "Images")).to_contain_text("data:text/html,<script>")
        assert frame.locator("[href], video[src]").count() == 0
        frame = ui.tab_of_task("luma_forged", run_id, "garbage")
        expect(frame.locator(".stage")).to_have_text("The record of this task cannot be read.")
        expect(frame.locator(".problem")).to_contain_text("garbage: The tab cannot read this task's record (XCom luma)")
        frame = ui.tab_of_run("luma_forged", run_id)
        expect(frame.locator("#notice")).to_have_text("2 videos: 1 completed, 1 unknown")
        expect(frame.locator("#wall li").filter(has_text="The tab cannot read")).to_have_count(1)

    @pytest.mark.parametrize("ui", [{"color_scheme": "dark"}], indirect=True)
    def test_tab_follows_dark_mode(self, ui, archive):
        """The tab is dark or light like Airflow."""
        frame = ui.tab_of_task("example_luma_archive", archive, "wait")
        expect(frame.locator("html")).to_have_class("dark")
        ui.page.emulate_media(color_scheme="light")
        ui.page.evaluate("document.documentElement.classList.remove('dark')")
        expect(frame.locator("html")).not_to_have_class("dark")

    @pytest.mark.parametrize("ui", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
    def test_tab_fits_phone(self, ui, archive, many):
        """On a phone, the tabs need no horizontal scrolling."""
        for path in (
            f"dags/example_luma_archive/runs/{archive}/tasks/wait/-1/video",
            f"dags/luma_ui/runs/{many}/videos",
        ):
            ui.open(f"luma/{path}")
            expect(ui.page.locator("video, #wall button").first).to_be_visible()
            assert ui.page.evaluate("document.documentElement.scrollWidth") == 390


class TestRunTab:
    def test_tab_shows_all_videos(self, ui, many, tmp_path):
        """The tab of a run shows all videos, also failed ones, and loads posters only."""
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.locator("#notice")).to_have_text("6 videos: 4 completed, 2 failed")
        expect(frame.locator("#wall img:visible")).to_have_count(4)
        expect(frame.locator("#wall li").filter(has_text="Job failed")).to_contain_text(
            "A lighthouse in the fog [fail]"
        )
        ui.page.wait_for_timeout(500)
        ui.picture("run", tmp_path)
        assert not [url for url in ui.requests if url.endswith(".mp4")]

    def test_keyboard_is_enough(self, ui, many):
        """The keyboard opens, plays and closes a tile, and the focus returns to it."""
        frame = ui.tab_of_run("luma_ui", many)
        tile = frame.get_by_role("button").filter(has_text="Aurora over a sleeping village")
        tile.focus()
        ui.page.keyboard.press("Enter")
        expect(frame.get_by_role("dialog")).to_be_visible()
        expect(detail(frame, "Prompt")).to_have_text("Aurora over a sleeping village")
        frame.locator("dialog video").focus()
        ui.page.keyboard.press("Space")
        # Tiles also contain video elements, for the first frame of a video without a poster.
        enlarged = VIDEO.replace("'video'", "'dialog video'")
        ui.page.wait_for_function(f"() => {enlarged}.currentTime > 0.3")
        ui.page.keyboard.press("Escape")
        expect(frame.get_by_role("dialog")).to_be_hidden()
        expect(tile).to_be_focused()

    def test_posters_load_near_screen(self, ui, many, deployment):
        """One request lists hundreds of videos, and only posters near the screen are loaded."""
        multiply(deployment.database, many, 500)
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.locator("#wall li")).to_have_count(506)
        expect(frame.locator("#notice")).to_contain_text("506 videos: 504 completed, 2 failed")
        ui.page.wait_for_timeout(1000)
        luma = [url for url in ui.requests if "/luma/" in url and "?" not in url]
        assert len([url for url in luma if url.endswith("/videos")]) == 1
        assert len([url for url in luma if url.endswith(".json")]) == 1
        assert len([url for url in ui.requests if "poster" in url]) < 80

    def test_first_frames_replace_posters(self, ui, many):
        """Videos without a poster (as from Luma's own API) show their first frame when near the screen."""

        def without_posters(found):
            one = next(video for video in found["videos"] if video["video_url"])
            found["videos"] = [
                {**one, "map_index": index, "poster_url": None, "video_url": f"{one['video_url']}?frame={index}"}
                for index in range(300)
            ]

        answer_with(ui.page, "videos.json", without_posters)
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.locator("#wall li")).to_have_count(300)
        expect(frame.locator("#wall video:visible").first).to_be_visible()
        ui.page.wait_for_timeout(1000)
        assert len({url for url in ui.requests if "?frame=" in url}) < 60

    def test_unknown_run_is_reported(self, ui):
        """The tab of a run that does not exist says so."""
        ui.open("luma/dags/luma_ui/runs/nowhere/videos")
        expect(ui.page.locator("#notice")).to_have_text("Airflow has no such run, or the run has no such task.")
        ui.complaints.clear()


@pytest.mark.since("3.4")
class TestLoop:
    def test_iteration_shows_own_video(self, ui, loop):
        """The tab of a task in a loop shows the video of its iteration."""
        found = ui.deployment.task_instances("luma_loop", loop)
        makes = sorted((ti["region_index"], ti["region_id"]) for ti in found if ti["task_id"] == "refine.make")
        assert [index for index, _ in makes] == [0, 1]
        for index, region_id in makes:
            query = f"?region_id={region_id}&region_index={index}"
            frame = ui.tab_of_task("luma_loop", loop, "refine.make", query=query)
            expect(detail(frame, "Prompt")).to_have_text(f"A paper boat, take {index}")
            expect(detail(frame, "Task")).to_have_text(f"refine.make, iteration {index}")

    def test_run_has_tile_per_iteration(self, ui, loop):
        """The tab of the run has a tile for each iteration, and each tile opens its own video."""
        frame = ui.tab_of_run("luma_loop", loop)
        expect(frame.locator("#wall li")).to_have_count(2)
        for index in range(2):
            with ui.page.expect_response(lambda response: "/video.json" in response.url):
                frame.locator("#wall button").nth(index).click()
            expect(detail(frame, "Prompt")).to_have_text(f"A paper boat, take {index}")
            ui.page.keyboard.press("Escape")


class TestRights:
    def paths(self, run_id):
        run, task = f"dags/example_luma_archive/runs/{run_id}", "tasks/wait/-1/video"
        return [f"luma/{run}/{path}{end}" for path in ("videos", task) for end in ("", ".json")]

    def test_login_is_required(self, deployment, archive):
        """Without a login, nothing is shown."""
        for path in self.paths(archive):
            answer = requests.get(f"{deployment.url}/{path}", timeout=30)
            assert answer.status_code == 401
            assert "puddle" not in answer.text

    def test_dag_rights_are_required(self, chromium, deployment, archive):
        """A user who may not read the DAG sees none of its videos."""
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

    def test_page_is_locked_down(self, deployment, archive):
        """The page runs only its own script, is framed only by Airflow, and contains no token."""
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
