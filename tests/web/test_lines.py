"""Lines are changed by forms that work alone, by their owner only, and never over what somebody else saved meanwhile."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dubbing import line_edits
from dubbing.jobs import State
from tests.web.conftest import line_result, make_job, report_of, write_lines
from tests.web.site import Client, Site

HOSTILE = """</textarea><script>alert('x')</script>"""
LINES = 45


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dub of 45 lines, of which every tenth is late."""
    results = [line_result(i, f"frase {i}", *(["late"] if i % 10 == 9 else [])) for i in range(LINES)]
    folder = make_job(tmp_path / "Output", "talk", report_of({"es": results}), es_mp4=b"film", peaks_json=b"")
    write_lines(folder, results)
    return folder


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with Site(folder.parent) as opened:
        yield opened


@pytest.fixture
def client(site: Site) -> Client:
    """The owner's browser."""
    return site.client()


Post = Callable[..., Any]


@pytest.fixture
def post(client: Client, folder: Path) -> Post:
    """`post(3, text="...")` sends the form of a line as the page shows it, with these fields changed."""

    def send(number: int, by: Client | None = None, **fields: str) -> Any:
        shown = {row["line"]: row for row in client.get(api(client)).json()["lines"]}
        row = shown[number]
        start, end = (line_edits.clock(row["edit"].get(f"{name}_ms", row[f"{name}_ms"])) for name in ("start", "end"))
        sent = {name: row["edit"].get(name, row[name]) for name in ("text", "voice", "speaker")}
        sent |= {"line": str(number), "start": start, "end": end, "version": line_edits.read_edits(folder, "es")[1]}
        return (by or client).post("/jobs/talk/lines/es", data=sent | fields, follow_redirects=False)

    return send


def api(client: Client) -> str:
    """Where programs find the lines."""
    return "/api/v1" + client.path_of("/jobs/talk/lines/es").removeprefix("/ui")


def edits(folder: Path) -> dict[str, Any]:
    return {n: edit.wanted for n, edit in line_edits.read_edits(folder, "es")[0].lines.items()}  # type: ignore[misc]


def numbers(html: str) -> list[int]:
    return [int(n) for n in re.findall(r'<li id="line-(\d+)"', html)]


def test_lines_come_in_pages_and_can_be_narrowed_to_those_with_problems(client: Client, post: Post) -> None:
    assert numbers(client.get("/jobs/talk/lines/es").text) == list(range(1, 41))
    assert numbers(client.get("/jobs/talk/lines/es?page=2").text) == list(range(41, 46))
    assert numbers(client.get("/jobs/talk/lines/es?show=problems").text) == [10, 20, 30, 40]
    assert "There is no line of this kind" in client.get("/jobs/talk/lines/es?show=changed").text
    post(12, text="otra")
    assert numbers(client.get("/jobs/talk/lines/es?show=changed").text) == [12]
    assert "/lines/es" in client.get("/jobs/talk").text


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"text": " Algo\r\nnuevo. "}, {"text": "Algo nuevo."}),
        ({"voice": "es+f2"}, {"voice": "es+f2"}),
        ({"speaker": "Ana"}, {"speaker": "Ana"}),
        ({"start": "0:05.250", "end": "7"}, {"start_ms": 5250}),
        ({"action": "redo"}, {"redo": 1}),
    ],
)
def test_a_form_saves_what_was_changed_and_nothing_else(
    client: Client, folder: Path, post: Post, fields: dict[str, str], wanted: dict[str, Any]
) -> None:
    answer = post(3, **fields, page="1", show="all")

    assert answer.status_code == 303
    assert answer.headers["location"].endswith("/lines/es?show=all&page=1#line-3")
    assert edits(folder) == {3: wanted}
    shown = client.get(api(client)).json()["lines"][2]
    assert shown["changed"] and shown["edit"] == wanted
    assert post(3, action="reset").status_code == 303
    assert edits(folder) == {}


def test_an_empty_field_takes_one_change_back(folder: Path, post: Post) -> None:
    post(3, text="Algo.", voice="es+f2")
    post(3, text="")

    assert edits(folder) == {3: {"voice": "es+f2"}}


