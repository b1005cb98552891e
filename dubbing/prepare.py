"""From what a user typed to a job with every choice made: look at the input, choose engines and voices, open the folder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from dubbing import glossary, subtitles
from dubbing.artifacts import JobFolder, file_identity, fingerprint
from dubbing.config import Settings
from dubbing.engines import registry
from dubbing.engines.base import Kind, Located
from dubbing.engines.choose import Candidate, Choice, choose, choose_optional
from dubbing.errors import AudioTrackError, LanguageError, NoAudioError, UsageError
from dubbing.glossary import Terms
from dubbing.languages import is_tag
from dubbing.media import probe
from dubbing.types import DubRequest, EngineChoice, Job, Voice

Hosted = Mapping[str, Collection[str]]
"""Kind -> names of the engines that run on a cluster, where nothing else can be chosen."""


async def prepare(request: DubRequest, settings: Settings, hosted: Hosted | None = None) -> Job:
    """Check the request and make every choice, of the engines on this machine or of the hosted ones.

    Raises the error a user should see before any work begins.
    """
    source_id = file_identity(request.source)
    targets = check_targets(request)
    info = await probe.probe(request.source, max_minutes=settings.max_duration_min)
    _check_track(request, len(info.audio))
    label = info.audio[request.audio_track - 1].language
    assumed = request.source_language == "auto" and not labelled(label)
    language = source_language(label) if request.source_language == "auto" else request.source_language
    for tag in targets:
        if tag.split("-")[0] == language.split("-")[0] and tag not in request.translations:
            if assumed:
                detail = (
                    f"The track has no label and is taken for {language}; say what is spoken, --from fr for instance"
                )
                raise LanguageError(detail=detail)
            raise LanguageError(detail=f"The speech is already in {language}; choose another language than {tag}")
    _check_texts(request)
    engines = tuple(_engines(request, settings, language, targets, hosted))
    optional, notes = optional_engines(request, settings, language, hosted)
    engines += optional
    voices = {tag: _voices(engines, tag) for tag in targets}
    job_id = fingerprint(source=source_id, track=request.audio_track, start=request.start_ms, end=request.end_ms)[:12]
    folder = JobFolder.open(request.output_dir, request.source.stem, job_id)
    return Job(
        id=job_id,
        request=request,
        folder=folder.path,
        source_id=source_id,
        info=info,
        source_language=language,
        choices=engines,
        voices=voices,
        max_duration_min=settings.max_duration_min,
        language_assumed=assumed,
        notes=notes,
    )


async def length_ms(request: DubRequest, settings: Settings) -> int:
    """Length of what is to be dubbed, ms. Raises the error of a file that cannot be dubbed."""
    info = await probe.probe(request.source, max_minutes=settings.max_duration_min)
    _check_track(request, len(info.audio))
    return max(0, min(request.end_ms or info.duration_ms, info.duration_ms) - (request.start_ms or 0))


def _check_track(request: DubRequest, tracks: int) -> None:
    if not tracks:
        raise NoAudioError(name=request.source.name)
    if not 1 <= request.audio_track <= tracks:
        raise AudioTrackError(name=request.source.name, track=request.audio_track, count=tracks)


def check_targets(request: DubRequest) -> tuple[str, ...]:
    """The target tags, well-formed and each once."""
    if not request.targets:
        raise UsageError(detail="No target language was given (--to es)")
    for tag in (*request.targets, *request.translations):
        if not is_tag(tag):
            raise LanguageError(detail=f"{tag!r} is not a language tag such as es, pt-BR or zh")
    stray = [tag for tag in request.translations if tag not in request.targets]
    if stray:
        raise UsageError(detail=f"--translation names {stray[0]}, which is not among --to {','.join(request.targets)}")
    return tuple(dict.fromkeys(request.targets))


def labelled(track_language: str) -> bool:
    """Whether a track's label names a language."""
    return track_language.strip().lower() not in ("", "und", "mis", "mul", "zxx")


def source_language(track_language: str) -> str:
    """BCP-47 tag of a track from its own label; English when it has none, the only language the draft recogniser knows.

    A recogniser that detects languages checks that assumption before anything is translated.
    """
    label = track_language.strip().lower()
    return _ISO_639_2.get(label, label) if labelled(label) else "en"


_ISO_639_2 = {
    "ara": "ar", "cat": "ca", "ces": "cs", "cze": "cs", "chi": "zh", "zho": "zh", "dan": "da", "deu": "de", "dut": "nl",
    "ell": "el", "eng": "en", "fin": "fi", "fra": "fr", "fre": "fr", "ger": "de", "glg": "gl", "gre": "el", "heb": "he",
    "hin": "hi", "hun": "hu", "ita": "it", "jpn": "ja", "kor": "ko", "nld": "nl", "nor": "no", "pol": "pl", "por": "pt",
    "ron": "ro", "rum": "ro", "rus": "ru", "spa": "es", "swe": "sv", "tur": "tr", "ukr": "uk", "vie": "vi",
}  # fmt: skip


