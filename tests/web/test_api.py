"""The API: what programs are told, what they may do, and how they are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dubbing.jobs import State
from dubbing.store import Fence
from dubbing.web.openapi import document
from tests.conftest import ROOT
from tests.web.conftest import line_result, make_job, report_of
from tests.web.site import BASE, Client, Site, add_job


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server over one folder of output."""
    with Site(tmp_path_factory.mktemp("api") / "Output") as opened:
        yield opened


@pytest.fixture
def root(site: Site) -> Client:
    """An administrator."""
    return site.client()


@pytest.fixture
def film(site: Site) -> Path:
    """A file of the server."""
    path = site.output.parent / "talk.mp4"
    path.write_bytes(b"not opened by the web")
    return path


def refused(answer: object, status: int, code: str) -> dict[str, object]:
    """The problem of an answer that is one."""
    assert answer.status_code == status, answer.text  # type: ignore[attr-defined]
    assert answer.headers["content-type"] == "application/problem+json"  # type: ignore[attr-defined]
    facts = answer.json()  # type: ignore[attr-defined]
    assert facts["code"] == code and facts["status"] == status and facts["title"]
    assert set(facts) >= {"type", "title", "status", "detail", "code", "retryable", "stage"}
    return dict(facts)


# --- submitting -------------------------------------------------------------------------------------------------------


def test_an_administrator_submits_a_file_of_the_server(site: Site, root: Client, film: Path) -> None:
    fields = {
        "source": str(film),
        "targets": ["es", "ca", "es"],
        "title": "A talk",
        "quality": "draft",
        "start_ms": 500,
    }

    answer = root.post("/api/v1/jobs", json=fields)

    assert answer.status_code == 201
    job = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{job['id']}"
    assert (job["title"], job["state"], job["targets"], job["mine"]) == ("A talk", "queued", ["es", "ca"], True)
    stored = site.office.store.job(site.user("root").actor, job["id"])
    assert stored.request["source"] == str(film) and stored.request["start_ms"] == 500
    assert stored.request["output_dir"] == str(site.output / "root")
    assert root.get(f"/api/v1/jobs/{job['id']}").json() == job
    assert str(film) not in answer.text


def test_a_repeated_submission_with_its_key_makes_no_second_job(root: Client, film: Path) -> None:
    fields = {"source": str(film), "targets": ["es"]}
    first = root.post("/api/v1/jobs", json=fields, headers={"Idempotency-Key": "k-1"})
    again = root.post("/api/v1/jobs", json=fields, headers={"Idempotency-Key": "k-1"})
    other = root.post("/api/v1/jobs", json=fields | {"targets": ["ca"]}, headers={"Idempotency-Key": "k-1"})

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    refused(other, 422, "idempotency_key")
    refused(root.post("/api/v1/jobs", json=fields, headers={"Idempotency-Key": "a b"}), 400, "usage")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"source": "talk.mp4"}, 400, "usage"),
        ({"source": "/nowhere/talk.mp4"}, 404, "file_missing"),
        ({"source": "/" + "x" * 3000}, 404, "file_missing"),
        ({"source": "/tmp\0/talk.mp4"}, 400, "usage"),
        ({"targets": []}, 400, "usage"),
        ({"targets": ["english please"]}, 422, "language"),
        ({"targets": ["es"], "source_language": "es-MX"}, 422, "language"),
        ({"source_language": "../etc"}, 422, "language"),
        ({"start_ms": 5, "end_ms": 5}, 400, "usage"),
        ({"priority": 101}, 400, "usage"),
        ({"unknown": 1}, 400, "usage"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    root: Client, film: Path, fields: dict[str, object], status: int, code: str
) -> None:
    refused(root.post("/api/v1/jobs", json={"source": str(film), "targets": ["es"]} | fields), status, code)


def test_only_administrators_name_files_of_the_server(site: Site, film: Path) -> None:
    fields = {"source": str(film), "targets": ["es"]}

    refused(site.client("uwe", "user").post("/api/v1/jobs", json=fields), 403, "forbidden")
    refused(site.client("vera", "viewer").post("/api/v1/jobs", json=fields), 403, "forbidden")
    refused(site.client(None).post("/api/v1/jobs", json=fields), 401, "login_required")


