"""The one error tree: a class docstring is the message, its attributes say what a caller may do about it.

``{names}`` in a docstring or a hint are filled from the keyword arguments of the raise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar


class DubbingError(Exception):
    """Something went wrong inside the program: {detail}."""

    code: ClassVar[str] = "internal"
    hint: ClassVar[str] = "This is a defect; the job's log holds the details."
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    log: Path | None = None
    """Where more about it can be read, when there is such a file."""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The sentence a user reads."""
        return template_of(type(self)).format_map(_Facts(self.facts)).rstrip(".")

    @property
    def advice(self) -> str:
        """What the user can do, with the facts filled in."""
        return self.hint.format_map(_Facts(self.facts))

    def as_dict(self) -> dict[str, Any]:
        """The error as plain data, for JSON output and for the web."""
        return {"code": self.code, "message": self.message, "hint": self.advice, "retryable": self.retryable}

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive a trip between Ray processes with class and facts intact."""
        return _rebuild, (type(self), self.facts)


class _Facts(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def template_of(kind: type[DubbingError]) -> str:
    """The message of a class before its facts are filled in."""
    return (kind.__doc__ or "").strip().splitlines()[0]


def of_code(code: object) -> type[DubbingError]:
    """The class of that code among those that were imported; DubbingError when there is none."""
    return next((kind for kind in _below(DubbingError) if kind.code == code), DubbingError)


def retold(told: Mapping[str, Any]) -> DubbingError:
    """The error that `as_dict` told of: same code, words and exit code; its facts are part of its words by now."""
    kind = of_code(told.get("code"))
    message, hint = (str(told.get(key, "")).replace("{", "{{").replace("}", "}}") for key in ("message", "hint"))
    words = {"__doc__": message, "hint": hint, "retryable": bool(told.get("retryable"))}
    error: DubbingError = type(kind.__name__, (kind,), words)()
    return error


def named(name: str) -> type[DubbingError]:
    """The class of that name among those that were imported; DubbingError when there is none."""
    return next((kind for kind in _below(DubbingError) if kind.__name__ == name), DubbingError)


def _below(kind: type[DubbingError]) -> Iterator[type[DubbingError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _below(child)


def _rebuild(kind: type[DubbingError], facts: dict[str, Any]) -> DubbingError:
    return kind(**facts)


# --- what the user typed ------------------------------------------------------------------------------------------


class UsageError(DubbingError):
    """{detail}."""

    code, hint, exit_code, http_status = "usage", "See `dub --help`.", 2, 400


class SettingsError(DubbingError):
    """The setting {key} has the value {value!r}, but {expected}."""

    code, hint, exit_code = "settings", "{fix}", 2


# --- what the user gave us ----------------------------------------------------------------------------------------


class BadInputError(DubbingError):
    """The input {name} cannot be used: {detail}."""

    code, hint, exit_code, http_status = "bad_input", "Check the file and try again.", 3, 422


class FileMissingError(BadInputError):
    """There is no file {name}."""

    code, hint, http_status = "file_missing", "Check the path; quote it if it has spaces.", 404


class EmptyFileError(BadInputError):
    """The file {name} is empty."""

    code, hint = "file_empty", "Copy or upload it again."


class UnreadableMediaError(BadInputError):
    """The file {name} is not a video or audio file that can be read ({detail})."""

    code = "media_unreadable"
    hint = "Supported containers: MP4/MOV, MKV/WebM, AVI, MPEG-TS/PS, FLV, WMV/ASF, WAV, MP3, FLAC, OGG, AAC."


class TruncatedMediaError(BadInputError):
    """The file {name} ends in the middle ({detail})."""

    code, hint = "media_truncated", "The copy or download was cut short; fetch the file again."


class ForbiddenFormatError(BadInputError):
    """The file {name} is a playlist or a script of other files, not a video."""

    code, hint = "media_forbidden", "Give the video file itself; playlists (HLS, DASH, SDP, concat) are refused."


class PictureTooLargeError(BadInputError):
    """The video {name} has pictures larger than {limit} pixels."""

    code, hint = "media_too_many_pixels", "Scale it down to 8K or less first."


class TooManyStreamsError(BadInputError):
    """The file {name} has more than {limit} streams."""

    code, hint = (
        "media_too_many_streams",
        "Keep the video and the audio tracks you need: `ffmpeg -i IN -map 0:v -map 0:a:0 -c copy OUT`.",
    )


class TooLongError(BadInputError):
    """The file {name} lasts longer than {limit_min} minutes."""

    code = "media_too_long"
    hint = "Dub a part with --start and --end, or raise DUBBING_MAX_DURATION_MIN."


class NoAudioError(BadInputError):
    """The file {name} has no audio track, so there is nothing to dub."""

    code, hint = "media_no_audio", "Check that the right file was chosen."


class AudioTrackError(BadInputError):
    """The file {name} has no audio track number {track} (it has {count})."""

    code, hint = "audio_track", "Tracks count from 1: `--audio-track 1` is the first."


class RangeError(BadInputError):
    """The range {start}-{end} lies outside the {length} of {name}."""

    code, hint = "range", "--start must come before --end, and both must lie inside the file."


class NoSpeechError(BadInputError):
    """No speech was found in {name}."""

    code = "no_speech"
    hint = "Choose another --audio-track, or give the words with --transcript FILE."


class SubtitleError(BadInputError):
    """The subtitle file {name} cannot be used: {detail}."""

    code, hint = "subtitles", "SRT, WebVTT, ASS or plain text (transcripts only), UTF-8, at most 2 MiB."


class GlossaryError(BadInputError):
    """The glossary {name} cannot be used: {detail}."""

    code, hint = "glossary", "CSV or TSV in UTF-8: `source,target` a line; a term alone is kept as it is."


class LanguageError(BadInputError):
    """{detail}."""

    code, hint = "language", "`dub languages` lists what the installed engines can do."


class SpokenLanguageError(LanguageError):
    """The speech in {name} is probably {heard}, not {assumed}."""

    code = "spoken_language"
    hint = "Say what is spoken: --from {tag} (or --from {assumed_tag}); a track without a label is taken for {assumed}."


class MediaTimeoutError(BadInputError):
    """ffmpeg needed more than {limit_s} s for {name} and was stopped."""

    code, hint, retryable = (
        "media_timeout",
        "The file may be damaged on purpose or by accident; re-encode it and try again.",
        True,
    )


class MediaLimitError(BadInputError):
    """{name} needed more memory, time or disk than a media file may ({detail})."""

    code, hint = "media_limit", "The file may be damaged on purpose or by accident; re-encode it and try again."


# --- what a page or a command was asked for ------------------------------------------------------------------------------------


class NotFoundError(DubbingError):
    """There is no {what} here."""

    code, hint, exit_code, http_status = "not_found", "The list of dubs, or `dub jobs`, shows what is there.", 3, 404


# --- the machine it runs on ---------------------------------------------------------------------------------------


class MachineError(DubbingError):
    """This machine is not ready: {detail}."""

    code, hint, exit_code, http_status = "machine", "`dub doctor` names the command that fixes it.", 4, 503


class ProgramMissingError(MachineError):
    """The program {program} is not installed."""

    code, hint = "program_missing", "{install}"


class EngineMissingError(MachineError):
    """The {kind} engine {name} cannot be used here: {detail}."""

    code, hint = "engine_missing", "{install}"


class WeightsMissingError(EngineMissingError):
    """The {kind} engine {name} has no weights here: {detail}."""

    code, hint = "weights_missing", "{install}"


class WeightsDamagedError(EngineMissingError):
    """The weights of the {kind} engine {name} are damaged: {detail}."""

    code, hint = "weights_damaged", "{install}"


class LicenceError(MachineError):
    """The {kind} engine {name} forbids commercial use ({licence}), and DUBBING_COMMERCIAL_SAFE is on."""

    code, hint = "licence", "Choose another engine, or unset DUBBING_COMMERCIAL_SAFE if your use is non-commercial."


class DiskFullError(MachineError):
    """{folder} has {free_mb} MB free, and this job needs about {need_mb} MB."""

    code, hint, retryable = "disk_full", "Free some space, or choose another folder with --output-dir.", True


class ClusterError(MachineError):
    """Ray could not be reached or started: {detail}."""

    code, hint, retryable, exit_code = "cluster", "Try `--in-process`, or see the log named below.", True, 4


class ClusterLostError(ClusterError):
    """The Ray at {address} is gone."""

    code, hint = "cluster_lost", "Start it again and repeat the command: no job is lost, finished lines are kept."


# --- the work itself ----------------------------------------------------------------------------------------------


class WorkError(DubbingError):
    """The stage {stage} failed: {detail}."""

    code, hint, exit_code = "stage_failed", "The job's log holds the details; the same command resumes it.", 6


class EngineError(WorkError):
    """The engine {name} failed: {detail}."""

    code, hint, retryable = "engine_failed", "The same command resumes the job where it stopped.", True


class EngineBrokenError(EngineError):
    """The engine {name} cannot answer any more: {detail}."""

    code, retryable = "engine_broken", False
    hint = "`dub doctor` checks the engine; the same command resumes the job where it stopped."


class ServiceDownError(EngineBrokenError):
    """The service behind the engine {name} does not answer: {detail}."""

    code, retryable = "service_down", True
    hint = "The same command resumes the job where it stopped, once the service answers again."


class ServiceRefusedError(EngineBrokenError):
    """The service behind the engine {name} refuses to work: {detail}."""

    code = "service_refused"
    hint = "Check DUBBING_CHAT_URL, DUBBING_CHAT_MODEL and DUBBING_CHAT_API_KEY; the service's own words are above."


class MediaToolError(WorkError):
    """ffmpeg failed while it was making {name}: {detail}."""

    code, hint = "media_tool", "The job's log holds ffmpeg's own words."


class JobBusyError(DubbingError):
    """{folder} is being worked on by another process (pid {pid})."""

    code, hint, retryable, exit_code, http_status = "job_busy", "Wait for it, or stop it first.", True, 75, 409


class ForbiddenError(DubbingError):
    """The role {role} may not {action}."""

    code, hint, exit_code, http_status = "forbidden", "Ask an administrator.", 2, 403


class StateConflictError(DubbingError):
    """The job {name} is {state}, so it cannot be {action}."""

    code, hint, exit_code, http_status = "state_conflict", "`dub status` shows what the job is doing now.", 2, 409


class IdempotencyError(DubbingError):
    """The idempotency key {key} was used before for another request."""

    code, hint, exit_code, http_status = "idempotency_key", "Use a new key for a new request.", 2, 422


class NameTakenError(DubbingError):
    """The name {name} is taken."""

    code, hint, exit_code, http_status = "name_taken", "Choose another name.", 2, 409


class PoisonJobError(WorkError):
    """{what} died {count} times during the job, which was put aside."""

    code, hint = "poison_job", "`dub retry` runs it again once the cause is mended; the job's log holds the details."


# --- the state behind the work ------------------------------------------------------------------------------------


class StoreError(MachineError):
    """The database {name} cannot be used: {detail}."""

    code, hint = "store", "Check that the folder is writable and on a local disk, or set DUBBING_DATABASE_URL."


class SchemaError(StoreError):
    """The database {name} was made by a newer version of this program (schema {found}, known {known})."""

    code, hint = "store_schema", "Upgrade the program, or restore a backup made by this version."


class BackupError(StoreError):
    """The backup {name} cannot be used: {detail}."""

    code, hint = "backup", "`dub restore FILE --check` says what a backup holds."


class StoppedError(DubbingError):
    """Stopped before the end; everything finished so far is kept."""

    code, hint, retryable, exit_code = "stopped", "The same command resumes the job.", True, 130
