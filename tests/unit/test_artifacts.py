"""artifacts.py: names, fingerprints, manifests and memos survive whatever happens between two runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dubbing.artifacts import JobFolder, Manifest, Names, file_identity, fingerprint, safe_name, write_atomically
from dubbing.errors import EmptyFileError, FileMissingError, JobBusyError


def test_a_fingerprint_depends_on_every_part_and_on_nothing_else() -> None:
    assert fingerprint(a=1, b="x") == fingerprint(b="x", a=1)
    assert len({fingerprint(a=1), fingerprint(a=2), fingerprint(b=1), fingerprint(a="1")}) == 4


def test_identity_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    one, same, other = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    one.write_bytes(b"x" * 3_000_000)
    same.write_bytes(b"x" * 3_000_000)
    other.write_bytes(b"x" * 1_500_000 + b"y" + b"x" * 1_499_999)

    assert file_identity(one) == file_identity(same) != file_identity(other)


def test_a_missing_and_an_empty_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError):
        file_identity(tmp_path / "none.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(EmptyFileError):
        file_identity(tmp_path / "empty.mp4")


def test_a_manifest_forgets_only_a_row_that_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    manifest = Manifest(path)
    manifest.put("a", {"ms": 1})
    manifest.put("b", {"ms": 2})
    whole = path.read_bytes()

    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        survivor = Manifest(path)
        survivor.put("c", 3)
        again = Manifest(path)
        assert again.get("c") == 3
        assert len(again) == whole[:cut].count(b"\n") + 1 + (whole[:cut].endswith(b"}]"))


def test_the_last_value_under_a_fingerprint_counts(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "m.jsonl")
    manifest.put("a", 1)
    manifest.put("a", 2)

    assert Manifest(tmp_path / "m.jsonl").get("a") == 2


def test_a_memo_made_from_other_things_is_no_memo(tmp_path: Path) -> None:
    folder = JobFolder.open(tmp_path, "talk", "0123456789ab")
    folder.remember("ingest", "key", {"ms": 5})

    assert folder.memo("ingest", "key") == {"ms": 5}
    assert folder.memo("ingest", "other") is None
    (folder.work / "ingest.json").write_text("{ torn")
    assert folder.memo("ingest", "key") is None


def test_two_films_with_one_name_get_two_folders_and_each_finds_its_own_again(tmp_path: Path) -> None:
    first, second = (JobFolder.open(tmp_path, "talk", job).path for job in ("aaaaaaaaaaaa", "bbbbbbbbbbbb"))

    assert first.name == "talk" and second.name == "talk-bbbbbb"
    assert JobFolder.open(tmp_path, "talk", "bbbbbbbbbbbb").path == second


def test_a_folder_of_the_user_is_not_mistaken_for_a_job(tmp_path: Path) -> None:
    (tmp_path / "talk").mkdir()
    (tmp_path / "talk" / "holiday.jpg").touch()

    folder = JobFolder.open(tmp_path, "talk", "aaaaaaaaaaaa")
    folder.sweep()

    assert (tmp_path / "talk" / "holiday.jpg").exists()


def test_a_job_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    folder = JobFolder.open(tmp_path, "talk", "aaaaaaaaaaaa")
    code = (
        "import sys; from pathlib import Path; from dubbing.artifacts import JobFolder\n"
        "with JobFolder(Path(sys.argv[1])).lock(): print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "mine\n"
        with pytest.raises(JobBusyError) as busy, folder.lock():
            pass
        assert str(holder.pid) in busy.value.message
        holder.kill()
        holder.wait()
    with folder.lock():
        assert (folder.work / "lock").read_text() == str(os.getpid())


def test_an_atomic_write_leaves_no_temporary(tmp_path: Path) -> None:
    write_atomically(tmp_path / "report.json", json.dumps({"a": 1}))

    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("a/b\\c", "a_b_c"),
        ("...hidden", "hidden"),
        ("\x00\n", "__"),
        ("", "video"),
        ("фильм 1", "фильм 1"),
        ("é" * 90, "é" * 50),
    ],
)
def test_names_of_folders_are_safe(stem: str, name: str) -> None:
    assert safe_name(stem) == name


def test_results_are_named_after_the_folder(tmp_path: Path) -> None:
    names = Names(tmp_path / "talk.v1")

    assert names.video("pt-BR", audio_only=False).name == "talk.v1.pt-BR.mp4"
    assert names.collection(audio_only=True).name == "talk.v1.mka"
    assert names.subtitle("es").with_suffix(".vtt").name == "talk.v1.es.vtt"
