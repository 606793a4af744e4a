"""What people see: a real browser on a real Airflow."""

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

#: Its pre-releases as well.
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
    """The cookies of a person who has signed in."""
    context = chromium.new_context()
    context.set_default_timeout(60_000)
    Ui(context.new_page(), deployment).sign_in()
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def ui(chromium, signed_in, deployment, request):
    """A browser window, in which nothing of Luma's may complain."""
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
    """Both runs below, begun together."""
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
    """A run of videos, of which some fail."""
    assert deployment.wait("luma_ui", run_ids["many"]) == "failed"
    return run_ids["many"]


@pytest.fixture(scope="module")
def loop(deployment):
    """A run that has made a video in each of two iterations."""
    return deployment.run_to_end("luma_loop")


def detail(frame, name):
    """Return what the page says beside a name."""
    return frame.locator(f"dt:text-is('{name}') + dd:visible")


def answer_with(page, name, change):
    """Let the tab get an answer that is not quite the server's."""

    def answer(route):
        response = route.fetch()
        found = response.json()
        change(found)
        route.fulfill(response=response, json=found)

    page.route(f"**/{name}*", answer)


class TestConnectionForm:
    def test_the_form_asks_for_a_token_and_a_gateway_and_saves_a_good_connection(self, ui, sandbox, tmp_path):
        page = ui.page
        page.set_viewport_size({"width": 1200, "height": 760})
        ui.open("connections")
        page.get_by_role("button", name="Add Connection").click()
        form = page.get_by_role("dialog")
        form.locator("input[name=connection_id]").fill("luma_from_form")
        form.get_by_role("combobox").click()
        page.keyboard.type("Luma")
        page.keyboard.press("Enter")
        gateway = form.get_by_role("textbox", name="Host").or_(form.locator("input[name=host]"))
        expect(gateway).to_have_attribute("placeholder", re.compile("Luma for a key that begins with luma-"))
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
        expect(form.get_by_text("How long one request may take.")).to_be_visible()
        expect(form.get_by_text("Verify TLS")).to_be_visible()
        if not SINCE_3_4:
            form.get_by_text("Standard Fields", exact=True).click()
        gateway.fill(sandbox.url)
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
    def test_the_test_button_reports_whether_the_token_is_accepted(self, ui, sandbox, token, said):
        # Airflow 3.3.2 sends port 0 for a connection that has none, and then refuses to test it with its own token.
        host, _, port = sandbox.url.rpartition(":")
        ui.deployment.add_connection("luma_tested", conn_type="luma", host=host, port=int(port), password=token)
        ui.open("connections")
        row = ui.page.get_by_role("row").filter(has_text="luma_tested")
        with ui.page.expect_response(lambda response: response.url.endswith("/connections/test")) as answered:
            row.get_by_role("button", name=re.compile("Test")).click()
        assert said in answered.value.json()["message"]


class TestLinks:
    def test_a_task_that_waited_has_links_to_the_video_and_to_its_tab(self, ui, archive):
        generation = ui.deployment.xcom("example_luma_archive", archive, "wait")
        ui.open(f"dags/example_luma_archive/runs/{archive}/tasks/wait/details")
        expect(ui.page.get_by_role("link", name="Watch video")).to_have_attribute("href", generation["video_url"])
        frame = ui.follow("Luma task")
        expect(detail(frame, "Luma task")).to_contain_text(generation["id"])

    def test_a_task_that_only_submitted_has_no_link_to_a_video(self, ui, archive):
        ui.open(f"dags/example_luma_archive/runs/{archive}/tasks/submit/details")
        expect(ui.page.get_by_role("link", name="Luma task")).to_be_visible()
        expect(ui.page.get_by_role("link", name="Watch video")).to_have_count(0)

    def test_each_mapped_task_has_its_own_links(self, ui, many):
        ui.open(f"dags/luma_ui/runs/{many}/tasks/make/mapped/1/details")
        generation = ui.deployment.xcom("luma_ui", many, "make", "generation", map_index=1)
        expect(ui.page.get_by_role("link", name="Watch video")).to_have_attribute("href", generation["video_url"])
        frame = ui.follow("Luma task")
        expect(detail(frame, "Prompt")).to_have_text("The sun rises over a city of glass")
        expect(detail(frame, "Task")).to_have_text("make [1]")


