"""Use Airflow's UI in a browser, as a person does."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from dev.local_airflow import PASSWORD, USER

#: The folder for the screenshots in the README; by default, they are not kept.
PICTURES = os.environ.get("LUMA_PICTURES")


class Ui:
    """Airflow's UI in a browser window."""

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
        """Sign in as the user with all rights."""
        self.page.goto(f"{self.deployment.url}/auth/login")
        self.page.fill("input[name=username]", USER)
        self.page.fill("input[name=password]", PASSWORD)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/auth/login" not in url)

    def open(self, path):
        self.page.goto(f"{self.deployment.url}/{path}")

    def tab_of_task(self, dag_id, run_id, task_id, map_index=-1, query=""):
        """Open a task instance, click its Luma tab, and return the frame of the tab."""
        mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
        self.open(f"dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}{query}")
        self.page.get_by_role("link", name="Luma", exact=True).click()
        return self.page.frame_locator("iframe[title=Luma]")

    def tab_of_run(self, dag_id, run_id):
        """Open a run, click its Luma tab, and return the frame of the tab."""
        self.open(f"dags/{dag_id}/runs/{run_id}")
        self.page.get_by_role("link", name="Luma", exact=True).click()
        return self.page.frame_locator("iframe[title=Luma]")

    def picture(self, name, tmp_path):
        """Take a screenshot of the window."""
        self.page.mouse.move(0, 0)
        self.page.screenshot(path=Path(PICTURES or tmp_path) / f"{name}.png")


def multiply(database, run_id, times):
    """Copy the first video of a run, with its record, to more tasks, directly in Airflow's database."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.row_factory = sqlite3.Row
        columns = {row["name"] for row in connection.execute("SELECT name FROM pragma_table_info('task_instance')")}
        # From Airflow 3.4 on, each try is a row, and has its own XComs.
        of_tries = "region_index" in columns
        index_name, xcoms = ("region_index", "xcom_v2") if of_tries else ("map_index", "xcom")
        where = f"WHERE run_id = ? AND task_id = 'make' AND {index_name} = 0"
        task = dict(connection.execute(f"SELECT * FROM task_instance {where}", [run_id]).fetchone())  # noqa: S608
        where, values = ("WHERE task_instance_id = ?", [task["id"]]) if of_tries else (where, [run_id])
        xcom = dict(connection.execute(f"SELECT * FROM {xcoms} {where} AND key = 'luma'", values).fetchone())  # noqa: S608
        old = json.loads(xcom["value"])
        for index in range(times):
            generation_id = f"00000000-0000-4000-8000-{index:012}"
            poster = f"{old['generation']['thumbnail_url']}?poster={index}"
            generation = {**old["generation"], "id": generation_id, "thumbnail_url": poster}
            request = {**old["request"], "user_prompt": f"A paper boat crosses puddle number {index}"}
            record = {**old, "generation_id": generation_id, "generation": generation, "request": request}
            task |= {"id": f"{index:032x}", index_name: 100 + index}
            of_task = {"id": task["id"], "task_instance_id": task["id"]} if of_tries else {"map_index": 100 + index}
            xcom |= {**of_task, "value": json.dumps(record)}
            for table, row in (("task_instance", task), (xcoms, xcom)):
                names = ", ".join(row)
                marks = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))  # noqa: S608
        connection.commit()
