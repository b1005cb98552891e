"""Administrators run the server from the pages: users, invitations, queue, readiness, log, and deleting dubs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dubbing.errors import ForbiddenError
from dubbing.jobs import State
from dubbing.store import Audited, User
from tests.web.conftest import line_result, make_job, report_of
from tests.web.site import Client, Site, add_job


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path, REDIS_URL="redis://:hunter22222@db:6379/0", ADMIN_PASSWORD="not to be shown") as opened:
        yield opened


@pytest.fixture
def root(site: Site) -> Client:
    return site.client()


def change(client: Client, user: User, **fields: Any) -> Any:
    given = {"role": user.role, "active": "true"} | fields
    return client.post(f"/ui/admin/users/{user.id}", data={k: v for k, v in given.items() if v is not None})


def newest(site: Site) -> Audited:
    return site.office.store.audit_log(site.user("root", "admin").actor)[0]


# --- users ----------------------------------------------------------------------------------------------------------


def test_role_quota_cap_and_weight_are_set_and_shown(site: Site, root: Client) -> None:
    ana = site.user("ana")

    answer = change(root, ana, role="viewer", quota_mb="500", cap="3", weight="2")

    assert "The user is changed." in answer.text
    store = site.office.store
    assert (store.user(ana.id).role, store.user(ana.id).quota_mb) == ("viewer", 500)
    assert store.settings() == {"user:*:cap": 2, f"user:{ana.id}:cap": 3, f"user:{ana.id}:weight": 2}
    assert 'value="500"' in answer.text
    assert newest(site).subject == "ana: viewer, may log in, quota 500 MB, cap 3, weight 2"
    change(root, ana)
    assert store.user(ana.id).quota_mb == 0
    assert store.settings() == {"user:*:cap": 2}


def test_locking_a_user_out_ends_his_sessions_and_keys_at_once(site: Site, root: Client) -> None:
    browser, ana = site.client("ana", "user"), site.user("ana")
    site.office.store.add_key(ana.id, "secret", name="x", scope="write")

    change(root, ana, active=None)

    assert browser.get("/ui/jobs", follow_redirects=False).status_code == 303
    assert site.office.store.key_user("secret") is None
    assert "locked out" in root.get("/ui/admin").text
    change(root, ana)
    assert site.office.store.sessions(ana.id) == []
    assert site.office.store.key_user("secret") is not None


@pytest.mark.parametrize("fields", [{"role": "user"}, {"active": None}])
def test_the_last_administrator_stays(site: Site, root: Client, fields: dict[str, Any]) -> None:
    me = site.user("root", "admin")
    site.office.store.add_user("puppet", "admin")  # has no password, so it could not administer

    answer = change(root, me, **fields)

    assert answer.status_code == 409
    assert "root is the last administrator who can log in" in answer.text
    assert site.office.store.user(me.id) == me
    site.user("second", "admin")
    assert change(root, me, **fields).status_code in (200, 403)
    assert site.office.store.user(me.id) != me


@pytest.mark.parametrize(
    "fields", [{"cap": "-1"}, {"cap": "two"}, {"weight": "0"}, {"quota_mb": "99999999999"}, {"cap": "99999999999"}]
)
def test_wrong_numbers_change_nothing(site: Site, root: Client, fields: dict[str, str]) -> None:
    ana = site.user("ana")

    answer = change(root, ana, role="admin", **fields)

    assert answer.status_code == 400
    assert "must be" in answer.text
    assert site.office.store.user(ana.id).role == "user"
    assert site.office.store.settings() == {"user:*:cap": 2}


def test_unknown_users_and_roles_are_refused(site: Site, root: Client) -> None:
    assert root.post("/ui/admin/users/nobody", data={"role": "user"}).status_code == 404
    assert change(root, site.user("ana"), role="king").status_code == 400


def test_the_store_itself_asks_who_changes_users(site: Site) -> None:
    ana = site.user("ana")
    with pytest.raises(ForbiddenError):
        site.office.store.change_account(ana.actor, ana.id, role="admin")
    with pytest.raises(ForbiddenError):
        site.office.store.set_priority(ana.actor, "any", 90)


# --- invitations ----------------------------------------------------------------------------------------------------


def test_an_invitation_is_shown_once_works_once_and_is_a_code_too(site: Site, root: Client) -> None:
    answer = root.post("/ui/admin/invitations", data={"role": "viewer"})
    (link,) = re.findall(r"http://127\.0\.0\.1:8000(/ui/invite/[\w-]+)", answer.text)

    assert answer.headers["cache-control"] == "no-store"
    assert "<svg viewBox=" in answer.text
    assert "style=" not in answer.text
    assert link not in root.get("/ui/admin").text
    guest = site.client(None)
    assert guest.post(link, data={"name": "vera", "password": "a long enough sentence"}).status_code == 200
    assert site.office.store.user_by_name("vera").role == "viewer"
    assert guest.get(link).status_code == 404


def test_a_withdrawn_invitation_opens_nothing(site: Site, root: Client) -> None:
    answer = root.post("/ui/admin/invitations", data={"role": "user"})
    (link,) = re.findall(r"(/ui/invite/[\w-]+)", answer.text)
    (withdraw,) = re.findall(r"/ui/admin/invitations/\w+/withdraw", root.get("/ui/admin").text)

    assert "The invitation is withdrawn." in root.post(withdraw).text
    assert site.client(None).get(link).status_code == 404
    assert root.post(withdraw).status_code == 404
    assert newest(site).action == "invitation_withdrawn"


# --- queue ----------------------------------------------------------------------------------------------------------


def test_everything_is_paused_and_started_again(site: Site, root: Client) -> None:
    store, queue = site.office.store, site.office.choice.queue

    assert "Start jobs again" in root.post("/ui/admin/queue/pause").text
    assert store.settings()["global::paused"] == 1
    assert queue.claim("cpu", 1, owner="x", ttl_ms=1000).state in ("paused", "rebuilding")
    assert newest(site).subject == "all jobs"
    assert "Pause all jobs" in root.post("/ui/admin/queue/resume").text
    assert "global::paused" not in store.settings()


def test_one_user_is_paused(site: Site, root: Client) -> None:
    ana = site.user("ana")

    root.post("/ui/admin/queue/pause", data={"user": ana.id})
    assert site.office.store.settings()[f"user:{ana.id}:paused"] == 1
    assert (newest(site).action, newest(site).subject) == ("paused", "ana")
    assert root.post("/ui/admin/queue/pause", data={"user": "nobody"}).status_code == 404
    root.post("/ui/admin/queue/resume", data={"user": ana.id})
    assert f"user:{ana.id}:paused" not in site.office.store.settings()


def test_a_higher_priority_brings_a_waiting_job_to_the_front_of_page_and_queue(site: Site, root: Client) -> None:
    ana, queue, store = site.user("ana"), site.office.choice.queue, site.office.store
    assert store.put_in_charge("local", holder="here-1", seen_epoch=store.in_charge().backend_epoch)
    queue.begin_rebuild()
    queue.end_rebuild(0)
    queue.configure("pool", "cpu", "slots", 2)
    first, _ = site.office.intake.submit(ana.actor, {"source": "/films/first.mp4"})
    second, _ = site.office.intake.submit(ana.actor, {"source": "/films/second.mp4"})

    page = root.post("/ui/admin/queue/priority", data={"job": second.id, "priority": "95"}).text

    assert page.index("second.mp4") < page.index("first.mp4")
    assert site.office.store.job(ana.actor, second.id).priority == 95
    (claim,) = queue.claim("cpu", 1, owner="test", ttl_ms=60_000).claims
    assert claim.job_id == second.id
    assert newest(site).action == "job_prioritised"
    assert first.id != second.id


@pytest.mark.parametrize(("priority", "status"), [("101", 400), ("-1", 400), ("high", 400), ("50", 409)])
def test_impossible_priorities_are_refused(site: Site, root: Client, priority: str, status: int) -> None:
    me = site.user("root", "admin")
    job, _ = site.office.intake.submit(me.actor, {"source": "/films/x.mp4"})
    if status == 409:
        site.office.intake.cancel(me.actor, job.id)

    assert root.post("/ui/admin/queue/priority", data={"job": job.id, "priority": priority}).status_code == status


# --- readiness and log ----------------------------------------------------------------------------------------------


def test_readiness_says_what_is_missing_and_keeps_secrets(site: Site, root: Client) -> None:
    page = root.get("/ui/admin/readiness").text

    assert "SQLite, because QUEUE_MODE is fallback." in page
    assert "none has run yet, so no job starts" in page
    assert "redis://:***@db:6379/0" in page
    assert "hunter22222" not in page
    assert "not to be shown" not in page
    assert str(site.office.settings.output_dir) in page


@pytest.mark.parametrize(("pid", "words"), [(os.getpid(), "is alive"), (2**22 + 1, "has ended, so no job starts")])
def test_readiness_tells_a_dispatcher_that_lives_from_one_that_ended(
    site: Site, root: Client, pid: int, words: str
) -> None:
    store = site.office.store
    assert store.put_in_charge("local", holder="here-1", seen_epoch=store.in_charge().backend_epoch)
    (site.office.settings.state / "queue.sqlite3.dispatcher.lock").write_text(f"here-1 (pid {pid})\n")

    assert f"here-1 {words}" in root.get("/ui/admin/readiness").text


def test_the_log_is_paged_and_escaped(site: Site, root: Client) -> None:
    for number in range(150):
        site.office.store.audit("", "login_failed", f"<i>{number}</i>", "10.0.0.9")

    page = root.get("/ui/admin/audit").text
    (older,) = re.findall(r'href="(\?before=\d+)"', page)
    second = root.get(f"/ui/admin/audit{older}").text

    assert "&lt;i&gt;149&lt;/i&gt;" in page
    assert "<i>" not in page
    numbers = [int(n) for text in (page, second) for n in re.findall(r"&lt;i&gt;(\d+)&lt;", text)]
    assert numbers == list(range(149, -1, -1))


# --- the page of a job ----------------------------------------------------------------------------------------------


def test_the_end_of_the_log_is_shown_escaped(site: Site, root: Client) -> None:
    folder = make_job(site.output, "talk", report_of({"es": [line_result(0, "hola")]}))
    (folder / "job.log").write_text("".join(f"line {n} <script>\n" for n in range(1, 301)))

    page = root.get("/jobs/talk").text

    assert "line 300 &lt;script&gt;" in page
    assert "line 101 &lt;" in page
    assert "line 100 &lt;" not in page
    assert "<script>\n" not in page


def test_the_lines_of_a_real_dub_are_drawn(real_output: Path, tmp_path: Path) -> None:
    with Site(real_output, DUBBING_STATE_DIR=str(tmp_path)) as site:
        page = site.client().get("/jobs/talk").text

    chart = page.partition("When lines are spoken")[2].partition("</svg>")[0]
    lines = json.loads((real_output / "talk" / "lines.es.json").read_text())["lines"]
    assert chart.count('class="original"') == len(lines) > 1
    assert chart.count('class="spoken"') + chart.count('class="troubled"') == len(lines)


def test_a_job_is_deleted_with_its_folder_after_a_question(site: Site, root: Client) -> None:
    folder = make_job(site.output, "talk", report_of({}), es_mp4=b"film")
    page = root.get("/jobs/talk")
    assert "/delete" in page.text
    assert "This cannot be undone." in root.get("/jobs/talk/delete").text
    assert folder.exists()

    root.post("/jobs/talk/delete")

    assert not folder.exists()
    assert site.output.exists()
    assert root.get("/jobs/talk").status_code == 404
    assert newest(site).action == "job_deleted"
    assert newest(site).subject.endswith(": talk")


def test_a_folder_that_two_jobs_share_goes_with_the_last(site: Site, root: Client) -> None:
    folder = make_job(site.output, "talk", report_of({}))
    jobs = [add_job(site.office.store, site.user("root", "admin"), folder) for _ in range(2)]

    root.post(f"/ui/jobs/{jobs[0].id}/delete")
    assert folder.exists()
    root.post(f"/ui/jobs/{jobs[1].id}/delete")
    assert not folder.exists()


def test_only_the_owner_deletes_and_only_what_has_ended(site: Site, root: Client) -> None:
    folder = make_job(site.output, "talk", report_of({}))
    ana, ben = site.client("ana", "user"), site.client("ben", "user")
    job = add_job(site.office.store, site.user("ana"), folder)
    site.office.store.share(site.user("ana").actor, job.id, True)

    assert ben.get(f"/ui/jobs/{job.id}").status_code == 200
    assert "/delete" not in ben.get(f"/ui/jobs/{job.id}").text
    assert ben.get(f"/ui/jobs/{job.id}/delete").status_code == 404
    assert ben.post(f"/ui/jobs/{job.id}/delete").status_code == 404
    assert folder.exists()
    site.office.intake.retry(site.user("ana").actor, job.id)
    assert "cancel it first" in ana.get(f"/ui/jobs/{job.id}/delete").text
    assert ana.post(f"/ui/jobs/{job.id}/delete").status_code == 409
    assert site.office.store.job(site.user("ana").actor, job.id).state is State.PENDING


def test_nothing_outside_the_output_is_ever_removed(site: Site, root: Client, tmp_path_factory: Any) -> None:
    outside = tmp_path_factory.mktemp("outside")
    folder = make_job(outside, "talk", report_of({}))
    job = add_job(site.office.store, site.user("root", "admin"), folder)

    root.post(f"/ui/jobs/{job.id}/delete")

    assert root.get(f"/ui/jobs/{job.id}").status_code == 404
    assert folder.exists()