class TestTaskTab:
    def test_the_tab_of_a_task_plays_the_video_and_shows_its_details(self, ui, archive, tmp_path):
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
    def test_the_tasks_that_submitted_and_stored_show_the_same_video(self, ui, archive, task_id):
        frame = ui.tab_of_task("example_luma_archive", archive, task_id)
        expect(frame.locator("video")).to_have_attribute("src", re.compile("/video.mp4$"))
        expect(detail(frame, "Prompt")).to_have_text("A paper boat crosses a puddle")

    def test_a_click_copies_the_generation_id(self, ui, archive):
        frame = ui.tab_of_task("example_luma_archive", archive, "submit")
        frame.get_by_role("button", name="Copy").click()
        expect(frame.get_by_role("button", name="Copied")).to_be_visible()
        copied = ui.page.evaluate("navigator.clipboard.readText()")
        assert copied == ui.deployment.xcom("example_luma_archive", archive, "submit")

    def test_the_tab_shows_for_how_long_a_video_is_being_made_and_then_the_video(self, ui, deployment, sandbox):
        """It needs no reload, and nothing moves."""
        prompt = "A boat at night [slow]"
        run_id = deployment.run("luma_ui", conf={"prompts": [prompt]})
        deployment.wait_for_task("luma_ui", run_id, "make", 0, state="deferred")
        frame = ui.tab_of_task("luma_ui", run_id, "make", 0)
        expect(detail(frame, "State")).to_have_text(re.compile(r"Being made for \d+ s"))
        expect(frame.locator("video")).to_be_hidden()
        # In its own frame: what Airflow shows above it comes and goes.
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
            (3, "Job failed", "clear or retry the task that submitted it"),
            (4, "Advanced prompt moderation failed", "change the prompt"),
        ],
    )
    def test_the_tab_of_a_failed_generation_shows_why_and_what_to_do(self, ui, many, map_index, reason, advice):
        frame = ui.tab_of_task("luma_ui", many, "make", map_index)
        expect(detail(frame, "State")).to_have_text("Failed")
        expect(frame.locator(".problem")).to_contain_text(reason)
        expect(frame.locator(".problem")).to_contain_text(advice)

    def test_a_vertical_video_stands_upright_before_it_is_loaded(self, ui, archive):
        answer_with(ui.page, "video.json", lambda found: found["video"].update(ratio=9 / 16, video_url=None))
        stage = ui.tab_of_task("example_luma_archive", archive, "wait").locator(".stage")
        expect(stage).to_contain_text("gave no URL of its video")
        box = stage.bounding_box()
        assert box["width"] / box["height"] == pytest.approx(9 / 16, abs=0.01)

    @pytest.mark.parametrize(
        ("stored", "advice"),
        [(["s3://bucket/boat.mp4"], "Your copy is where “Stored at” says."), ([], "get a fresh one with the id")],
        ids=["stored", "not stored"],
    )
    def test_of_a_url_that_has_expired_the_tab_says_where_the_video_still_is(self, ui, archive, stored, advice):
        def expire(found):
            found["video"].update(
                video_url=found["video"]["video_url"].replace("/cdn/", "/cdn/until-1/"), stored=stored
            )

        answer_with(ui.page, "video.json", expire)
        frame = ui.tab_of_task("example_luma_archive", archive, "wait")
        expect(frame.locator(".stage")).to_contain_text(advice)

    def test_the_tab_of_another_operator_has_one_quiet_line(self, ui, archive):
        frame = ui.tab_of_task("example_luma_archive", archive, "show")
        expect(frame.locator("body")).to_have_text("No Luma video in this task.", use_inner_text=True)

    def test_a_prompt_is_text_whatever_is_in_it(self, ui, many):
        frame = ui.tab_of_task("luma_ui", many, "make", 5)
        expect(detail(frame, "Prompt")).to_have_text(SCRIPT)
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.get_by_text(SCRIPT)).to_be_visible()
        assert ui.page.evaluate("window.broken") is None

    def test_a_forged_record_is_shown_as_text_and_none_of_its_urls_is_used(self, ui, deployment):
        """Whoever writes a DAG can push an XCom that looks like a record."""
        run_id = deployment.run_to_end("luma_forged")
        frame = ui.tab_of_task("luma_forged", run_id, "forged")
        expect(detail(frame, "Luma task")).to_contain_text("forged")
        expect(detail(frame, "Images")).to_contain_text("data:text/html,<script>")
        assert frame.locator("[href], video[src]").count() == 0
        frame = ui.tab_of_task("luma_forged", run_id, "garbage")
        expect(frame.locator("#notice")).to_have_text("No Luma video in this task.")

    @pytest.mark.parametrize("ui", [{"color_scheme": "dark"}], indirect=True)
    def test_the_tab_is_dark_where_airflow_is(self, ui, archive):
        """It becomes light with it, too."""
        frame = ui.tab_of_task("example_luma_archive", archive, "wait")
        expect(frame.locator("html")).to_have_class("dark")
        ui.page.emulate_media(color_scheme="light")
        ui.page.evaluate("document.documentElement.classList.remove('dark')")
        expect(frame.locator("html")).not_to_have_class("dark")

    @pytest.mark.parametrize("ui", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
    def test_on_a_phone_nothing_has_to_be_scrolled_sideways(self, ui, archive, many):
        for path in (
            f"dags/example_luma_archive/runs/{archive}/tasks/wait/-1/video",
            f"dags/luma_ui/runs/{many}/videos",
        ):
            ui.open(f"luma/{path}")
            expect(ui.page.locator("video, #wall button").first).to_be_visible()
            assert ui.page.evaluate("document.documentElement.scrollWidth") == 390


class TestRunTab:
    def test_the_tab_of_a_run_shows_all_its_videos_and_fetches_none_before_it_is_asked_for(self, ui, many, tmp_path):
        """Those that failed are among them."""
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.locator("#notice")).to_have_text("6 videos: 4 completed, 2 failed")
        expect(frame.locator("#wall img:visible")).to_have_count(4)
        expect(frame.locator("#wall li").filter(has_text="Job failed")).to_contain_text(
            "A lighthouse in the fog [fail]"
        )
        ui.page.wait_for_timeout(500)
        ui.picture("run", tmp_path)
        assert not [url for url in ui.requests if url.endswith(".mp4")]

    def test_the_keyboard_alone_enlarges_plays_and_closes_a_tile(self, ui, many):
        """The focus is then where it was."""
        frame = ui.tab_of_run("luma_ui", many)
        tile = frame.get_by_role("button").filter(has_text="Aurora over a sleeping village")
        tile.focus()
        ui.page.keyboard.press("Enter")
        expect(frame.get_by_role("dialog")).to_be_visible()
        expect(detail(frame, "Prompt")).to_have_text("Aurora over a sleeping village")
        frame.locator("dialog video").focus()
        ui.page.keyboard.press("Space")
        # The tiles have videos, too, of which they show the first frame where there is no poster.
        enlarged = VIDEO.replace("'video'", "'dialog video'")
        ui.page.wait_for_function(f"() => {enlarged}.currentTime > 0.3")
        ui.page.keyboard.press("Escape")
        expect(frame.get_by_role("dialog")).to_be_hidden()
        expect(tile).to_be_focused()

    def test_of_hundreds_of_videos_only_posters_near_the_screen_are_fetched(self, ui, many, deployment):
        """All of them are listed, from one request."""
        multiply(deployment.database, many, 500)
        frame = ui.tab_of_run("luma_ui", many)
        expect(frame.locator("#wall li")).to_have_count(506)
        expect(frame.locator("#notice")).to_contain_text("506 videos: 504 completed, 2 failed")
        ui.page.wait_for_timeout(1000)
        luma = [url for url in ui.requests if "/luma/" in url and "?" not in url]
        assert len([url for url in luma if url.endswith("/videos")]) == 1
        assert len([url for url in luma if url.endswith(".json")]) == 1
        assert len([url for url in ui.requests if "poster" in url]) < 80

    def test_without_posters_the_first_frames_near_the_screen_are_shown(self, ui, many):
        """Luma's own API has none."""

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

    def test_a_run_that_does_not_exist_is_reported(self, ui):
        ui.open("luma/dags/luma_ui/runs/nowhere/videos")
        expect(ui.page.locator("#notice")).to_have_text("Airflow knows no such run, or no such task in it.")
        ui.complaints.clear()


