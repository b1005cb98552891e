"""`dub` works on the jobs of a server as it does on those of this machine: the same words, the same JSON, the same codes."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dubbing import config
from dubbing.desk import Order
from dubbing.remote.desk import RemoteDesk, open_remote
from dubbing.remote.server import Server
from dubbing.remote.uploads import PIECE
from dubbing.remote_errors import ServerUnreachableError
from dubbing.store import Fence
from dubbing.types import DubRequest
from tests.web.conftest import line_result, make_job, report_of, write_lines
from tests.web.far import Done, Far, dub, key_of
from tests.web.served import free_port, serving
from tests.web.server import served
from tests.web.site import Site

LINES = [line_result(0, "hola"), line_result(1, "adiós", "late"), line_result(2, "fin")]
FILM = b"film" * 100_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An administrator, and finished dubs in pairs: what is done to one here is done to the other from afar."""
    output = tmp_path_factory.mktemp("far") / "Output"
    for name in ("talk", "twin-a", "twin-b"):
        folder = make_job(output, name, report_of({"es": LINES}), es_mp4=FILM, es_srt=b"1\n")
        write_lines(folder, LINES)
    with Site(output) as opened:
        yield opened


@pytest.fixture(scope="module")
def near(site: Site) -> Callable[..., Done]:
    """`dub` on the machine of the jobs."""

    def run(*arguments: object) -> Done:
        settings = {"DUBBING_OUTPUT_DIR": str(site.output), "QUEUE_MODE": "fallback"}
        return dub(site.output.parent / "near", *arguments, **settings)

    return run


@pytest.fixture(scope="module")
def far(site: Site) -> Iterator[Far]:
    """`dub` on another machine, with the key of an administrator."""
    with served(site) as server:
        yield Far(site.output.parent / "far", server.address, key_of(site))


