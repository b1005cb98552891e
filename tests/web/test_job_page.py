"""A job's page while it runs and after it failed, the original's sound, the loudness, and what only administrators see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.artifacts import JobFolder, Names
from dubbing.jobs import Job
from dubbing.store import Fence
from tests.web.conftest import line_result, make_job, report_of
from tests.web.site import Client, Site

STAGE = {"stage": "speak", "target": "es", "done": 3, "total": 20, "eta_s": None, "note": ""}
TASK = "01000000/c8ef45ccd0112571ffffffffffffffffffffffff01000000"
DASHBOARD = "http://ray.example:8265/ray/"
FILM, HEAD = bytes(range(256)) * 600, b"the other beginning"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path / "Output", DUBBING_DASHBOARD_URL=DASHBOARD) as opened:
        yield opened


def running(site: Site, folder: Path, owner: str = "ana") -> tuple[Job, Fence]:
    """A job of ana's that says it is at work in a folder."""
    store, actor = site.office.store, site.user(owner).actor
    job, _ = store.submit(actor, {"source": "/films/talk.mp4", "targets": ["es"]}, max_attempts=1)
    fence = Fence(job.id, job.epoch + 1, store.in_charge().backend_epoch)
    assert store.take(fence, owner="test", ttl_ms=60_000)
    assert store.report_progress(fence, {"stages": [STAGE], "folder": str(folder), "task": TASK})
    return job, fence


def begun(site: Site, name: str = "talk") -> Path:
    """A folder in which a job is at work."""
    folder = make_job(site.output, name, None, preview_es_mp4=b"the first minutes", en_srt=b"1")
    (folder / "job.log").write_text("2026 INFO recognising\n2026 INFO <b>speaking</b>\n")
    return folder


def owner(site: Site) -> Client:
    return site.client("ana", "user")


def test_a_running_job_shows_its_stages_log_files_and_preview(site: Site) -> None:
    job, _ = running(site, begun(site))
    client = owner(site)

    for page in (client.get(f"/ui/jobs/{job.id}").text, client.get(f"/ui/jobs/{job.id}/stages").text):
        assert "3/20" in page and "talk.en.srt" in page
        assert "&lt;b&gt;speaking&lt;/b&gt;" in page
        assert f'src="/ui/jobs/{job.id}/files/talk.preview.es.mp4"' in page
    listed = client.get(f"/api/v1/jobs/{job.id}/files").json()["files"]
    assert [file["name"] for file in listed] == ["talk.en.srt", "job.log"]
    film = client.get(f"/ui/jobs/{job.id}/files/talk.preview.es.mp4")
    assert (film.content, film.headers["content-type"]) == (b"the first minutes", "video/mp4")
    assert site.client("bea", "user").get(f"/ui/jobs/{job.id}/files/talk.preview.es.mp4").status_code == 404


def test_a_failed_job_still_shows_how_far_it_came_and_what_it_said(site: Site) -> None:
    job, fence = running(site, begun(site))
    error = {"code": "engine", "message": "It broke.", "hint": "Mend it.", "retryable": False}
    assert site.office.store.fail(fence, error)

    page = owner(site).get(f"/ui/jobs/{job.id}").text

    assert "Failed" in page and "It broke." in page and "3/20" in page and "recognising" in page


def test_a_job_that_has_not_said_where_it_works_shows_only_its_state(site: Site) -> None:
    actor = site.user("ana").actor
    job, _ = site.office.store.submit(actor, {"source": "/films/talk.mp4", "targets": ["es"]})

    page = owner(site).get(f"/ui/jobs/{job.id}").text

    assert "Waiting" in page and "<pre" not in page and 'class="files"' not in page


def test_a_preview_goes_where_the_film_is(site: Site) -> None:
    folder = begun(site)
    (folder / "talk.es.mp4").write_bytes(FILM)
    job, _ = running(site, folder)

    assert "talk.preview.es.mp4" not in owner(site).get(f"/ui/jobs/{job.id}").text


def test_a_job_named_like_a_preview_is_none(site: Site) -> None:
    folder = make_job(site.output, "preview", report_of({"es": [line_result(0, "hola")]}), es_mp4=FILM)
    found = site.office.results(site.office.store.job(site.user("root", "admin").actor, site.id_of("preview")))

    assert found is not None and found.previews == {} and "preview.es.mp4" in found.files
    assert Names(folder).preview("es", False) != Names(folder).video("es", False)


@pytest.mark.parametrize(("others", "is_left"), [("nothing", False), ("a job", True), ("a run of no job", True)])
def test_deleting_a_failed_job_removes_its_folder_unless_somebody_else_has_results_there(
    site: Site, others: str, is_left: bool
) -> None:
    folder = begun(site)
    job, fence = running(site, folder)
    if others == "a job":
        running(site, folder, "bea")
    if others == "a run of no job":
        Names(folder).report.write_text(json.dumps(report_of({})))
    assert site.office.store.fail(fence, {"code": "x", "message": "x", "hint": "", "retryable": False})

    answer = owner(site).post(f"/ui/jobs/{job.id}/delete", follow_redirects=False)

    assert answer.status_code == 303
    assert folder.exists() is is_left