def upload(client: Client, data: bytes = b"film", size: int | None = None) -> str:
    """The id of an upload of these bytes; `size` announces more."""
    tus = {"Tus-Resumable": "1.0.0"}
    begun = client.post("/api/v1/uploads", headers=tus | {"Upload-Length": str(size or len(data))})
    sent = tus | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
    assert client.patch(begun.headers["location"], content=data, headers=sent).status_code == 204
    return str(begun.headers["location"].rpartition("/")[2])


def test_an_upload_becomes_a_job_with_everything_that_was_asked(site: Site) -> None:
    client = site.client("pia", "user")
    said = {"name": "said.srt", "text": "1\n00:00:00,100 --> 00:00:01,500\nGood morning.\n"}
    fields = {
        "upload": upload(client), "targets": ["es"], "source_language": "en", "speakers": 2, "run_at_ms": 2**42,
        "engines": {"speak": "espeak-ng"}, "voices": {"*": "es+f2"}, "glossary": {"es": [["ray", "ray"]]},
        "transcript": said, "translations": {"es": said},
    }  # fmt: skip

    made = client.post("/api/v1/jobs", json=fields, headers={"Idempotency-Key": "one"})
    again = client.post("/api/v1/jobs", json=fields, headers={"Idempotency-Key": "one"})

    assert (made.status_code, again.status_code) == (201, 200) and again.json() == made.json()
    job = site.office.store.job(site.user("pia").actor, made.json()["id"])
    assert (job.run_at_ms, job.request["speakers"], job.request["voices"]) == (2**42, 2, {"*": "es+f2"})
    assert job.request["engines"] == {"speak": "espeak-ng"} and job.request["glossary"] == {"es": [["ray", "ray"]]}
    texts = [job.request["transcript"], job.request["translations"]["es"]]
    assert [Path(path).read_text() for path in texts] == [said["text"]] * 2
    assert Path(job.request["source"]).read_bytes() == b"film"
    assert str(site.output) not in made.text


def test_an_upload_that_is_not_whole_not_ones_own_or_wrongly_asked_for_makes_no_job(site: Site, root: Client) -> None:
    client, text = site.client("pia", "user"), {"name": "x.srt", "text": "nothing"}
    whole, half = upload(client), upload(client, size=10)

    def answer(by: Client = client, **fields: object) -> object:
        return by.post("/api/v1/jobs", json={"targets": ["es"]} | fields)

    refused(answer(upload=half), 409, "upload_unfinished")
    refused(answer(root, upload=whole), 404, "not_found")
    refused(answer(upload=whole, source="/films/a.mp4"), 400, "usage")
    refused(answer(), 400, "usage")
    refused(answer(upload=whole, priority=51), 403, "forbidden")
    refused(answer(upload=whole, translations={"fr": text}), 400, "usage")
    refused(answer(upload=whole, translations={"es": text}), 422, "subtitles")
    refused(answer(upload=whole, glossary={"es": [["a", "b"]] * 5001}), 400, "usage")
    refused(answer(upload=whole, engines={"cook": "x"}), 400, "usage")
    assert not site.office.store.upload(site.user("pia").id, whole).taken


def test_texts_go_with_uploads_alone(root: Client, film: Path) -> None:
    fields = {"source": str(film), "targets": ["es"], "transcript": {"name": "a.txt", "text": "words"}}
    refused(root.post("/api/v1/jobs", json=fields), 400, "usage")


def test_a_body_that_is_not_json_and_a_wrong_method_are_problems_too(root: Client) -> None:
    refused(root.post("/api/v1/jobs", content=b"{", headers={"Content-Type": "application/json"}), 400, "usage")
    refused(root.get("/api/v1/nothing"), 404, "not_found")
    wrong = root.put("/api/v1/jobs")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")


# --- looking ----------------------------------------------------------------------------------------------------------


