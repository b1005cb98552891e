"""Model weights: fetched from a hub, imported from a folder, verified, and every way in which that goes wrong."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import re
import shutil
import socket
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

from dubbing import cli, model_commands
from dubbing.config import Settings
from dubbing.engines import fake, weights
from dubbing.engines import fetch as fetching
from dubbing.engines.hub import Hub
from dubbing.engines.weights import Weights
from dubbing.errors import BadInputError, JobBusyError, UsageError, WeightsDamagedError, WeightsMissingError
from dubbing.model_errors import (
    CatalogueError,
    DownloadCutError,
    HubDownError,
    HubMissingError,
    HubRefusedError,
    ModelsDiskError,
    WeightsHashError,
    WeightsSizeError,
)
from tests import hub_server
from tests.hub_server import COMMIT, HubServer

MODEL = Weights(
    name="tiny-model",
    repo="maker/model",
    files=("config.json", "model.bin", "onnx/extra.onnx"),
    licence="MIT",
    commercial_use=True,
    size_mb=1,
)
PRIVATE = dataclasses.replace(MODEL, name="private-model", licence="CC-BY-NC-4.0", commercial_use=False)
ANY = fetching.Pin()
FILES = {
    "config.json": b'{"layers": 2}',
    "model.bin": bytes(range(256)) * 12_000,
    "onnx/extra.onnx": b"onnx" * 100,
    "README.md": b"not needed",
}


def _pair(name: str) -> Weights | None:
    """The models of an engine with one for each language pair."""
    return dataclasses.replace(MODEL, name=name) if re.fullmatch(r"pair-\w\w-\w\w", name) else None


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server.serve(HubServer(dict(FILES))) as server:
        yield server


@pytest.fixture
def dub(tmp_path: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command line, with two engines whose weights are the models above."""
    module = types.ModuleType("engines_with_weights")
    module.ONE = dataclasses.replace(fake.TRANSLATE, name="tiny-translate", weights=MODEL)  # type: ignore[attr-defined]
    module.PAIRS = dataclasses.replace(  # type: ignore[attr-defined]
        fake.TRANSLATE, name="pairs", weights_named=_pair
    )
    module.TWO = dataclasses.replace(  # type: ignore[attr-defined]
        fake.SPEAK, name="private-speak", weights=PRIVATE, commercial_use=False
    )
    monkeypatch.setitem(sys.modules, "engines_with_weights", module)
    info = tmp_path / "plugin" / "engines_with_weights-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: engines-with-weights\nVersion: 1\n")
    lines = ["tiny-translate = engines_with_weights:ONE", "pairs = engines_with_weights:PAIRS"]
    lines.append("private-speak = engines_with_weights:TWO")
    (info / "entry_points.txt").write_text("\n".join(["[dubbing.engines]", *lines, ""]))
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("DUBBING_MODELS_DIR", str(tmp_path / "models"))

    def run(*words: str) -> int:
        return cli.main(list(words))

    return run


def fetch(hub: HubServer, place: Path, must: fetching.Pin = ANY, **options: Any) -> weights.Record:
    return fetching.fetch(MODEL, place, Hub(hub.url, **options), must, lambda *told: None)


def downloads(hub: HubServer) -> list[str]:
    return [path.rpartition(f"{COMMIT}/")[2] for path in hub.paths() if "/resolve/" in path]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def contents(place: Path) -> dict[str, bytes]:
    found = {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name not in {"files.json", ".lock"}}


WANTED = {name: FILES[name] for name in MODEL.files}


# --- fetching -----------------------------------------------------------------------------------------------------


def test_a_model_is_fetched_whole_with_its_commit_and_hashes_recorded(hub: HubServer, tmp_path: Path) -> None:
    record = fetch(hub, tmp_path / "m")
    assert contents(tmp_path / "m") == WANTED
    assert (record.repo, record.revision) == ("maker/model", COMMIT)
    assert weights.read_record(tmp_path / "m") == record
    assert {name: file.sha256 for name, file in record.files.items()} == {n: sha256(d) for n, d in WANTED.items()}
    assert weights.problem(MODEL, tmp_path / "m") == ""
    assert fetching.verify(MODEL, tmp_path / "m") == [fetching.Finding(name) for name in MODEL.files]