def test_a_locked_line_is_changed_only_together_with_its_lock(client: Client, folder: Path, post: Post) -> None:
    post(3, text="Así.", locked="true")
    refused = post(3, text="De otra manera.", locked="true")

    assert refused.status_code == 409 and "Line 3 is locked" in refused.text
    assert client.get(api(client)).json()["lines"][2]["locked"]
    assert post(3, text="De otra manera.").status_code == 303
    assert edits(folder) == {3: {"text": "De otra manera."}}


def test_what_was_saved_meanwhile_is_not_overwritten(folder: Path, client: Client, post: Post) -> None:
    old = line_edits.read_edits(folder, "es")[1]
    post(5, text="De otra ventana.")

    stale = post(6, text="Mía.", version=old)
    program = client.patch(api(client), json={"version": old, "lines": {"6": {"text": "Mía."}}})

    assert stale.status_code == 409 and "Nothing was saved. Go back, copy what you typed" in stale.text
    assert program.status_code == 409 and program.json()["code"] == "edits_stale"
    assert edits(folder) == {5: {"text": "De otra ventana."}}


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"start": "noon"}, 422, "is not a time such as"),
        ({"start": "0:09"}, 422, "it would end -2000 ms after its start"),
        ({"start": "0:01", "end": "0:02"}, 422, "lines keep their order"),
        ({"start": "0:05", "end": "0:05.01"}, 422, "it would end 10 ms after its start"),
        ({"voice": "nobody"}, 422, "there is no voice nobody; there are es, es+f2"),
        ({"text": "x" * 2001}, 422, "text: "),
        ({"text": "a\u202eb"}, 422, "only what can be read"),
        ({"line": "99"}, 404, "There is no line 99 here"),
        ({"line": "x"}, 400, "line"),
        ({"action": "burn"}, 400, "action"),
    ],
)
def test_what_a_run_could_not_do_is_refused_with_its_reason(
    folder: Path, post: Post, fields: dict[str, str], status: int, sentence: str
) -> None:
    answer = post(3, **fields)

    assert answer.status_code == status
    assert sentence in answer.text
    assert edits(folder) == {}


def test_redo_puts_the_job_back_in_line_once(site: Site, client: Client, post: Post) -> None:
    post(3, text="Algo.")
    assert "1 line; the others stay as they are" in client.get("/jobs/talk/lines/es").text

    assert "the dub as it was" not in client.get("/jobs/talk").text

    answer = client.post("/jobs/talk/lines/es/redo", follow_redirects=False)

    assert answer.status_code == 303 and answer.headers["location"] == site.path("/jobs/talk")
    root = site.user("root", "admin").actor
    assert site.office.store.job(root, site.id_of("talk")).state is State.PENDING
    assert "counts for the run after this one" in client.get("/jobs/talk/lines/es").text
    assert client.post("/jobs/talk/lines/es/redo").status_code == 409
    assert "the dub as it was" in client.get("/jobs/talk").text


def test_others_see_nothing_and_those_a_dub_is_shared_with_only_look(site: Site, folder: Path, post: Post) -> None:
    ana = site.client("ana", "user")
    hidden = [ana.get("/jobs/talk/lines/es"), ana.get("/jobs/talk/lines/es/1/clip"), post(3, ana, text="Mía.")]
    assert [answer.status_code for answer in hidden] == [404, 404, 404]

    site.office.store.share(site.user("root", "admin").actor, site.id_of("talk"), True)
    page = ana.get("/jobs/talk/lines/es")

    assert page.status_code == 200 and "Only the owner" in page.text and "<textarea" not in page.text
    assert ana.get("/jobs/talk/lines/es/1/clip").status_code == 200
    changing = [
        post(3, ana, text="Mía."),
        ana.post("/jobs/talk/lines/es/redo"),
        ana.patch(api(ana), json={"lines": {"3": {"text": "Mía."}}}),
    ]
    assert [answer.status_code for answer in changing] == [404, 404, 404]
    assert edits(folder) == {}


