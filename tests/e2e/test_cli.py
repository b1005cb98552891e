"""`dub` as a shell sees it: stdout, stderr, exit codes, and errors a person can act on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dubbing.cli import main, timestamp
from tests.e2e import jobs


def dub(*arguments: object, env: dict[str, str] | None = None, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dubbing.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        timeout=120,
    )


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory, require_program: Any) -> Path:
    """A short talk with pictures, two audio tracks, and a name that shells find hard."""
    require_program("flite")
    folder = tmp_path_factory.mktemp("talk")
    voice = jobs.spoken_wav(
        folder / "voice.wav", "Good morning. Today we will talk about the weather. It is very nice outside."
    )
    path = folder / "my talk (1).mp4"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-y",
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=320x180:r=25",
        "-i",
        voice,
        "-f",
        "lavfi",
        "-i",
    ]
    command += ["sine=frequency=300:sample_rate=44100", "-map", "0:v", "-map", "1:a", "-map", "2:a", "-c:v", "libx264"]
    command += ["-preset", "ultrafast", "-g", "25", "-c:a", "aac", "-t", "5.5", path]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="module")
def words(talk: Path) -> Path:
    path = talk.with_name("words.srt")
    cues = [
        (100, 900, "Good morning."),
        (1000, 2900, "Today we will talk about the weather."),
        (3000, 4800, "It is very nice outside."),
    ]
    path.write_text(jobs.srt(cues))
    return path


def test_a_dub_prints_the_result_on_stdout_and_progress_on_stderr(talk: Path, words: Path, tmp_path: Path) -> None:
    done = dub("run", talk, "--to", "es", "--transcript", words, "--in-process", cwd=tmp_path)

    result = tmp_path / "Output" / "my talk (1)" / "my talk (1).es.mp4"
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{result}\n" and result.exists()
    assert "translate es" in done.stderr and "2/2" in done.stderr
    assert "apertium translates en to es" in done.stderr
    names = sorted(path.name for path in result.parent.iterdir() if not path.name.startswith("."))
    assert names == sorted(
        ["job.log", "lines.es.json", "loudness.json", "peaks.json", "report.json", "timeline.json"]
        + [f"my talk (1).{end}" for end in ("en.srt", "en.vtt", "es.mp4", "es.srt", "es.vtt", "mkv")]
    )
    assert not list(result.parent.rglob("*.tmp")) and not list(result.parent.rglob("*.wav.*"))
    assert not (result.parent / ".work" / "bed.wav").exists()


def test_json_names_every_file_and_the_report_says_where_the_time_went(talk: Path, words: Path, tmp_path: Path) -> None:
    done = dub(
        "run",
        talk,
        "--to",
        "es,ca",
        "--transcript",
        words,
        "--in-process",
        "--json",
        "--engine",
        "translate=fake-translate",
        cwd=tmp_path,
    )

    answer = json.loads(done.stdout)
    assert (done.returncode, set(answer["files"])) == (0, {"es", "ca"})
    assert all(Path(path).exists() for paths in answer["files"].values() for path in paths)
    assert answer["files"]["es"][1] == answer["files"]["ca"][1], "one MKV holds all languages"
    tracks = [s["tags"]["language"] for s in jobs.streams(Path(answer["files"]["es"][1])) if s["codec_type"] == "audio"]
    assert tracks == ["spa", "cat", "eng"]
    report = json.loads(Path(answer["report"]).read_text())
    times = report["time"]
    assert set(times["by_stage"]) >= {"ingest", "translate", "speak", "mix", "package"}
    assert times["command"]["total_s"] >= times["stages_s"]
    trace = json.loads(Path(answer["report"]).with_name("timeline.json").read_text())["traceEvents"]
    assert {event["cat"] for event in trace} >= {"translate", "speak", "mix"}


def test_the_first_line_comes_before_anything_heavy_is_loaded(talk: Path, tmp_path: Path) -> None:
    code = (
        "import sys, dubbing.cli\n"
        "class Seen(Exception): pass\n"
        "class Out:\n"
        "    def write(self, text): raise Seen(','.join(m for m in ('numpy', 'ray', 'av', 'torch', 'onnxruntime') if m in sys.modules))\n"
        "    def flush(self): pass\n"
        "real, sys.stderr = sys.stderr, Out()\n"
        "try: dubbing.cli._run(dubbing.cli.parser().parse_args(['run', sys.argv[1], '--to', 'es']), None)\n"
        "except Seen as seen: sys.stderr = real; print('loaded:', seen)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(talk)], capture_output=True, text=True, cwd=tmp_path)

    assert done.stdout == "loaded: \n", done.stderr


def test_a_range_starts_at_a_keyframe_and_stays_in_step(talk: Path, words: Path, tmp_path: Path) -> None:
    done = dub(
        "run",
        talk,
        "--to",
        "es",
        "--transcript",
        words,
        "--start",
        "1.2",
        "--end",
        "0:04",
        "--in-process",
        "--json",
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    report, video = json.loads(Path(answer["report"]).read_text()), Path(answer["files"]["es"][0])
    assert report["source"]["start_ms"] == 1000, "the keyframe before 1.2 s"
    assert report["source"]["duration_ms"] == 3000
    assert jobs.decoded_ms(video, "V") == pytest.approx(3000, abs=80)
    assert jobs.decoded_ms(video, "a") == pytest.approx(3000, abs=40)


def test_without_background_only_the_dub_is_heard(talk: Path, words: Path, tmp_path: Path) -> None:
    report = {}
    for option in ("--keep-background", "--no-keep-background"):
        done = dub(
            "run",
            talk,
            "--to",
            "es",
            "--transcript",
            words,
            "--audio-track",
            "2",
            option,
            "--in-process",
            "--json",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        video = json.loads(done.stdout)["files"]["es"][0]
        command = ["ffmpeg", "-v", "error", "-i", video, "-map", "0:a:0", "-ss", "5.2", "-ac", "1", "-f", "s16le", "-"]
        audio = subprocess.run(command, capture_output=True, check=True).stdout
        report[option] = max(
            abs(int.from_bytes(audio[i : i + 2], "little", signed=True)) for i in range(0, len(audio) - 1, 2)
        )

    assert report["--keep-background"] > 200 > report["--no-keep-background"]


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["run", "missing.mp4", "--to", "es"], "file_missing", 3),
        (["run", "empty.mp4", "--to", "es"], "file_empty", 3),
        (["run", "text.mp4", "--to", "es"], "media_unreadable", 3),
        (["run", "playlist.mp4", "--to", "es"], "media_forbidden", 3),
        (["run", "{talk}", "--to", "tlh"], "language", 3),
        (["run", "{talk}", "--to", "not a tag"], "language", 3),
        (["run", "{talk}", "--to", ","], "usage", 2),
        (["run", "{talk}", "--to", "en"], "language", 3),
        (["run", "{talk}", "--to", "es", "--audio-track", "3"], "audio_track", 3),
        (["run", "{talk}", "--to", "es", "--start", "99"], "range", 3),
        (["run", "{talk}", "--to", "es", "--start", "3", "--end", "2"], "range", 3),
        (["run", "{talk}", "--to", "es", "--transcript", "bad.srt"], "subtitles", 3),
        (["run", "{talk}", "--to", "es", "--translation", "ca=bad.srt"], "usage", 2),
        (["run", "{talk}", "--to", "es", "--engine", "speak=nobody"], "usage", 2),
        (["run", "{talk}", "--to", "es", "--engine", "sing=opera"], "usage", 2),
        (["run", "{talk}", "--to", "es", "--audio-track", "2"], "no_speech", 3),
    ],
)
def test_bad_input_gets_its_own_code_a_hint_and_an_exit_code(
    talk: Path, tmp_path: Path, arguments: list[str], code: str, exit_code: int
) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video " * 100)
    (tmp_path / "playlist.mp4").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    )
    (tmp_path / "bad.srt").write_bytes(b"1\n00:00:00,000 --> 00:00:01,000\n" + b"x" * 3_000_000)

    done = dub(*(a.replace("{talk}", str(talk)) for a in arguments), "--in-process", "--json", cwd=tmp_path)

    error = json.loads(done.stdout)["error"]
    assert (error["code"], done.returncode) == (code, exit_code), done.stderr
    assert error["hint"] and "<" not in error["message"] + error["hint"]
    assert "Traceback" not in done.stderr and "root:" not in done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) <= 12


def test_an_unknown_setting_is_refused_with_the_nearest_name(talk: Path, tmp_path: Path) -> None:
    done = dub("run", talk, "--to", "es", env={"DUBBING_OUTPUT_DIRECTORY": "/x"}, cwd=tmp_path)

    assert done.returncode == 2
    assert "DUBBING_OUTPUT_DIR?" in done.stderr


def test_a_job_that_someone_works_on_is_left_alone(talk: Path, words: Path, tmp_path: Path) -> None:
    options = ("run", talk, "--to", "es", "--transcript", words, "--in-process", "--engine", "speak=fake-speak")
    assert dub(*options, cwd=tmp_path).returncode == 0
    code = "import sys, fcntl; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()"
    lock = tmp_path / "Output" / "my talk (1)" / ".work" / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        busy = dub(*options, "--json", cwd=tmp_path)
        holder.kill()

    assert (busy.returncode, json.loads(busy.stdout)["error"]["code"]) == (75, "job_busy")


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(talk: Path, words: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dubbing.cli", "run", str(talk), "--to", "es", "--in-process"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith("ingest"):
            process.send_signal(2)
            break
    out, rest = process.communicate(timeout=120)

    assert process.returncode == 130, "".join(seen) + rest
    assert out == "" and "The same command resumes" in rest
    folder = tmp_path / "Output" / "my talk (1)"
    assert not list(folder.rglob("*.tmp")) and not list(folder.glob("*.mp4"))
    again = dub("run", talk, "--to", "es", "--transcript", words, "--in-process", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_doctor_finds_this_machine_ready_and_a_bare_one_not(tmp_path: Path, require_program: Any) -> None:
    require_program("espeak-ng")
    ready = dub("doctor", cwd=tmp_path)
    bare = dub("doctor", "--json", env={"PATH": str(tmp_path)}, cwd=tmp_path)

    assert ready.returncode == 0, ready.stdout
    findings = {f["name"]: f for f in json.loads(bare.stdout)}
    assert bare.returncode == 4
    assert findings["ffmpeg"]["state"] == "error" and "apt-get install" in findings["ffmpeg"]["fix"]
    assert findings["speak: espeak-ng"]["state"] == "error" and "espeak-ng" in findings["speak: espeak-ng"]["fix"]


def test_listings_tell_what_this_machine_can_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], require_program: Any
) -> None:
    require_program("apertium"), require_program("espeak-ng")
    assert main(["languages", "--json"]) == 0
    pairs = {row["from"]: row for row in json.loads(capsys.readouterr().out)["pairs"]}
    assert "es" in pairs["en"]["to"] and pairs["en"]["recognised"]

    assert main(["engines", "--json"]) == 0
    engines = {(row["kind"], row["name"]): row for row in json.loads(capsys.readouterr().out)}
    assert engines["speak", "espeak-ng"]["licence"].startswith("GPL-3.0") and not any(
        "fake" in name for _, name in engines
    )

    assert main(["voices", "es"]) == 0
    assert "espeak-ng" in capsys.readouterr().out
    assert main(["voices", "tlh-x"]) == 3


@pytest.mark.parametrize(("text", "ms"), [("90", 90_000), ("1:30", 90_000), ("1:30.5", 90_500), ("0:01:30.25", 90_250)])
def test_times_are_read_as_people_write_them(text: str, ms: int) -> None:
    assert timestamp(text) == ms


@pytest.mark.parametrize("text", ["", "x", "1:99", "-5", "1:2:3:4", "nan:1"])
def test_what_is_no_time_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "a.mp4", "--to", "es", "--start", text])

    assert stop.value.code == 2
    assert "--start" in capsys.readouterr().err


def test_a_silent_line_is_flagged_and_the_job_ends_with_warnings(talk: Path, words: Path, tmp_path: Path) -> None:
    spec = {
        "source": str(talk),
        "output_dir": str(tmp_path),
        "transcript": str(words),
        "targets": ["es"],
        "engines": jobs.FAKES,
    }
    result, report = jobs.dub(jobs.request_of(spec), {"fake-speak": {"poison": "weather"}})

    assert result.state == "done_with_warnings"
    assert report["targets"]["es"]["silent"] == [1]
    assert any("silent: 1" in warning for warning in result.warnings)


def test_a_translation_that_fails_is_flagged_not_passed_through(talk: Path, words: Path, tmp_path: Path) -> None:
    spec = {
        "source": str(talk),
        "output_dir": str(tmp_path),
        "transcript": str(words),
        "targets": ["es"],
        "engines": jobs.FAKES,
    }
    result, report = jobs.dub(jobs.request_of(spec), {"fake-translate": {"poison": "weather"}})

    assert result.state == "done_with_warnings"
    assert report["targets"]["es"]["problems"] == {"empty": 1, "silent": 1}


def test_a_defect_becomes_a_message_with_a_trace_to_send_in(talk: Path, tmp_path: Path) -> None:
    code = (
        "import sys, dubbing.run, dubbing.cli\n"
        "def broken(*a): raise ZeroDivisionError('the sum of nothing')\n"
        "dubbing.run.command = broken\n"
        "sys.exit(dubbing.cli.main(['run', sys.argv[1], '--to', 'es']))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(talk)], capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 1
    assert "ZeroDivisionError: the sum of nothing" in done.stderr and "Traceback" not in done.stderr
    assert "Traceback" in (tmp_path / "logs" / "dub-error.log").read_text()


def test_pictures_that_cannot_live_in_mp4_give_an_mkv_and_a_note(talk: Path, words: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.mkv"
    subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-y",
            "-i",
            talk,
            "-map",
            "0:v",
            "-map",
            "0:a:0",
            "-c:v",
            "ffv1",
            "-c:a",
            "copy",
            old,
        ],
        check=True,
    )
    spec = {
        "source": str(old),
        "output_dir": str(tmp_path),
        "transcript": str(words),
        "targets": ["es", "ca"],
        "engines": jobs.FAKES,
    }

    result, report = jobs.dub(jobs.request_of(spec))

    assert [path.suffix for path in result.files["es"]] == [".mkv", ".srt", ".vtt"]
    assert any("MP4" in note for note in report["notes"])


def test_progress_is_redrawn_on_a_terminal_and_plain_elsewhere(talk: Path, words: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} -m dubbing.cli run '{talk}' --to es --transcript '{words}' --in-process"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"], capture_output=True, text=True, cwd=tmp_path, timeout=200
    )

    assert done.returncode == 0
    assert "\x1b[" in done.stdout and "####" in done.stdout