@pytest.mark.since("3.4")
class TestLoop:
    def test_each_iteration_shows_its_own_video(self, ui, loop):
        found = ui.deployment.task_instances("luma_loop", loop)
        makes = sorted((ti["region_index"], ti["region_id"]) for ti in found if ti["task_id"] == "refine.make")
        assert [index for index, _ in makes] == [0, 1]
        for index, region_id in makes:
            query = f"?region_id={region_id}&region_index={index}"
            frame = ui.tab_of_task("luma_loop", loop, "refine.make", query=query)
            expect(detail(frame, "Prompt")).to_have_text(f"A paper boat, take {index}")
            expect(detail(frame, "Task")).to_have_text(f"refine.make, iteration {index}")

    def test_the_tab_of_the_run_has_a_tile_for_each_and_enlarges_the_right_one(self, ui, loop):
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

    def test_without_a_login_nothing_is_shown(self, deployment, archive):
        for path in self.paths(archive):
            answer = requests.get(f"{deployment.url}/{path}", timeout=30)
            assert answer.status_code == 401
            assert "puddle" not in answer.text

    def test_a_user_without_the_dag_sees_nothing_of_it(self, chromium, deployment, archive):
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

    def test_the_page_runs_only_its_own_script_and_holds_no_token(self, deployment, archive):
        """Only Airflow may frame it."""
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