@pytest.fixture
def film(tmp_path: Path, require_program: Callable[..., str]) -> Path:
    path = tmp_path / "film.wav"
    wave = "sine=frequency=300:duration=2"
    subprocess.run([require_program("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", wave, path], check=True)
    return path


def job_of(site: Site, folder: str) -> str:
    """A finished job with files in a folder of the output."""
    if folder not in site.jobs:
        store, root = site.office.store, site.user("root", "admin").actor
        job, _ = store.submit(root, {"source": f"/films/{folder}.mp4", "targets": ["es"]}, targets=["es"])
        fence = Fence(job.id, job.epoch + 1, store.in_charge().backend_epoch)
        assert store.take(fence, owner="test", ttl_ms=60_000)
        stage = {"stage": "speak", "target": "es", "done": 3, "total": 3, "eta_s": None, "note": ""}
        assert store.report_progress(fence, {"stages": [stage]})
        path = site.output / folder
        files = {"es": [str(path / f"{folder}.es.{kind}") for kind in ("mp4", "srt")]}
        result = {
            "state": "done",
            "report": str(path / "report.json"),
            "files": files,
            "warnings": ["listen to line 2"],
        }
        assert store.finish(fence, result, warned=True)
        site.jobs[folder] = job.id
    return site.jobs[folder]


def named(text: str, site: Site, *ids: str) -> str:
    """An output without what must differ: where the server's files lie, and which of the twins it is about."""
    text = re.sub(re.escape(str(site.output)) + r"/(\w+-?\w*/)?", "", text).replace("/films/", "")
    for number in ids:
        text = text.replace(number, "ID").replace(number[:8], "ID")
    return re.sub(r"twin-[ab]", "twin", text)


LOOKS = [
    ("status", "ID"),
    ("status", "ID8"),
    ("status", "ID", "--json"),
    ("jobs",),
    ("jobs", "--json"),
    ("jobs", "--limit", "1"),
    ("queue",),
    ("queue", "--json"),
    ("watch", "ID"),
    ("watch", "ID", "--json"),
    ("lines", "list", "ID"),
    ("lines", "list", "ID8", "--to", "es", "--problems"),
    ("lines", "list", "ID", "--changed"),
    ("lines", "list", "ID", "--json"),
]


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_what_is_looked_at_reads_the_same_from_afar(
    site: Site, near: Callable[..., Done], far: Far, words: tuple[str, ...]
) -> None:
    job = job_of(site, "talk")
    arguments = [{"ID": job, "ID8": job[:8]}.get(word, word) for word in words]

    here, there = near(*arguments), far(*arguments)

    assert there.code == here.code == 0, there.err
    if "--json" in words:
        assert here.told and there.told == _without_folders(here.told, site)
    else:
        assert there.out == named(here.out, site)
        assert there.out or "--changed" in words
    assert there.err == named(here.err, site)


def _without_folders(told: object, site: Site) -> object:
    """Facts with names of files where there were paths."""
    if isinstance(told, dict):
        return {key: _without_folders(value, site) for key, value in told.items()}
    if isinstance(told, list):
        return [_without_folders(value, site) for value in told]
    return named(told, site) if isinstance(told, str) else told


TIMES = re.compile(r"\b1\d{12}\b")
CHANGES = [
    ("lines", "edit", "ID", "--line", "2", "--text", "hasta luego", "--lock"),
    ("lines", "edit", "ID", "--line", "3", "--start", "0:05.2", "--json"),
    ("lines", "edit", "ID", "--line", "3", "--reset", "start"),
    ("lines", "list", "ID", "--changed"),
    ("lines", "redo", "ID", "--line", "1"),
    ("status", "ID"),
    ("pause", "ID"),
    ("resume", "ID", "--json"),
    ("pause", "ID", "--json"),
    ("resume", "ID"),
    ("cancel", "ID"),
    ("watch", "ID"),
    ("cancel", "ID"),
    ("retry", "ID"),
    ("retry", "ID"),
    ("cancel", "ID", "--json"),
    ("retry", "ID", "--json"),
    ("lines", "redo", "ID"),
    ("lines", "edit", "ID", "--line", "1", "--voice", "nobody"),
    ("lines", "edit", "ID", "--line", "99", "--text", "x"),
    ("lines", "edit", "ID", "--line", "1"),
    ("lines", "list", "ID", "--to", "fr"),
    ("pause", "--user", "root"),
    ("queue",),
    ("resume", "--user", "root"),
    ("pause",),
    ("resume", "--json"),
    ("pause", "--user", "nobody"),
    ("status", "deadbeef"),
    ("cancel", "x/../y"),
    ("status", "0" * 32),
    ("fetch", "ID", "--to", "fr"),
]


def test_what_is_changed_from_afar_is_answered_as_it_is_here(site: Site, near: Callable[..., Done], far: Far) -> None:
    twins = job_of(site, "twin-a"), job_of(site, "twin-b")
    for words in CHANGES:
        here, there = (
            run(*(job if word == "ID" else word for word in words)) for run, job in ((near, twins[0]), (far, twins[1]))
        )
        assert there.code == here.code, (words, there.err)
        told = [named(done.out, site, job) for done, job in zip((here, there), twins, strict=True)]
        if "--json" in words:
            told = [TIMES.sub("0", text) for text in told]
            assert json.loads(told[0]) == json.loads(told[1]), words
        else:
            assert told[0] == told[1], words
        assert named(there.err, site, twins[1]) == named(here.err, site, twins[0]), words


def test_a_film_is_sent_and_becomes_the_job_that_it_would_be_here(
    site: Site, near: Callable[..., Done], far: Far, film: Path, tmp_path: Path
) -> None:
    (tmp_path / "said.srt").write_text("1\n00:00:00,100 --> 00:00:01,500\nGood morning.\n")
    (tmp_path / "es.vtt").write_text("WEBVTT\n\n00:00.100 --> 00:01.500\nBuenos días.\n")
    (tmp_path / "terms.csv").write_text("ray,ray\n")
    words: list[object] = ["submit", film, "--to", "es,ca", "--from", "en", "--priority", "70", "--quality", "draft"]
    words += ["--transcript", tmp_path / "said.srt", "--translation", f"es={tmp_path / 'es.vtt'}", "--speakers", "1"]
    words += ["--glossary", tmp_path / "terms.csv", "--start", "0.1", "--end", "1.9", "--engine", "speak=fake-speak"]
    words += ["--voice", "fake", "--no-keep-background", "--at", "2099-01-31T22:30"]

    here, there = near(*words), far(*words)

    ids = here.out.strip(), there.out.strip()
    assert (here.code, there.code) == (0, 0), there.err
    assert "film.wav -> es, ca is in the queue (" in here.err and "film.wav -> es, ca is in the queue (" in there.err
    root = site.user("root").actor
    first, second = (dict(site.office.store.job(root, number).request) for number in ids)
    texts = [Path(second.pop("transcript")), Path(second["translations"].pop("es"))]
    assert [path.read_text() for path in texts] == [(tmp_path / name).read_text() for name in ("said.srt", "es.vtt")]
    first.pop("transcript"), first["translations"].pop("es")
    assert Path(second.pop("source")).read_bytes() == Path(first.pop("source")).read_bytes()
    assert Path(second.pop("output_dir")) == site.output / "root" and first.pop("output_dir")
    assert second == first
    told = [run("status", number, "--json").told for run, number in ((near, ids[0]), (far, ids[1]))]
    for facts in told:
        facts.update(id="", created_ms=0, source=Path(facts["source"]).name)
    assert [told[0].pop("user"), told[1].pop("user")] == ["local", "root"]
    assert told[1] == told[0] and told[0]["run_at_ms"] > 0
    assert far("submit", film, "--to", "es", "--json").told["state"] == "queued"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("absent.mp4", "--to", "es"), 3, "There is no file absent.mp4"),
        (("FILM", "--to", "spanish!"), 3, "is not a language tag"),
        (("FILM", "--to", "es", "--from", "es"), 3, "The speech is already in es"),
        (("FILM", "--to", "es", "--priority", "101"), 2, "less than or equal to 100"),
        (("FILM", "--to", "es", "--transcript", "absent.srt"), 3, "There is no file absent.srt"),
        (("FILM", "--to", "es", "--translation", "FILM"), 3, "subtitle file"),
        (("FILM", "--to", "es", "--user", "ana"), 2, "leave --user out"),
        (("FILM", "--to", "es", "--output-dir", "here"), 2, "The server keeps the results"),
    ],
)
def test_a_film_that_would_be_refused_is_refused_before_it_is_sent(
    site: Site, far: Far, film: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    refused = far("submit", *(film if word == "FILM" else word for word in words))

    assert (refused.code, sentence in refused.err) == (code, True), refused.err
    assert "MB sent" not in refused.err
    assert all(not path.stat().st_size for path in (site.output / "_state" / "uploads").glob("*"))


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_are_fetched_and_what_is_here_is_not_fetched_again(
    site: Site, far: Far, near: Callable[..., Done]
) -> None:
    job = job_of(site, "talk")
    first = far("fetch", job[:8])
    again = far("fetch", job, "--to", "es", "--json")
    here = near("fetch", job, "--output-dir", "copies")

    folder = far.folder / "Output" / f"talk-{job[:8]}"
    assert first.out.split() == [
        str(Path("Output") / folder.name / n) for n in ("talk.es.mp4", "talk.es.srt", "report.json")
    ]
    assert (folder / "talk.es.mp4").read_bytes() == FILM
    assert (folder / "report.json").read_bytes() == (site.output / "talk" / "report.json").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["report.json", "talk.es.mp4", "talk.es.srt"]
    assert again.told["files"] == {"es": first.out.split()[:2]} and again.told["id"] == job
    assert here.out.replace("copies", "Output") == first.out and here.code == 0
    inode = (folder / "talk.es.mp4").stat().st_ino
    assert far("fetch", job).code == 0 and (folder / "talk.es.mp4").stat().st_ino == inode


def test_a_download_that_was_cut_goes_on_where_it_ended(site: Site, far: Far) -> None:
    job, name = job_of(site, "talk"), "talk.es.mp4"
    there = (site.output / "talk" / name).stat()
    folder = far.folder / "resumed" / f"talk-{job[:8]}"
    folder.mkdir(parents=True)
    # other bytes than the server's, so that it shows which half came now
    (folder / f".{name}.{there.st_size}-{there.st_mtime_ns // 1_000_000}.part").write_bytes(b"X" * 1000)
    (folder / f".{name}.7-1.part").write_bytes(b"of an earlier version")

    assert far("fetch", job, "--output-dir", "resumed").code == 0

    assert (folder / name).read_bytes() == b"X" * 1000 + FILM[1000:]
    assert not list(folder.glob(".*"))


def test_a_job_that_has_not_ended_has_nothing_to_fetch(far: Far, site: Site) -> None:
    job, _ = site.office.store.submit(site.user("root").actor, {"source": "/films/x.mp4", "targets": ["es"]})
    refused = far("fetch", job.id)
    assert (refused.code, refused.err.splitlines()[0]) == (75, "dub: The dub of x.mp4 is not finished yet.")


# --- sending through trouble ------------------------------------------------------------------------------------------


def test_an_upload_goes_on_where_a_killed_server_had_it(tmp_path: Path) -> None:
    film, port, killed = tmp_path / "film.mp4", free_port(), []
    film.write_bytes(bytes(range(256)) * (3 * PIECE // 256) + b"end")
    with Site(tmp_path / "Output") as site:
        key, root = key_of(site), site.user("root").actor
        values = {"DUBBING_URL": f"http://127.0.0.1:{port}", "DUBBING_API_KEY": key, "DUBBING_STATE_DIR": str(tmp_path)}
        settings = config.load(values, env_file=None, secrets_file=None)
        request = DubRequest(film, ("es",), settings.output_dir.resolve(), source_language="auto")
        order = Order(request, ("es",), 50, "local")
        with serving(site.output, port) as process:

            def kill(_name: str, done: int, _total: int) -> None:
                if done >= PIECE and not killed:
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    killed.append(done)

            impatient = Server(str(settings.url), key, patience_s=0.2)
            with pytest.raises(ServerUnreachableError):
                RemoteDesk(impatient, settings, kill).submit(order)
            impatient.close()
        assert killed == [PIECE] and site.office.store.jobs(root) == []

        with serving(site.output, port):
            sent: list[int] = []
            kept = tmp_path / "kept"
            with open_remote(settings, lambda _name, done, _total: sent.append(done)) as desk:
                shutil.copytree(tmp_path / "sending", kept)
                job = desk.submit(order)
            shutil.rmtree(tmp_path / "sending")
            kept.rename(tmp_path / "sending")  # as if the answer had been lost
            with open_remote(settings, lambda *_: None) as desk:
                again = desk.submit(order)

        assert sent == [PIECE, 2 * PIECE, 3 * PIECE, 3 * PIECE + 3]
        assert again["id"] == job["id"] and len(site.office.store.jobs(root)) == 1
        assert Path(site.office.store.jobs(root)[0].request["source"]).read_bytes() == film.read_bytes()
        assert not list((tmp_path / "sending").iterdir())


# --- keys --------------------------------------------------------------------------------------------------------------


def test_keys_that_are_wrong_missing_or_too_weak_are_told_apart(site: Site, far: Far, tmp_path: Path) -> None:
    job, film = job_of(site, "talk"), tmp_path / "film.mp4"
    film.write_bytes(b"not opened")
    reader = Far(far.folder, far.address, key_of(site, scope="read"))
    other = Far(far.folder, far.address, key_of(site, "uwe", "user"))
    viewer = Far(far.folder, far.address, key_of(site, "vera", "viewer"))

    def says(done: Done) -> tuple[int, str]:
        return done.code, done.err.splitlines()[0]

    assert says(far("jobs", DUBBING_API_KEY="dub_wrong")) == (
        2,
        f"dub: The server {far.address} does not know the API key.",
    )
    unset = far("jobs", DUBBING_API_KEY="")
    assert unset.code == 2 and "DUBBING_API_KEY" in unset.err and ".env.secrets" in unset.err
    assert reader("status", job).code == 0
    assert says(reader("cancel", job)) == (2, "dub: The API key may only look, not change anything.")
    assert says(viewer("submit", film, "--to", "es")) == (2, "dub: The role viewer may not change anything.")
    assert says(other("status", job)) == says(other("fetch", job)) == (3, f"dub: There is no job {job} here.")
    assert says(other("lines", "list", job)) == says(other("cancel", job)) == (3, f"dub: There is no job {job} here.")
    assert says(other("queue")) == (2, "dub: The role user may not administer this server.")
    assert says(other("pause")) == (2, "dub: The role user may not administer this server.")
    assert other("jobs", "--json").told == []


def test_a_shared_job_is_shown_without_the_name_of_its_owner(site: Site, far: Far) -> None:
    job = job_of(site, "talk")
    site.office.store.share(site.user("root").actor, job, True)
    try:
        told = Far(far.folder, far.address, key_of(site, "uwe", "user"))("status", job, "--json").told
    finally:
        site.office.store.share(site.user("root").actor, job, False)
    assert (told["id"], told["user"], told["source"]) == (job, "", "talk.mp4")
