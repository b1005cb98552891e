"""The part of the error tree (errors.py) that is about lines changed by hand."""

from __future__ import annotations

from dubbing.errors import BadInputError, DubbingError


class LineEditError(BadInputError):
    """Line {line} cannot be changed so: {detail}."""

    code, hint = "line_edit", "`dub lines list` shows the lines with their times, voices and speakers."


class LineLockedError(BadInputError):
    """Line {line} is locked, so it keeps its words and its voice."""

    code, hint, http_status = "line_locked", "Unlock it first; both can be saved at once.", 409


class EditsFileError(BadInputError):
    """The file {name} cannot be used: {detail}."""

    code, hint = "edits_file", "Run the job again to write lines anew; edits can be mended by hand, or deleted."


class StaleEditError(DubbingError):
    """The lines were changed by somebody else, or on another page, since this page was loaded."""

    code, exit_code, http_status = "edits_stale", 2, 409
    hint = "Nothing was saved. Go back, copy what you typed, and load the page again."