def test_the_sound_of_a_line_is_served_whole_or_in_part(client: Client, folder: Path) -> None:
    wanted = (folder / ".work/es/speech" / f"{2:032x}.wav").read_bytes()

    whole = client.get("/jobs/talk/lines/es/3/clip")
    part = client.get("/jobs/talk/lines/es/3/clip", headers={"Range": "bytes=0-3"})

    assert (whole.status_code, whole.headers["content-type"], whole.content) == (200, "audio/wav", wanted)
    assert (part.status_code, part.content) == (206, b"RIFF")


@pytest.mark.parametrize(
    "clip",
    [
        "../secret.wav",
        "/etc/passwd",
        "{root}/secret.wav",
        ".work/es/speech/../../../../secret.wav",
        ".work/es/speech/link.wav",
        ".work/es/speech/notes.txt",
        ".work/ca/speech/other.wav",
        ".work/es/speech/none.wav",
        ".work/es/speech",
        ".work/es/speech/a\0.wav",
        "talk.es.mp4",
        "",
    ],
)
def test_no_other_file_is_served_as_the_sound_of_a_line(client: Client, folder: Path, clip: str) -> None:
    secret, speech = folder.parent / "secret.wav", folder / ".work/es/speech"
    secret.write_bytes(b"canary")
    (speech / "link.wav").symlink_to(secret)
    (speech / "notes.txt").write_bytes(b"canary")
    (folder / ".work/ca/speech").mkdir(parents=True)
    (folder / ".work/ca/speech/other.wav").write_bytes(b"canary")
    lines = folder / "lines.es.json"
    made = json.loads(lines.read_text())
    made["lines"][0]["clip"] = clip.format(root=folder.parent)
    lines.write_text(json.dumps(made))

    answer = client.get("/jobs/talk/lines/es/1/clip")

    assert answer.status_code == 404 and b"canary" not in answer.content


@pytest.mark.parametrize("where", ["es/0", "es/-1", "es/46", "ca/1", "%2e%2e/1", "..%2f..%2ftalk/1"])
def test_lines_and_languages_there_are_none_of_have_no_sound(client: Client, where: str) -> None:
    assert client.get(f"/jobs/talk/lines/{where}/clip").status_code == 404


def test_a_damaged_file_is_named_and_nothing_is_shown(client: Client, folder: Path) -> None:
    (folder / "edits.es.json").write_text("{")
    assert "The file edits.es.json cannot be used" in client.get("/jobs/talk/lines/es").text
    (folder / "lines.es.json").write_text('{"schema": 2, "lines": []}')
    damaged = client.get("/jobs/talk/lines/es")
    assert damaged.status_code == 422 and "The file lines.es.json cannot be used: schema" in damaged.text


def test_text_and_names_are_never_markup(client: Client, folder: Path) -> None:
    results = [line_result(0, HOSTILE)]
    write_lines(folder, results, voices=("es", HOSTILE))
    line_edits.change(folder, "es", {1: line_edits.Change(speaker=HOSTILE, voice=HOSTILE)})

    page = client.get("/jobs/talk/lines/es").text

    assert "<script>alert" not in page and page.count("&lt;/textarea&gt;") >= 4


def test_programs_read_and_change_many_lines_at_once(client: Client, folder: Path) -> None:
    found = client.get(api(client)).json()
    assert (found["version"], len(found["lines"]), found["voices"][1]) == (
        "none",
        LINES,
        {"id": "es+f2", "name": "Voice es+f2"},
    )
    assert client.get(found["lines"][0]["clip"]).status_code == 200

    changes = {"2": {"text": "dos", "locked": True}, "3": {"redo": True}}
    saved = client.patch(api(client), json={"version": "none", "lines": changes})
    nothing = client.patch(api(client), json={"lines": {"4": {"text": "cuatro"}, "5": {"voice": "nobody"}}})
    unknown = client.patch(api(client), json={"lines": {"4": {"colour": "red"}}})

    assert saved.status_code == 200
    assert edits(folder) == {2: {"text": "dos"}, 3: {"redo": 1}}
    assert saved.json()["version"] == line_edits.read_edits(folder, "es")[1] != "none"
    assert (nothing.status_code, nothing.json()["code"], unknown.status_code) == (422, "line_edit", 400)