def test_the_list_is_read_part_by_part_without_gap_or_double(site: Site) -> None:
    pat = site.user("pat")
    made = [site.office.store.submit(pat.actor, {"source": f"/films/{n}.mp4"})[0].id for n in range(7)]
    client, seen, cursor = site.client("pat", "user"), [], None
    while True:
        asked = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        part = client.get("/api/v1/jobs", params=asked).json()
        seen += [job["id"] for job in part["jobs"]]
        if (cursor := part["cursor"]) is None:
            break

    assert seen == made[::-1]
    assert [job["title"] for job in client.get("/api/v1/jobs?q=/4.").json()["jobs"]] == ["4.mp4"]
    assert client.get("/api/v1/jobs?state=done").json() == {"jobs": [], "cursor": None}
    for wrong in ("cursor=x", "cursor=99999999999999999999", "limit=0", "limit=201", "view=x", "q=%00"):
        refused(client.get(f"/api/v1/jobs?{wrong}"), 400, "usage")


def test_numbers_and_names_no_database_can_hold_are_refused(site: Site, root: Client) -> None:
    for path in ("jobs/%00", "jobs/%00/events", f"jobs/{'0' * 32}/events?after={2**63}", "jobs/x/events?after=-1"):
        refused(root.get(f"/api/v1/{path}"), 400, "usage")
    refused(root.post("/api/v1/keys", json={"name": "a\0b"}), 400, "usage")
    assert root.get(f"/ui/jobs?before={2**63}").status_code == 400


def test_jobs_of_others_are_not_there_unless_shared(site: Site, root: Client, film: Path) -> None:
    job = root.post("/api/v1/jobs", json={"source": str(film), "targets": ["es"]}).json()
    other = site.client("uwe", "user")

    for path in ("", "/events", "/files", "/lines/es"):
        refused(other.get(f"/api/v1/jobs/{job['id']}{path}"), 404, "not_found")
    assert root.post(f"/api/v1/jobs/{job['id']}/share").json()["shared"]
    seen = other.get(f"/api/v1/jobs/{job['id']}").json()
    assert (seen["id"], seen["mine"]) == (job["id"], False)
    refused(other.post(f"/api/v1/jobs/{job['id']}/cancel"), 404, "not_found")
    refused(other.delete(f"/api/v1/jobs/{job['id']}"), 404, "not_found")


def test_a_running_job_shows_its_stages_and_its_events(site: Site, root: Client) -> None:
    store, actor = site.office.store, site.user("root").actor
    job, _ = store.submit(actor, {"source": "/films/a.mp4", "targets": ["es"]}, targets=["es"])
    fence = Fence(job.id, job.epoch + 1, store.in_charge().backend_epoch)
    assert store.take(fence, owner="test", ttl_ms=60_000)
    stage = {"stage": "speak", "target": "es", "done": 3, "total": 8, "eta_s": 2.5, "note": ""}
    assert store.report_progress(fence, {"stages": [stage]})

    shown = root.get(f"/api/v1/jobs/{job.id}").json()
    events = root.get(f"/api/v1/jobs/{job.id}/events").json()["events"]

    assert (shown["state"], shown["progress"]) == ("running", [stage])
    assert [event["kind"] for event in events] == ["pending", "running", "progress"]
    later = root.get(f"/api/v1/jobs/{job.id}/events", params={"after": events[1]["id"]}).json()["events"]
    assert later == events[2:]
    assert root.post(f"/api/v1/jobs/{job.id}/cancel").json()["asked"] == "cancel"
    store.fail(fence, {"code": "engine_failed", "message": "no", "hint": "", "retryable": False})
    assert root.get(f"/api/v1/jobs/{job.id}").json()["state"] == "cancelled"