# --- the dashboard ----------------------------------------------------------------------------------------------------


def test_only_administrators_are_led_to_the_task_on_the_dashboard(site: Site) -> None:
    job, _ = running(site, begun(site))
    site.office.store.share(site.user("ana").actor, job.id, True)
    wanted = f"http://ray.example:8265/ray/#/jobs/{'/tasks/'.join(TASK.split('/'))}"
    paths = [f"/ui/jobs/{job.id}", f"/ui/jobs/{job.id}/stages"]

    for path in paths:
        assert f'href="{wanted}"' in site.client().get(path).text
    for role in ("user", "viewer"):
        for name in ("ana", f"some-{role}"):
            client = site.client(name, role)
            told = [*paths, f"/api/v1/jobs/{job.id}", f"/api/v1/jobs/{job.id}/events", "/ui/jobs"]
            for path in told:
                answer = client.get(path)
                assert answer.status_code == 200
                assert "ray.example" not in answer.text and TASK.split("/")[1] not in answer.text
                assert str(site.output) not in answer.text


@pytest.mark.parametrize("task", [None, "", "x/y", "01/../02", "01/<script>"])
def test_without_a_task_there_is_no_link(site: Site, task: str | None) -> None:
    job, fence = running(site, begun(site))
    assert site.office.store.report_progress(fence, {"stages": [STAGE], "task": task})

    assert "ray.example" not in site.client().get(f"/ui/jobs/{job.id}").text


def test_without_the_dashboards_address_there_is_no_link(tmp_path: Path) -> None:
    with Site(tmp_path / "Output") as site:
        job, _ = running(site, begun(site))
        assert "Ray dashboard" not in site.client().get(f"/ui/jobs/{job.id}").text


# --- the original's sound ---------------------------------------------------------------------------------------------


@pytest.fixture
def talk(site: Site) -> str:
    """The page of a job whose film can be played with the original's sound; its address."""
    folder = make_job(site.output, "talk", report_of({"es": [line_result(0, "hola")]}), es_mp4=FILM, es_vtt=b"WEBVTT")
    JobFolder(folder).target("es")
    Names(folder).original_head("es").write_bytes(HEAD)
    return site.path("/jobs/talk")


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        (None, 200, slice(None)),
        ("bytes=0-", 206, slice(None)),
        ("bytes=0-4", 206, slice(0, 5)),
        ("bytes=10-30", 206, slice(10, 31)),
        ("bytes=5-70000", 206, slice(5, 70_001)),
        (f"bytes={len(HEAD)}-", 206, slice(len(HEAD), None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=0-1,5-6", 200, slice(None)),
        ("bytes=999999-", 416, None),
    ],
)
def test_the_film_with_the_originals_sound_is_served_whole_or_in_part(
    site: Site, talk: str, asked: str | None, status: int, part: slice | None
) -> None:
    headers = {"Range": asked} if asked else {}
    answer = site.client().get(f"{talk}/files/talk.es.mp4?sound=original", headers=headers)

    assert answer.status_code == status
    if part is not None:
        assert answer.content == (HEAD + FILM[len(HEAD) :])[part]
        assert answer.headers["content-type"] == "video/mp4"
        assert int(answer.headers["content-length"]) == len(answer.content)
    assert site.client().get(f"{talk}/files/talk.es.mp4").content == FILM


def test_a_head_request_and_strangers_get_no_byte_of_it(site: Site, talk: str) -> None:
    address = f"{talk}/files/talk.es.mp4?sound=original"
    answer = site.client().head(address)

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", str(len(FILM)))
    assert owner(site).get(address).status_code == 404


def test_where_browsers_cannot_play_the_original_it_is_not_offered(site: Site, talk: str) -> None:
    page = site.client().get(talk).text
    assert 'data-original="' in page and 'id="one-sound" hidden' in page

    Names(site.output / "talk").original_head("es").unlink()

    page = site.client().get(talk).text
    assert 'data-original="' not in page and 'id="one-sound" hidden' not in page
    assert site.client().get(f"{talk}/files/talk.es.mp4?sound=original").status_code == 404
    assert site.client().get(f"{talk}/files/talk.es.vtt?sound=original").status_code == 404


def test_the_original_is_chosen_by_a_link_too(site: Site, talk: str) -> None:
    page = site.client().get(f"{talk}?language=es&sound=original").text

    assert f'src="{talk}/files/talk.es.mp4?sound=original"' in page
    assert site.client().get(f"{talk}?sound=other").status_code == 400


# --- loudness ---------------------------------------------------------------------------------------------------------


def test_the_report_shows_loudness_over_time_in_a_picture_and_in_words(site: Site, talk: str) -> None:
    assert 'class="time loudness"' not in site.client().get(talk).text
    measured = {"schema": 1, "every_s": 1, "source": [-30.0] * 5 + [-70.0] * 5, "targets": {"es": [-16.0] * 10}}
    Names(site.output / "talk").loudness.write_text(json.dumps(measured))

    page = site.client().get(talk).text

    assert page.count("<polyline") == 2
    assert "Dub: mostly from −16 to −16 LUFS" in page and "Original: mostly from −30 to −30 LUFS" in page
    assert site.client().get(f"{talk}/files/loudness.json").json() == measured
