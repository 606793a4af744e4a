"""Make and store an image in one task, and use it as the first frame of a video in the next."""

from __future__ import annotations

import struct
import zlib

from airflow.sdk import ObjectStoragePath, dag, task

from airflow_provider_luma.operators.luma import LumaDownloadVideoOperator, LumaGenerateVideoOperator


@dag(
    schedule=None,
    params={"folder": "file:///tmp/luma-videos/"},
    tags=["luma", "example"],
    doc_md=__doc__,
)
def example_luma_image_to_video():
    @task
    def paint(params=None, run_id=None) -> str:
        """Paint an evening sky, and return the path of the image."""
        folder = ObjectStoragePath(params["folder"])
        if not folder.exists():
            folder.mkdir(parents=True)
        path = folder / f"{run_id.replace(':', '-')}.png"
        path.write_bytes(evening_sky(640, 360))
        return str(path)

    generate = LumaGenerateVideoOperator(
        task_id="generate",
        user_prompt="The sun sets and the first stars come out",
        image_url=paint(),
        wait_for_completion=True,
        deferrable=True,
    )
    LumaDownloadVideoOperator(task_id="download", generation=generate.output, destination="{{ params.folder }}")


def evening_sky(width: int, height: int) -> bytes:
    """Return a PNG. In your tasks, use a library for images instead."""
    rows = b"".join(
        b"\0" + bytes((30 + 200 * y // height, 40 + 90 * y // height, 110 - 60 * y // height)) * width
        for y in range(height)
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


example_luma_image_to_video()
