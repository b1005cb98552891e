"""What the rest of the program says in names or in English, in the language of the request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from string import Formatter
from typing import Any

from dubbing.errors import DubbingError, of_code, template_of
from dubbing.web.catalogues import FACT, SOURCE, Words, facts, gettext, language, noop, pgettext

STAGES = Words(
    {
        "ingest": noop("ingest"),
        "separate": noop("separate"),
        "transcribe": noop("transcribe"),
        "diarize": noop("diarize"),
        "script": noop("script"),
        "translate": noop("translate"),
        "speak": noop("speak"),
        "fit": noop("fit"),
        "mix": noop("mix"),
        "package": noop("package"),
        "inspect": noop("inspect"),
    }
)
ROLES = Words({"viewer": noop("viewer"), "user": noop("user"), "admin": noop("admin")})
QUALITIES = Words({"draft": noop("draft"), "good": noop("good"), "best": noop("best")})
CONDITIONS = Words({"ok": noop("ok"), "warning": noop("warning"), "error": noop("error")})
"""Of what readiness looks at."""
PROBLEMS = Words(
    {
        "silent": noop("silent"),
        "late": noop("late"),
        "hurried": noop("hurried"),
        "over_limit": noop("over limit"),
        "runaway": noop("runaway"),
        "looped": noop("looped"),
        "truncated": noop("truncated"),
        "empty": noop("empty"),
        "echo": noop("echo"),
        "wrong_script": noop("wrong script"),
        "too_long": noop("too long"),
        "glossary": noop("glossary"),
    }
)
"""What can be wrong with a line."""
STANDING = Words(
    {
        "queued": noop("queued"),
        "running": noop("running"),
        "paused": noop("paused"),
        "done": noop("done"),
        "done_with_warnings": noop("done_with_warnings"),
        "failed": noop("failed"),
        "cancelled": noop("cancelled"),
    }
)
"""Where a job is, in the middle of a sentence."""
ACTIONS = Words(
    {
        "invitation_withdrawn": noop("invitation withdrawn"),
        "invited": noop("invited"),
        "job_deleted": noop("job deleted"),
        "job_prioritised": noop("job prioritised"),
        "joined": noop("joined"),
        "key_added": noop("key added"),
        "key_revoked": noop("key revoked"),
        "line_edited": noop("line edited"),
        "login": noop("login"),
        "login_failed": noop("login failed"),
        "password_changed": noop("password changed"),
        "password_failed": noop("password failed"),
        "password_set": noop("password set"),
        "paused": noop("paused"),
        "resumed": noop("resumed"),
        "session_ended": noop("session ended"),
        "sessions_ended": noop("sessions ended"),
        "user_added": noop("user added"),
        "user_changed": noop("user changed"),
        "user_disabled": noop("user disabled"),
        "user_enabled": noop("user enabled"),
        "webhook_added": noop("webhook added"),
        "webhook_deleted": noop("webhook deleted"),
    }
)
"""What the audit log has."""


REMARKS = (
    noop("SQLite, because QUEUE_MODE is fallback."),
    noop("SQLite, because REDIS_URL is not set."),
    noop("Redis, because QUEUE_MODE is redis."),
    noop("Redis, because QUEUE_MODE is redis; no job starts until it answers ({reason})."),
    noop("Redis, because REDIS_URL is set and it answers."),
    noop("SQLite, because {reason}."),
    noop("{count} of {lines} lines were recognised with low confidence: {numbers}"),
    noop("{tag}: {count} of {lines} lines could not be spoken and are silent: {numbers}"),
    noop("{tag}: {count} of {lines} lines go on after their words in every reading: {numbers}"),
    noop("{tag}: {count} of {lines} lines repeat themselves in every reading: {numbers}"),
    noop("{tag}: {count} of {lines} lines end too early in every reading: {numbers}"),
    noop("{tag}: {count} of {lines} lines have no translation: {numbers}"),
    noop("{tag}: {count} of {lines} lines came back untranslated: {numbers}"),
    noop("{tag}: {count} of {lines} lines are in the wrong script: {numbers}"),
    noop("{tag}: {count} of {lines} lines have a suspiciously long translation: {numbers}"),
    noop("{tag}: {count} of {lines} lines lack a term of the glossary: {numbers}"),
    noop("{tag}: {count} of {lines} lines had to be hurried beyond what a voice should be: {numbers}"),
    noop("{tag}: {count} of {lines} lines start more than a second late: {numbers}"),
    noop("{tag}: {speaker} says too little to be cloned and has a preset voice"),
)
"""What reports warn of most, and why a queue was chosen, as they say it."""


def stage(name: str) -> str:
    """A stage of a job."""
    return _of(STAGES, name)


def problem(name: str) -> str:
    """What is wrong with a line."""
    return _of(PROBLEMS, name)


def action(name: str) -> str:
    """What was done."""
    return _of(ACTIONS, name)


def _of(words: Words, name: str) -> str:
    return words[name] if name in words else name.replace("_", " ")


def remark(text: str) -> str:
    """A sentence of a report or of the queue; the rarer ones stay English."""
    templates = () if language() == SOURCE else REMARKS
    found = ((template, pattern(template).fullmatch(text)) for template in templates)
    return next((gettext(template).format_map(match.groupdict()) for template, match in found if match), text)


# --- errors: the templates of the tree are messages of the catalogues -----------------------------------------------------


def message(error: DubbingError | Mapping[str, Any]) -> str:
    """What went wrong, of an error or of what `as_dict` told of one."""
    if isinstance(error, DubbingError):
        return _made(error.message, template_of(type(error)))
    return _made(str(error["message"]), template_of(of_code(error["code"])))


def advice(error: DubbingError | Mapping[str, Any]) -> str:
    """What can be done about an error, or about what `as_dict` told of one."""
    if isinstance(error, DubbingError):
        return _made(error.advice, error.hint)
    return _made(str(error["hint"]), of_code(error["code"]).hint)


def _made(text: str, template: str) -> str:
    """A sentence that was made from a template, in the language of the request; as it is when that is not known."""
    found = None if language() == SOURCE else pattern(template.rstrip(".")).fullmatch(text.rstrip("."))
    if found is None:
        return text
    filled = _fill(template if re.fullmatch(r"\{\w+\}\.?", template) else gettext(template), found)
    return filled if text.endswith(".") else filled.rstrip(".")


def _fill(template: str, found: re.Match[str]) -> str:
    return template.format_map({name: _fact(value) for name, value in found.groupdict().items()})


def _fact(text: str) -> str:
    """What fills a place of an error's template: a message of its own, in the context FACT, or a name."""
    known = pgettext(FACT, text) if text else text
    if known != text:
        return known
    for words in (ROLES, STANDING, STAGES):
        if text in words:
            return words[text]
    for template in facts(language()):
        if found := pattern(template).fullmatch(text):
            return pgettext(FACT, template).format_map(found.groupdict())
    return text


@cache
def pattern(template: str) -> re.Pattern[str]:
    """Matches what `template` becomes when its places are filled; a place that comes again holds the same."""
    parts, names = [], set[str]()
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(re.escape(literal))
        if name:
            parts.append(f"(?P={name})" if name in names else f"(?P<{name}>.+?)")
            names.add(name)
    return re.compile("".join(parts), re.DOTALL)