def _check_texts(request: DubRequest) -> None:
    """Read what the user gave now, so that a bad file is refused before anything is started."""
    for path in request.translations.values():
        subtitles.read_subtitles(path)
    if request.transcript is not None:
        if subtitles.is_plain_text(request.transcript):
            subtitles.read_text(request.transcript)
        else:
            subtitles.read_subtitles(request.transcript)


def _engines(
    request: DubRequest, settings: Settings, language: str, targets: Iterable[str], hosted: Hosted | None
) -> Iterable[EngineChoice]:
    def pick(kind: Kind, target: str | None) -> EngineChoice:
        choice: Choice = choose(
            _candidates(kind, hosted),
            kind=kind,
            source=language,
            target=target or language,
            quality=request.quality,
            name=request.engines.get(f"{kind}:{target}", request.engines.get(kind)),
            commercial_safe=settings.commercial_safe,
        )
        return EngineChoice(kind, choice.spec.name, choice.reason, target)

    own = set(request.translations)
    if request.transcript is not None:
        if subtitles.is_plain_text(request.transcript):
            yield pick("align", None)
    elif any(tag not in own for tag in targets):
        yield pick("transcribe", None)
    for tag in targets:
        if tag not in own:
            yield pick("translate", tag)
        yield pick("speak", tag)


def optional_engines(
    request: DubRequest, settings: Settings, language: str, hosted: Hosted | None
) -> tuple[tuple[EngineChoice, ...], tuple[str, ...]]:
    """Engines for the work a draft goes without, and why one that was expected is missing."""
    wanted: dict[Kind, bool] = {
        "separate": request.keep_background,
        "diarize": request.speakers != 1 and not _speakers_are_named(request),
    }
    choices: list[EngineChoice] = []
    notes: list[str] = []
    for kind, useful in wanted.items():
        name = request.engines.get(kind)
        if not useful and name is None:
            continue
        found = choose_optional(
            _optional_candidates(kind, hosted),
            kind=kind,
            source=language,
            quality=request.quality,
            name=name,
            commercial_safe=settings.commercial_safe,
        )
        if isinstance(found, Choice):
            choices.append(EngineChoice(kind, found.spec.name, found.reason))
        elif found:
            notes.append(found)
    return tuple(choices), tuple(notes)


def _speakers_are_named(request: DubRequest) -> bool:
    """Whether every text that lines are made from says who speaks."""
    given = list(request.translations.values())
    if request.transcript is not None and not subtitles.is_plain_text(request.transcript):
        given.append(request.transcript)
    elif request.transcript is not None or any(tag not in request.translations for tag in request.targets):
        return False
    return all(any(cue.speaker for cue in subtitles.read_subtitles(path)) for path in given)


def _optional_candidates(kind: Kind, hosted: Hosted | None) -> list[Candidate]:
    """Like `_candidates`, but what a cluster does not host is still known: quality good may ask for it."""
    absent = Located(False, "it is not deployed on this cluster", f"Add it to args.engines.{kind} of the serve config.")
    found = registry.survey(kind)
    if hosted is None:
        return found
    return [replace(c, located=Located(True) if c.spec.name in hosted.get(kind, ()) else absent) for c in found]


def _candidates(kind: Kind, hosted: Hosted | None) -> list[Candidate]:
    """A hosted engine is there, whether or not this machine could load it."""
    found = registry.survey(kind)
    if hosted is None:
        return found
    return [replace(c, located=Located(True)) for c in found if c.spec.name in hosted.get(kind, ())]


def _voices(engines: Iterable[EngineChoice], tag: str) -> tuple[Voice, ...]:
    name = next(c.name for c in engines if c.kind == "speak" and c.target == tag)
    voices = registry.spec(name).voices(tag)
    if not voices:
        raise LanguageError(detail=f"The engine {name} has no voice for {tag}")
    return tuple(voices)


def read_glossaries(values: Iterable[str], targets: tuple[str, ...]) -> dict[str, Terms]:
    """`TAG=FILE`, or `FILE` for all targets; later files win. Raises UsageError and what `glossary.read` raises."""
    found: dict[str, dict[str, str]] = {}
    for value in values:
        tag, equals, file = value.partition("=")
        own = bool(equals and is_tag(tag))
        if own and tag not in targets:
            raise UsageError(detail=f"--glossary names {tag}, which is not among --to {','.join(targets)}")
        terms = glossary.read(Path(file if own else value))
        if not own and len(targets) > 1 and any(source != target for source, target in terms):
            raise UsageError(detail=f"With several languages say which one {value} is for: --glossary es={value}")
        for each in (tag,) if own else targets:
            found.setdefault(each, {}).update(terms)
    return {tag: tuple(terms.items()) for tag, terms in found.items()}


def parse_translations(values: Iterable[str], targets: tuple[str, ...]) -> dict[str, Path]:
    """`FILE` (one target only) or `TAG=FILE`, each once per target."""
    found: dict[str, Path] = {}
    for value in values:
        tag, equals, file = value.partition("=")
        if not (equals and is_tag(tag)):
            if len(targets) != 1:
                raise UsageError(detail=f"With several languages say which one {value} is: --translation es={value}")
            tag, file = targets[0], value
        if tag in found:
            raise UsageError(detail=f"--translation was given twice for {tag}")
        found[tag] = Path(file)
    return found
