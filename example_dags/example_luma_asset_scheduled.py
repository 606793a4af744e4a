"""Run each time another DAG, such as example_luma_archive, has stored a video, and get the video's URI."""

from __future__ import annotations

from airflow.sdk import Asset, dag, task

VIDEOS = Asset("luma_videos")


@dag(schedule=[VIDEOS], tags=["luma", "example"], doc_md=__doc__)
def example_luma_asset_scheduled():
    @task
    def show(triggering_asset_events=None) -> list[dict]:
        videos = [event.extra for event in triggering_asset_events[VIDEOS]]
        for video in videos:
            print(f"{video['generation_id']}: {video['uri']}")
        return videos

    show()


example_luma_asset_scheduled()