def test_the_hubs_own_client_reads_the_same_from_the_same_server(hub: HubServer) -> None:
    told = HfApi(endpoint=hub.url, token=False).model_info(hub.repo, revision="main", files_metadata=True)
    listing = Hub(hub.url).listing(hub.repo, "main")
    assert told.sha == listing.commit
    assert {
        file.rfilename: (file.size, file.lfs.sha256 if file.lfs else "", "" if file.lfs else file.blob_id)
        for file in told.siblings or []
    } == {name: (file.size, file.sha256, file.blob) for name, file in listing.files.items()}


def test_what_is_here_and_right_is_not_downloaded_again(hub: HubServer, tmp_path: Path) -> None:
    known = fetch(hub, tmp_path)
    (tmp_path / "config.json").write_bytes(b"{}")
    hub.requests.clear()
    fetch(hub, tmp_path, fetching.pin(MODEL, tmp_path, {}))
    assert downloads(hub) == ["config.json"]
    assert weights.read_record(tmp_path) == known
    assert contents(tmp_path) == WANTED


def test_a_download_that_broke_off_goes_on_where_it_stopped(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_after["model.bin"] = 2_000_000
    with pytest.raises(DownloadCutError) as caught:
        fetch(hub, tmp_path)
    assert caught.value.message == "model.bin of tiny-model ended after 2000000 of 3072000 bytes"
    assert (caught.value.exit_code, caught.value.retryable) == (75, True)
    assert not (tmp_path / "model.bin").exists()
    assert weights.problem(MODEL, tmp_path)
    hub.cut_after.clear()
    hub.requests.clear()
    fetch(hub, tmp_path)
    ranges = {path.rpartition("/")[2]: headers.get("Range") for path, headers in hub.requests if "/resolve/" in path}
    assert ranges == {"model.bin": "bytes=2000000-", "extra.onnx": None}
    assert contents(tmp_path) == WANTED


def test_a_hub_that_cannot_continue_sends_the_file_from_its_start(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_after["model.bin"] = 1000
    with pytest.raises(DownloadCutError):
        fetch(hub, tmp_path)
    hub.cut_after.clear()
    hub.no_ranges = True
    fetch(hub, tmp_path)
    assert contents(tmp_path) == WANTED


def test_a_hub_that_continues_somewhere_else_is_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.cut_after["model.bin"] = 1000
    with pytest.raises(DownloadCutError):
        fetch(hub, tmp_path)
    hub.cut_after.clear()
    hub.wrong_range = True
    with pytest.raises(HubDownError, match=r"asked for byte 1000 on, it sent 'bytes 1007-"):
        fetch(hub, tmp_path)


@pytest.mark.parametrize("name", ["model.bin", "config.json"])
def test_a_file_with_another_hash_than_the_hub_told_is_not_kept(hub: HubServer, tmp_path: Path, name: str) -> None:
    data = FILES[name]
    hub.sent_instead[name] = data[:-1] + bytes([data[-1] ^ 1])
    with pytest.raises(WeightsHashError) as caught:
        fetch(hub, tmp_path)
    assert f"{name} of tiny-model is not the file it should be" in caught.value.message
    assert not (tmp_path / name).exists()
    assert not (tmp_path / weights.RECORD).exists()
    hub.sent_instead.clear()
    fetch(hub, tmp_path)
    assert contents(tmp_path) == WANTED


def test_more_bytes_than_were_announced_are_refused(hub: HubServer, tmp_path: Path) -> None:
    hub.sent_instead["model.bin"] = FILES["model.bin"] + b"!"
    with pytest.raises(WeightsSizeError, match="more than 3072000 bytes"):
        fetch(hub, tmp_path)
    assert not (tmp_path / "model.bin").exists()


def test_a_hub_that_announces_other_weights_for_the_same_commit_is_caught(hub: HubServer, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    hub.files["model.bin"] = b"other weights"
    must = fetching.pin(MODEL, tmp_path, {})
    assert must.revision == COMMIT
    hub.requests.clear()
    with pytest.raises(WeightsHashError, match=sha256(FILES["model.bin"])):
        fetch(hub, tmp_path, must)
    assert downloads(hub) == []
    assert contents(tmp_path) == WANTED


def test_another_revision_replaces_a_model_as_a_whole(hub: HubServer, tmp_path: Path) -> None:
    fetch(hub, tmp_path)
    hub.commit, hub.files["model.bin"] = "f" * 40, b"new weights"
    record = fetch(hub, tmp_path, fetching.pin(MODEL, tmp_path, {}, "main"))
    assert record.revision == "f" * 40
    assert contents(tmp_path) == {**WANTED, "model.bin": b"new weights"}


def test_the_catalogue_pins_revision_and_hashes(hub: HubServer, tmp_path: Path) -> None:
    listed = {"tiny-model": {"revision": COMMIT, "files": {"model.bin": "0" * 64}}}
    (tmp_path / fetching.CATALOGUE).write_text(json.dumps(listed))
    must = fetching.pin(MODEL, tmp_path / "m", fetching.read_catalogue(tmp_path))
    assert must == fetching.Pin(COMMIT, {"model.bin": "0" * 64})
    with pytest.raises(WeightsHashError, match="not 0000"):
        fetch(hub, tmp_path / "m", must)
    with pytest.raises(UsageError, match=f"pins tiny-model to the revision {COMMIT}"):
        fetching.pin(MODEL, tmp_path / "m", fetching.read_catalogue(tmp_path), "main")


def test_a_catalogue_that_is_not_one_is_named(tmp_path: Path) -> None:
    (tmp_path / fetching.CATALOGUE).write_text("[1]")
    with pytest.raises(CatalogueError, match=str(tmp_path / fetching.CATALOGUE)):
        fetching.read_catalogue(tmp_path)


# --- a hub that will not --------------------------------------------------------------------------------------------


def test_a_gated_model_says_to_accept_its_licence_and_the_token_opens_it(hub: HubServer, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    with pytest.raises(HubRefusedError) as caught:
        fetch(hub, tmp_path)
    assert "HTTP 401, its licence must be accepted first" in caught.value.message
    assert f"{hub.url}/maker/model" in caught.value.advice
    fetch(hub, tmp_path, token="hf_secret")
    assert contents(tmp_path) == WANTED


def test_the_token_is_not_shown_to_the_host_a_download_is_redirected_to(hub: HubServer, tmp_path: Path) -> None:
    with hub_server.serve(HubServer(dict(FILES))) as cdn:
        hub.token, hub.cdn = "hf_secret", cdn.url
        fetch(hub, tmp_path, token="hf_secret")
        ((path, headers),) = cdn.requests
    assert path.endswith("/model.bin")
    assert "Authorization" not in headers
    assert all(headers["Authorization"] == "Bearer hf_secret" for _, headers in hub.requests)


@pytest.mark.parametrize(
    ("change", "revision", "missing"),
    [
        ({"repo": "somebody/else"}, "", "maker/model at main"),
        ({"token": "x", "refusal": (401, "RepoNotFound")}, "", "maker/model at main"),
        ({}, "v2", "maker/model at v2"),
        ({"files": {"config.json": b"{}"}}, "", f"model.bin in maker/model at {COMMIT}"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    hub: HubServer, tmp_path: Path, change: dict[str, Any], revision: str, missing: str
) -> None:
    for key, value in change.items():
        setattr(hub, key, value)
    with pytest.raises(HubMissingError) as caught:
        fetch(hub, tmp_path, fetching.Pin(revision))
    assert caught.value.message == f"The model hub {hub.url} has no {missing}"


def test_a_hub_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = HubServer({}, url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(HubDownError, match="refused"):
            fetch(nobody, tmp_path)


def test_a_name_that_no_network_knows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(HubDownError):
        fetch(HubServer({}, url="http://hub.invalid"), tmp_path)


def test_a_hub_that_says_nothing_is_given_up(hub: HubServer, tmp_path: Path) -> None:
    hub.silent = True
    with pytest.raises(HubDownError, match="it is silent"):
        fetch(hub, tmp_path, timeout_s=0.2)


def _listing(sha: str = COMMIT, **facts: object) -> bytes:
    told = {"rfilename": "config.json", "size": 2, "blobId": "0" * 40, **facts}
    return json.dumps({"sha": sha, "siblings": [told]}).encode()


@pytest.mark.parametrize(
    "listing",
    [
        b"<html>log in to the hotel's network</html>",
        b'{"sha": 1}',
        b'{"siblings": [7]}',
        _listing(sha="../../../tmp/x"),
        _listing(blobId="/../../../tmp/x"),
        _listing(lfs={"sha256": "/../../../tmp/x"}),
        _listing(size=-1),
        _listing(size="many"),
    ],
)
def test_an_answer_that_is_no_list_of_files_is_an_error(hub: HubServer, tmp_path: Path, listing: bytes) -> None:
    hub.listing = listing
    with pytest.raises(HubDownError, match="its list of maker/model cannot be understood"):
        fetch(hub, tmp_path)


def test_a_disk_without_room_is_noticed_before_anything_is_downloaded(hub: HubServer, tmp_path: Path) -> None:
    hub.claimed_size = 1 << 60
    with pytest.raises(ModelsDiskError, match="tiny-model needs"):
        fetch(hub, tmp_path)
    assert downloads(hub) == []


def test_a_disk_that_fills_up_on_the_way_is_named(hub: HubServer, tmp_path: Path) -> None:
    key = sha256(FILES["model.bin"])[:12]
    (tmp_path / f".model.bin.{key}.part").symlink_to("/dev/full")
    with pytest.raises(ModelsDiskError, match=f"{tmp_path} has"):
        fetch(hub, tmp_path)


def test_two_fetches_of_one_model_do_not_mix(hub: HubServer, tmp_path: Path) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(JobBusyError):
            fetch(hub, tmp_path)
    fetch(hub, tmp_path)


# --- looking at what is here ----------------------------------------------------------------------------------------


def _spoil_bytes(place: Path) -> None:
    (place / "model.bin").write_bytes(FILES["model.bin"][:-1] + b"?")


def _truncate(place: Path) -> None:
    (place / "model.bin").write_bytes(FILES["model.bin"][:100])


def _remove(place: Path) -> None:
    (place / "model.bin").unlink()


def _add(place: Path) -> None:
    (place / "pickle.pt").write_bytes(b"?")


def _spoil_record(place: Path) -> None:
    (place / weights.RECORD).write_text('{"files": 3}')


def _forget_record(place: Path) -> None:
    (place / weights.RECORD).unlink()


@pytest.mark.parametrize(
    ("harm", "file", "words"),
    [
        (_spoil_bytes, "model.bin", "its SHA-256 is"),
        (_truncate, "model.bin", "it has 100 bytes, not 3072000"),
        (_remove, "model.bin", "it is missing"),
        (_add, "pickle.pt", "it is extra"),
        (_spoil_record, "files.json", "it cannot be read"),
        (_forget_record, "files.json", "there is none"),
    ],
)
def test_verify_finds_what_was_done_to_a_model_and_fetch_mends_it(
    hub: HubServer, tmp_path: Path, harm: Callable[[Path], None], file: str, words: str
) -> None:
    fetch(hub, tmp_path)
    harm(tmp_path)
    (finding,) = [finding for finding in fetching.verify(MODEL, tmp_path) if finding.problem]
    assert (finding.file, words in finding.problem) == (file, True)
    fetch(hub, tmp_path, fetching.pin(MODEL, tmp_path, {}))
    mended = [finding for finding in fetching.verify(MODEL, tmp_path) if finding.problem]
    assert [finding.file for finding in mended] == (["pickle.pt"] if harm is _add else [])


@pytest.mark.parametrize(
    ("harm", "error"),
    [(_remove, WeightsMissingError), (_truncate, WeightsDamagedError), (_spoil_record, WeightsDamagedError)],
)
def test_an_engine_is_told_whether_its_weights_are_missing_or_damaged(
    hub: HubServer, tmp_path: Path, harm: Callable[[Path], None], error: type[Exception]
) -> None:
    fetch(hub, tmp_path)
    options = {"path": str(tmp_path)}
    assert weights.require(MODEL, options, kind="translate", engine="tiny-translate") == tmp_path
    harm(tmp_path)
    with pytest.raises(error) as caught:
        weights.require(MODEL, options, kind="translate", engine="tiny-translate")
    assert type(caught.value) is error


def test_the_version_of_weights_changes_with_their_content(hub: HubServer, tmp_path: Path) -> None:
    fetch(hub, tmp_path / "one")
    fetch(hub, tmp_path / "same")
    hub.files["config.json"] = b'{"layers": 3}'
    fetch(hub, tmp_path / "other")
    one, same, other = (weights.version(tmp_path / name) for name in ("one", "same", "other"))
    assert one == same != other
    (tmp_path / "one" / weights.RECORD).unlink()
    assert weights.version(tmp_path / "one") not in {one, other}


# --- a folder of this machine -----------------------------------------------------------------------------------------


def fill(folder: Path) -> Path:
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_a_model_is_imported_from_a_folder_by_link_and_hashed(tmp_path: Path) -> None:
    source = fill(tmp_path / "here")
    record = fetching.import_folder(MODEL, tmp_path / "m", source, fetching.Pin(), lambda *told: None)
    assert contents(tmp_path / "m") == WANTED
    assert (tmp_path / "m" / "model.bin").samefile(source / "model.bin")
    assert record.repo == str(source)
    assert [finding.problem for finding in fetching.verify(MODEL, tmp_path / "m")] == ["", "", ""]


def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path) -> None:
    source = fill(tmp_path / "here")
    (source / "model.bin").unlink()
    with pytest.raises(BadInputError, match=r"it has no model\.bin, which tiny-model needs"):
        fetching.import_folder(MODEL, tmp_path / "m", source, fetching.Pin(), lambda *told: None)


def test_a_folder_with_other_files_than_are_pinned_is_refused(tmp_path: Path) -> None:
    must = fetching.Pin("", {"model.bin": "0" * 64})
    with pytest.raises(WeightsHashError):
        fetching.import_folder(MODEL, tmp_path / "m", fill(tmp_path / "here"), must, lambda *told: None)
    assert not (tmp_path / "m" / "model.bin").exists()


# --- the commands -----------------------------------------------------------------------------------------------------


def test_the_list_shows_size_licence_and_what_is_here(
    dub: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert dub("models", "fetch", "tiny-model") == 0
    assert capsys.readouterr().out == f"{tmp_path}/models/tiny-model\n"
    assert dub("models", "list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["tiny-model"]["state"], rows["tiny-model"]["revision"]) == ("here", COMMIT)
    assert (rows["private-model"]["state"], rows["private-model"]["commercial_use"]) == ("not here", False)
    _truncate(tmp_path / "models" / "tiny-model")
    assert dub("models", "list") == 0
    out = capsys.readouterr().out.splitlines()
    assert [row.split() for row in out if "private" in row] == [
        ["private-model", "private-speak", "1", "MB", "CC-BY-NC-4.0", "no", "not", "here"]
    ]
    assert any("damaged: " in row and "has 100 bytes" in row for row in out)


def test_a_model_of_one_language_pair_is_known_by_its_name_and_listed_once_it_is_here(
    dub: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    def listed() -> set[str]:
        capsys.readouterr()
        dub("models", "list", "--json")
        return {row["name"] for row in json.loads(capsys.readouterr().out)}

    assert not {name for name in listed() if name.startswith("pair-")}
    assert dub("models", "fetch", "pair-en-es") == 0
    assert "pair-en-es" in listed()
    assert dub("models", "verify") == 0
    assert "pair-en-es/model.bin" in capsys.readouterr().out


def test_verify_names_the_command_that_mends(
    dub: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dub("models", "fetch", "tiny-translate")  # by the engine's name
    assert dub("models", "verify") == 0
    _truncate(tmp_path / "models" / "tiny-model")
    capsys.readouterr()
    assert dub("models", "verify", "tiny-model") == 4
    out = capsys.readouterr().out
    assert "damaged  tiny-model/model.bin: it has 100 bytes, not 3072000" in out
    assert "fix: dub models fetch tiny-model" in out


def test_a_lock_made_on_one_machine_holds_the_hub_to_the_same_files_on_another(
    dub: Callable[..., int],
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dub("models", "fetch", "tiny-model")
    capsys.readouterr()
    assert dub("models", "lock") == 0
    lock = Path(capsys.readouterr().out.strip())
    assert json.loads(lock.read_text()) == {
        "tiny-model": {"revision": COMMIT, "files": {name: sha256(data) for name, data in sorted(WANTED.items())}}
    }

    other = tmp_path / "other machine"
    other.mkdir()
    shutil.copy(lock, other)
    monkeypatch.setenv("DUBBING_MODELS_DIR", str(other))
    hub.files["model.bin"] = b"what somebody else put there"
    assert dub("models", "fetch", "tiny-model") == 4
    said = capsys.readouterr().err
    assert "model.bin of tiny-model is not the file it should be" in said
    assert sha256(FILES["model.bin"]) in said
    assert contents(other / "tiny-model") == {}

    hub.files["model.bin"] = FILES["model.bin"]
    assert dub("models", "fetch", "tiny-model") == 0
    assert dub("models", "verify") == 0


def test_what_was_fetched_before_the_lock_came_is_held_to_it_too(
    dub: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dub("models", "fetch", "tiny-model")
    pins = {"tiny-model": fetching.Pin("a" * 40, {"model.bin": "0" * 64})}
    fetching.write_catalogue(tmp_path / "models", pins)
    capsys.readouterr()
    assert dub("models", "verify") == 4
    out = capsys.readouterr().out
    assert f"model.bin: its SHA-256 is {sha256(FILES['model.bin'])}, and the catalogue says {'0' * 64}" in out
    assert f"files.json: it was fetched at the revision {COMMIT}, and the catalogue says {'a' * 40}" in out


def test_a_damaged_model_is_not_locked_and_other_models_stay_in_the_lock(
    dub: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dub("models", "fetch", "tiny-model")
    fetching.write_catalogue(tmp_path / "models", {"other": fetching.Pin("b" * 40)})
    assert dub("models", "lock", "--json") == 0
    capsys.readouterr()
    assert sorted(fetching.read_catalogue(tmp_path / "models")) == ["other", "tiny-model"]
    _truncate(tmp_path / "models" / "tiny-model")
    assert dub("models", "lock") == 4
    assert "are damaged: model.bin: it has 100 bytes" in capsys.readouterr().err


def test_a_lock_of_nothing_says_so(dub: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert dub("models", "lock") == 0
    assert "There are no models in" in capsys.readouterr().out


def test_offline_means_that_nobody_is_asked(
    dub: Callable[..., int], hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DUBBING_OFFLINE", "1")
    assert dub("models", "fetch", "tiny-model") == 4
    assert "DUBBING_OFFLINE is on" in capsys.readouterr().err
    assert hub.requests == []


def test_offline_a_folder_can_still_be_imported(
    dub: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBBING_OFFLINE", "1")
    assert dub("models", "fetch", "tiny-model", "--from", str(fill(tmp_path / "usb stick"))) == 0
    assert contents(tmp_path / "models" / "tiny-model") == WANTED


@pytest.mark.parametrize("options", [(), ("--from", ".")])
def test_weights_that_forbid_commercial_use_do_not_come_where_only_safe_ones_may(
    dub: Callable[..., int],
    hub: HubServer,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DUBBING_COMMERCIAL_SAFE", "1")
    assert dub("models", "fetch", "private-model", *options) == 4
    assert "private-speak forbids commercial use (CC-BY-NC-4.0)" in capsys.readouterr().err
    assert hub.requests == []


def test_a_model_nobody_knows_is_refused_with_the_nearest_name(
    dub: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert dub("models", "fetch", "tiny-modell") == 2
    assert "did you mean tiny-model?" in capsys.readouterr().err
    assert dub("models", "fetch", "tiny-model", "private-model", "--from", ".") == 2
    assert "name exactly one" in capsys.readouterr().err


def test_every_registered_model_has_files_and_a_folder_of_its_own() -> None:
    for name, model in model_commands.models().items():
        assert model.weights.files
        assert name == model.weights.name == Path(name).name
        assert all(model.weights in model_commands.all_weights(spec) for spec in model.engines)
        assert model_commands.place_of(model.weights, Settings()).name == name