def test_a_job_is_paused_resumed_cancelled_and_run_again(root: Client, film: Path) -> None:
    job = root.post("/api/v1/jobs", json={"source": str(film), "targets": ["es"]}).json()["id"]

    def act(action: str) -> str:
        return str(root.post(f"/api/v1/jobs/{job}/{action}").json()["state"])

    assert [act(action) for action in ("pause", "resume", "cancel", "retry")] == [
        "paused", "queued", "cancelled", "queued",
    ]  # fmt: skip
    refused(root.post(f"/api/v1/jobs/{job}/resume"), 409, "state_conflict")
    refused(root.post(f"/api/v1/jobs/{job}/explode"), 400, "usage")


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_are_listed_and_downloaded_whole_and_in_part(site: Site, root: Client) -> None:
    make_job(site.output, "lecture", report_of({"es": [line_result(0, "hola")]}), es_mp4=b"0123456789")
    job = site.id_of("lecture")

    found = {file["name"]: file for file in root.get(f"/api/v1/jobs/{job}/files").json()["files"]}

    film = found["lecture.es.mp4"]
    assert (film["size"], film["language"], film["content_type"]) == (10, "es", "video/mp4")
    whole = root.get(film["href"])
    assert whole.content == b"0123456789" and whole.headers["content-disposition"].startswith("attachment")
    part = root.get(film["href"], headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    refused(root.get(f"/api/v1/jobs/{job}/lines/xx"), 404, "not_found")
    refused(root.get(f"/api/v1/jobs/{job}/files/job.json"), 404, "not_found")


def test_deleting_a_job_removes_its_files_but_not_those_another_job_has(site: Site, root: Client) -> None:
    made = report_of({"es": [line_result(0, "hola")]})
    shared, own = (make_job(site.output, name, made, es_mp4=b"film") for name in ("twice", "once"))
    first, second, alone = (add_job(site.office.store, site.user("root"), folder) for folder in (shared, shared, own))

    assert root.delete(f"/api/v1/jobs/{first.id}").status_code == 204
    assert shared.is_dir()
    assert root.delete(f"/api/v1/jobs/{second.id}").status_code == 204
    assert not shared.exists() and own.is_dir()
    assert root.delete(f"/api/v1/jobs/{alone.id}").status_code == 204
    assert not own.exists()
    refused(root.get(f"/api/v1/jobs/{alone.id}"), 404, "not_found")


def test_only_folders_of_jobs_below_the_output_are_ever_removed(site: Site, root: Client, tmp_path: Path) -> None:
    outside = make_job(tmp_path, "elsewhere", report_of({"es": [line_result(0, "hola")]}))
    plain = site.output / "plain"
    plain.mkdir()
    for folder in (outside, plain):
        job = add_job(site.office.store, site.user("root"), folder)
        assert root.delete(f"/api/v1/jobs/{job.id}").status_code == 204
        assert folder.is_dir()


def test_a_job_that_has_not_ended_is_not_deleted(site: Site, root: Client, film: Path) -> None:
    job = root.post("/api/v1/jobs", json={"source": str(film), "targets": ["es"]}).json()["id"]

    refused(root.delete(f"/api/v1/jobs/{job}"), 409, "state_conflict")
    assert site.office.store.job(site.user("root").actor, job).state is State.PENDING


# --- the line ---------------------------------------------------------------------------------------------------------


def test_the_line_is_shown_paused_and_let_go_on(site: Site, root: Client) -> None:
    kim = site.user("kim")

    assert root.post("/api/v1/queue/pause", json={"user": "kim"}).json() == {"user": "kim", "paused": True}
    assert root.post("/api/v1/queue/pause", json={}).json() == {"user": None, "paused": True}
    shown = root.get("/api/v1/queue").json()
    assert root.post("/api/v1/queue/resume", json={"user": "kim"}).json() == {"user": "kim", "paused": False}
    root.post("/api/v1/queue/resume", json={})

    pauses = {f"user:{kim.id}:paused": 1, "global::paused": 1}
    assert {key: value for key, value in shown["settings"].items() if key.endswith(":paused")} == pauses
    assert "REDIS_URL" in shown["reason"] or "QUEUE_MODE" in shown["reason"]
    assert not [key for key in root.get("/api/v1/queue").json()["settings"] if key.endswith(":paused")]
    refused(root.post("/api/v1/queue/pause", json={"user": "nobody"}), 404, "not_found")
    done = [entry.action for entry in site.office.store.audit_log(site.user("root").actor)]
    assert done.count("paused") == done.count("resumed") == 2


def test_the_line_and_the_users_are_for_administrators(site: Site, root: Client) -> None:
    secret = root.post("/api/v1/keys", json={"name": "tv", "scope": "read"}).json()["secret"]
    reader, user = with_key(site, secret), site.client("uwe", "user")

    listed = {one["name"]: one["role"] for one in root.get("/api/v1/users").json()["users"]}
    assert (listed["root"], listed["uwe"]) == ("admin", "user")
    assert "password" not in root.get("/api/v1/users").text
    assert reader.get("/api/v1/queue").status_code == reader.get("/api/v1/users").status_code == 200
    refused(reader.post("/api/v1/queue/pause", json={}), 403, "key_scope")
    for path in ("queue", "users"):
        refused(user.get(f"/api/v1/{path}"), 403, "forbidden")


def test_a_job_is_found_by_the_first_digits_of_its_id(site: Site, root: Client, film: Path) -> None:
    job = root.post("/api/v1/jobs", json={"source": str(film), "targets": ["es"]}).json()["id"]

    assert [found["id"] for found in root.get(f"/api/v1/jobs?beginning={job[:12]}").json()["jobs"]] == [job]
    assert site.client("uwe", "user").get(f"/api/v1/jobs?beginning={job[:12]}").json()["jobs"] == []
    refused(root.get("/api/v1/jobs?beginning=%25"), 400, "usage")


# --- who asks ---------------------------------------------------------------------------------------------------------


def with_key(site: Site, secret: str) -> Client:
    """A program that has a key and no session."""
    client = Client(site, BASE)
    del client.headers["Sec-Fetch-Site"]
    client.headers["Authorization"] = f"Bearer {secret}"
    return client


def test_a_key_is_shown_once_works_and_can_be_revoked(site: Site) -> None:
    browser = site.client("kim", "user")
    made = browser.post("/api/v1/keys", json={"name": "phone", "expires_days": 30})
    key = made.json()
    program = with_key(site, key["secret"])

    assert made.status_code == 201 and key["expires_ms"] - key["created_ms"] >= 30 * 86_400_000 - 60_000
    assert program.get("/api/v1/me").json() == {
        "id": site.user("kim").id, "name": "kim", "role": "user", "scope": "write", "quota_mb": 0,
    }  # fmt: skip
    (listed,) = browser.get("/api/v1/keys").json()["keys"]
    assert "secret" not in listed and listed["id"] == key["id"]
    refused(program.post("/api/v1/keys", json={"name": "another"}), 403, "forbidden")
    refused(site.client("uwe", "user").delete(f"/api/v1/keys/{key['id']}"), 404, "not_found")
    assert browser.delete(f"/api/v1/keys/{key['id']}").status_code == 204
    refused(program.get("/api/v1/me"), 401, "login_required")


def test_a_key_that_only_looks_changes_nothing(site: Site, root: Client, film: Path) -> None:
    job = root.post("/api/v1/jobs", json={"source": str(film), "targets": ["es"]}).json()["id"]
    secret = root.post("/api/v1/keys", json={"name": "tv", "scope": "read"}).json()["secret"]
    program = with_key(site, secret)

    assert program.get(f"/api/v1/jobs/{job}").status_code == 200
    refused(program.post(f"/api/v1/jobs/{job}/cancel"), 403, "key_scope")
    refused(program.post("/api/v1/jobs", json={"source": str(film), "targets": ["es"]}), 403, "key_scope")


# --- the description --------------------------------------------------------------------------------------------------


def test_the_description_has_every_route_of_the_api_and_no_other(site: Site, root: Client) -> None:
    found = root.get("/api/v1/openapi.json").json()

    assert found == document()
    assert found["openapi"].startswith("3.1")
    assert all(path.startswith("/api/v1/") for path in found["paths"])
    for path, routes in found["paths"].items():
        for method, operation in routes.items():
            assert operation["description"] and operation["summary"], f"{method} {path}"
            assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}
            assert "422" not in operation["responses"]
    refused(site.client(None).get("/api/v1/openapi.json"), 401, "login_required")


def test_the_example_of_the_documents_works(site: Site, root: Client, film: Path) -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    (example,) = (block.partition("```")[0] for block in text.split("```json\n")[1:] if '"source"' in block)

    answer = root.post("/api/v1/jobs", json=json.loads(example) | {"source": str(film)})

    assert answer.status_code == 201
