"""inspect: the report. It says what was measured on the finished result, and names every line a person should look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dubbing import report
from dubbing.artifacts import Names, write_atomically
from dubbing.engines.base import EngineClient
from dubbing.report import LineResult
from dubbing.stages.context import Context
from dubbing.stages.ingest import Ingested
from dubbing.stages.package import Finished, Packaged
from dubbing.stages.transcribe import LOW_CONFIDENCE
from dubbing.types import JobResult, Line, Stage


def inspect(
    context: Context,
    source: Ingested,
    lines: Sequence[Line],
    finished: Sequence[Finished],
    packaged: Packaged,
    names: Names,
) -> JobResult:
    """Write report.json and timeline.json; answers how the job ended."""
    with context.trace.span("inspect", "report"):
        results = {target.tag: _results(target) for target in finished}
        _warn(context, lines, results)
        content = report.skeleton(context.job.id) | {
            "state": "done_with_warnings" if context.warnings else "done",
            "source": _source(context, source),
            "engines": [_engine(context, choice.kind, choice.target, choice.reason) for choice in context.job.choices],
            "targets": {
                target.tag: report.target_report(
                    results[target.tag], _sound(target, source), [path.name for path in packaged.files[target.tag]]
                )
                for target in finished
            },
            "speakers": report.speakers(lines or finished[0].dubbed.lines, {t.tag: results[t.tag] for t in finished}),
            "background": _background(context, source),
            "recognition": _recognition(lines),
            "calls": dict(sorted(context.calls.items())),
            "notes": [*context.job.notes, *packaged.notes],
            "warnings": list(context.warnings),
        }
        for target in finished:
            write_atomically(names.lines(target.tag), _lines(context, target, results[target.tag]))
        write_atomically(names.loudness, _loudness(finished, source))
        write_atomically(names.timeline, context.trace.chrome())
    content["time"] = report.time_report(context.trace, source.duration_ms)
    write_atomically(names.report, json.dumps(content, ensure_ascii=False, indent=1))
    context.report_stage(Stage.INSPECT, 100, 100)
    context.log.info("%s; report: %s", content["state"], names.report.name)
    return JobResult(
        "done_with_warnings" if context.warnings else "done",
        {tag: list(paths) for tag, paths in packaged.files.items()},
        names.report,
        tuple(context.warnings),
    )


def _results(target: Finished) -> list[LineResult]:
    dubbed = target.dubbed
    found = []
    for line, text, voice, placed in zip(dubbed.lines, dubbed.texts, dubbed.voices, dubbed.placed, strict=True):
        problems = list(text.problems)
        if placed is None:
            problems.append("silent")
        else:
            problems.extend(placed.placement.flags)
            problems.extend([dubbed.doubtful[line.index]] if line.index in dubbed.doubtful else [])
        found.append(LineResult(line, text.text, voice.id, placed.placement if placed else None, tuple(problems)))
    return found


def _lines(context: Context, target: Finished, results: Sequence[LineResult]) -> str:
    """Every line, with the sound it was placed with."""
    rows = []
    for result, placed, edit in zip(results, target.dubbed.placed, target.dubbed.edits, strict=True):
        clip = {"clip": str(placed.path.relative_to(context.folder.path))} if placed else {}
        asked = {"edit": edit} if edit else {}
        rows.append(report.line_report(result) | {"confidence": result.line.confidence} | clip | asked)
    voices = [{"id": voice.id, "name": voice.name} for voice in context.job.voices[target.tag]]
    whole = {"schema": report.SCHEMA_VERSION, "target": target.tag, "voices": voices, "lines": rows}
    return json.dumps(whole, ensure_ascii=False)


def _warn(context: Context, lines: Sequence[Line], results: Mapping[str, Sequence[LineResult]]) -> None:
    """Say what a person should look at; a job with warnings never ends as plainly done."""
    unsure = [line.index for line in lines if line.confidence is not None and line.confidence < LOW_CONFIDENCE]
    if unsure:
        context.warn(f"{len(unsure)} of {len(lines)} lines were recognised with low confidence: {_numbers(unsure)}")
    sentences = {
        "silent": "could not be spoken and are silent",
        "runaway": "go on after their words in every reading",
        "looped": "repeat themselves in every reading",
        "truncated": "end too early in every reading",
        "empty": "have no translation",
        "echo": "came back untranslated",
        "wrong_script": "are in the wrong script",
        "too_long": "have a suspiciously long translation",
        "glossary": "lack a term of the glossary",
        "over_limit": "had to be hurried beyond what a voice should be",
        "late": "start more than a second late",
    }
    for tag, lines_of in results.items():
        for flag, sentence in sentences.items():
            found = [result.line.index for result in lines_of if flag in result.problems]
            if found:
                context.warn(f"{tag}: {len(found)} of {len(lines_of)} lines {sentence}: {_numbers(found)}")


def _numbers(indices: Sequence[int]) -> str:
    shown = ", ".join(str(index + 1) for index in indices[:12])
    return shown + (", ..." if len(indices) > 12 else "")


def _source(context: Context, source: Ingested) -> dict[str, Any]:
    info, request = source.info, context.job.request
    return {
        "name": request.source.name,
        "identity": context.job.source_id,
        "language": context.job.source_language,
        "duration_ms": source.duration_ms,
        "start_ms": source.start_ms,
        "audio_track": request.audio_track,
        "video": info.video.codec if info.video else None,
        "loudness_lufs": round(source.sound.result().loudness_lufs, 2),
        "transcript": request.transcript.name if request.transcript else None,
        "translations": {tag: path.name for tag, path in request.translations.items()},
    }


def _engine(context: Context, kind: str, target: str | None, reason: str) -> dict[str, Any]:
    engines = context.engines
    client: EngineClient[Any, Any] | None = {
        "transcribe": engines.transcribe,
        "align": engines.align,
        "translate": engines.translate.get(target or ""),
        "speak": engines.speak.get(target or ""),
        "separate": engines.separate,
        "diarize": engines.diarize,
    }[kind]
    assert client is not None, f"the job chose an engine to {kind} but was given none"
    info = client.info
    return {
        "kind": kind,
        "target": target,
        "name": info.name,
        "version": info.version,
        "quality": info.quality,
        "licence": info.licence,
        "weights_licence": info.weights_licence or None,
        "commercial_use": info.commercial_use,
        "note": info.note or None,
        "reason": reason,
    }


def _sound(target: Finished, source: Ingested) -> dict[str, Any]:
    result = target.mixed.result
    return {
        "lufs": result.integrated_lufs,
        "true_peak_dbtp": result.true_peak_dbtp,
        "gain_db": result.gain_db,
        "note": result.note or None,
        "duration_ms": result.duration_ms,
        "video_ms": source.duration_ms,
    }


def _loudness(finished: Sequence[Finished], source: Ingested) -> str:
    """How loud source and dubs are over time, for charts."""
    dubs = {target.tag: target.mixed.result.short_term_lufs for target in finished}
    return json.dumps({"schema": 1, "every_s": 1, "source": source.sound.result().short_term_lufs, "targets": dubs})


def _background(context: Context, source: Ingested) -> dict[str, Any] | None:
    """What lies under the dub; None when nothing does."""
    if not context.job.request.keep_background:
        return None
    if source.stems is None:
        return {"separated": False}
    return {"separated": True, "voices_dbfs": source.stems.result().voices_dbfs}


def _recognition(lines: Sequence[Line]) -> dict[str, Any] | None:
    known = sorted(line.confidence for line in lines if line.confidence is not None)
    if not known:
        return None
    return {
        "lines": len(known),
        "median_confidence": round(known[len(known) // 2], 3),
        "below_threshold": sum(confidence < LOW_CONFIDENCE for confidence in known),
        "threshold": LOW_CONFIDENCE,
    }
