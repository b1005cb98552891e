#!/usr/bin/env python3
"""Gather what people read in the pages and bring the catalogues of dubbing/web/locale up to date.

scripts/make_catalogues.py           write them; new sentences wait there for their translation
scripts/make_catalogues.py --check   change nothing; exit 1 and name what is stale, missing, unsure, or bare in a page
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from babel import Locale
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract
from babel.messages.pofile import read_po, write_po
from jinja2 import Environment, nodes

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import dubbing.access_errors  # noqa: E402
import dubbing.api_errors  # noqa: E402
import dubbing.line_errors  # noqa: E402
import dubbing.model_errors  # noqa: E402
import dubbing.queue_errors  # noqa: E402
import dubbing.upload_errors  # noqa: F401, E402 - all complete the tree of errors
from dubbing.errors import DubbingError, template_of  # noqa: E402 - this tree comes first, installed or not
from dubbing.web.catalogues import FACT, FOLDER  # noqa: E402

WEB = ROOT / "dubbing" / "web"
KEYWORDS = {"gettext": None, "ngettext": (1, 2), "pgettext": ((1, "c"), 2), "noop": None, "_": None}
RAISE = [f"web/{name}" for name in ("account", "entrance", "errors", "identity", "job_pages", "line_pages", "new_dub")]
RAISE += [f"store/{name}" for name in ("access", "oversight", "people", "requests", "uploads")]
RAISE += ["intake", "line_edits", "orders", "subtitles", "web/pages", "web/results"]
"""Modules whose errors people meet in pages; what fills the places of these is translated too."""
FACTS = ("what", "action", "detail", "role", "state")
PLACE = re.compile(r"%\(\w+\)s|%%|\{\w+[^}]*\}|</?\w+[^>]*>|`[^`]*`")
NAMES = {"Dubbing Pipeline", "LUFS", "dBTP", "rate"}
"""Texts of templates that are the same in every language."""
SPOKEN = ("aria-label", "title", "placeholder", "alt", "label")
"""Attributes that are read to people."""
NOISE = re.compile(rb'^"(?:Generated-By|Language-Team|Last-Translator|Report-Msgid-Bugs-To): .*"\n', re.MULTILINE)
"""Lines of a header that say nothing, or change with Babel."""
SENTENCE = re.compile(r"[A-Z][a-z]+(?:[ .…:!?].*)?", re.DOTALL)
KEYS = {"Accept", "Location", "Enter", "Escape", "Tab", "Home", "End", "Space", "Error"}
"""Texts of scripts that look like sentences, but are names of keys and headers."""


# --- gathering ----------------------------------------------------------------------------------------------------------


def gathered() -> Catalog:
    """Every message of templates, code and errors."""
    found = Catalog(project="Dubbing Pipeline", charset="utf-8")
    for path in sorted((WEB / "templates").glob("*.html")):
        _gather(found, path, "jinja2.ext:babel_extract")
    for path in sorted(WEB.glob("*.py")):
        _gather(found, path, "python")
    for kind in sorted(_tree(DubbingError), key=lambda kind: kind.code):
        for text in (template_of(kind), kind.hint):
            if re.search(r"[a-z]", re.sub(r"\{[^}]*\}", "", text)):
                found.add(text, locations=[(f"{kind.__module__.replace('.', '/')}.py", 0)])
    for path in [ROOT / "dubbing" / f"{name}.py" for name in RAISE]:
        for text in facts(path.read_text(encoding="utf-8")):
            found.add(text, context=FACT, locations=[(str(path.relative_to(ROOT)), 0)])
    return found


def _gather(found: Catalog, path: Path, method: str) -> None:
    name = str(path.relative_to(ROOT))
    with path.open("rb") as file:
        for _, message, comments, context in extract(method, file, KEYWORDS):
            if message:
                found.add(message, context=context, auto_comments=comments, locations=[(name, 0)])


def _tree(kind: type[DubbingError]) -> Iterator[type[DubbingError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.startswith("dubbing."):
            yield from _tree(child)


def facts(source: str) -> Iterator[str]:
    """What `raise SomeError(what="...")` fills into places; `{names}` stand for the parts of f-strings."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
            for keyword in node.keywords:
                value = keyword.value
                choices = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                texts = [_template(choice) for choice in choices] if keyword.arg in FACTS else []
                yield from (text for text in texts if text and re.search("[a-z]", text))


def _template(value: ast.expr) -> str | None:
    if isinstance(value, ast.Constant):
        return value.value if isinstance(value.value, str) else None
    if not isinstance(value, ast.JoinedStr):
        return None
    text = ""
    for number, part in enumerate(value.values):
        if isinstance(part, ast.Constant):
            text += str(part.value)
        elif isinstance(part, ast.FormattedValue):
            names = [node.id for node in ast.walk(part.value) if isinstance(node, ast.Name)]
            text += "{" + (names[0] if isinstance(part.value, ast.Name) else f"{names[0]}{number}") + "}"
    return text if re.search("[a-z]{3}", re.sub(r"\{[^}]*\}", "", text)) else None


def updated(path: Path, template: Catalog) -> Catalog:
    """A catalogue with today's messages: translations are kept, what is gone is dropped, what is new is empty."""
    with path.open("rb") as file:
        catalogue = read_po(file, locale=Locale.parse(path.stem, sep="-"))
    kept = catalogue.creation_date, catalogue.revision_date
    catalogue.update(template, no_fuzzy_matching=True)
    catalogue.creation_date, catalogue.revision_date = kept
    return catalogue


def written(catalogue: Catalog) -> bytes:
    """The file of a catalogue, the same for the same messages."""
    file = io.BytesIO()
    write_po(file, catalogue, width=120, sort_output=True, ignore_obsolete=True, include_lineno=False)
    return NOISE.sub(b"", file.getvalue())


# --- what is wrong with a catalogue -------------------------------------------------------------------------------------


def complaints(catalogue: Catalog) -> Iterator[str]:
    """What is missing, unsure, or has other places than the English."""
    for message in catalogue:
        if message.id:
            yield from _complaints(message)


def _complaints(message: Message) -> Iterator[str]:
    ids = list(message.id) if isinstance(message.id, list | tuple) else [message.id]
    texts = list(message.string) if isinstance(message.string, list | tuple) else [message.string]
    if not all(texts):
        yield f"not translated: {ids[0]!r}"
    elif message.fuzzy:
        yield f"marked as unsure (fuzzy): {ids[0]!r}"
    else:
        wanted = [sorted(PLACE.findall(one)) for one in ids]
        for text in texts:
            if sorted(PLACE.findall(text)) not in wanted:
                yield f"other places than {ids[0]!r} has: {text!r}"


# --- what nobody marked -------------------------------------------------------------------------------------------------


def bare(source: str) -> list[str]:
    """The texts of a template that people read and that no catalogue will ever see."""
    tree = Environment(extensions=["jinja2.ext.i18n"], autoescape=True).parse(source)
    reader = _Reader()
    reader.feed("".join(_shown(tree)))
    reader.close()
    found = reader.found
    for kind in (nodes.For, nodes.Assign, nodes.With):
        for node in tree.find_all(kind):
            parts = (
                [node.iter]
                if isinstance(node, nodes.For)
                else [node.node]
                if isinstance(node, nodes.Assign)
                else node.values
            )
            found += [text for part in parts for text in _literals(part) if SENTENCE.fullmatch(text)]
    return found


def _shown(node: nodes.Node) -> Iterator[str]:
    """The page as it stands in the template; what is computed or translated becomes a mark."""
    if isinstance(node, nodes.TemplateData):
        yield node.data
    elif isinstance(node, nodes.Output):
        for child in node.nodes:
            yield from _printed(child)
    else:
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Stmt | nodes.Output | nodes.TemplateData):
                yield from _shown(child)


def _printed(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.TemplateData):
        yield node.data
    elif isinstance(node, nodes.Call | nodes.Filter) and not isinstance(node.node, nodes.Const | nodes.CondExpr):
        yield "\0"
    else:
        texts = _literals(node)
        yield from texts or ["\0"]


def _literals(node: nodes.Node) -> list[str]:
    """Texts of an expression that are not arguments of a call: those are looked up, or translated."""
    if isinstance(node, nodes.Const):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, nodes.Call | nodes.Getitem | nodes.Compare | nodes.Mod):  # Mod is a trans block
        return []
    if isinstance(node, nodes.CondExpr):
        return _literals(node.expr1) + (_literals(node.expr2) if node.expr2 else [])
    if isinstance(node, nodes.Filter):
        return _literals(node.node) if node.node else []
    return [text for child in node.iter_child_nodes() for text in _literals(child)]


class _Reader(HTMLParser):
    """Collects what is read of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._code += tag in ("code", "script", "style")
        for name, value in attrs:
            if name in SPOKEN:
                self._look(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._code:
            for part in data.split("\0"):
                self._look(part)

    def _look(self, text: str) -> None:
        words = " ".join(text.replace("\0", " ").split())
        if re.search(r"[A-Za-z]{2}", words) and words not in NAMES:
            self.found.append(words)


def bare_in_script(source: str) -> list[str]:
    """The sentences of a script: those belong into the page's template, which hands them over in data-words."""
    code = re.sub(r"^\s*//.*$|\s//\s.*$", "", source, flags=re.MULTILINE)
    texts = re.findall(r'"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`', code)
    plain = (re.sub(r"\$\{[^}]*\}", "", one or other).strip(" :,;") for one, other in texts)
    return [text for text in plain if SENTENCE.fullmatch(text) and text not in KEYS]


def unmarked() -> Iterator[str]:
    """Every text of templates and scripts that no catalogue will ever see, with its file."""
    for path in sorted((WEB / "templates").glob("*.html")):
        for text in bare(path.read_text(encoding="utf-8")):
            yield f'{path.relative_to(ROOT)}: write {{{{ _("{text}") }}}}'
    for path in sorted((WEB / "static").glob("*.js")):
        for text in bare_in_script(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(ROOT)}: {text!r} belongs into the template, which hands it over in data-words"


def main() -> int:
    arguments = argparse.ArgumentParser(description="Bring the catalogues of the pages up to date.")
    arguments.add_argument("--check", action="store_true", help="change nothing; exit 1 when something is wrong")
    options = arguments.parse_args()
    template, wrong = gathered(), list(unmarked())
    for path in sorted(FOLDER.glob("*.po")):
        catalogue = updated(path, template)
        wrong += [f"{path.name}: {complaint}" for complaint in complaints(catalogue)]
        if options.check and written(catalogue) != path.read_bytes():
            wrong.append(f"{path.name} is stale; scripts/make_catalogues.py writes it anew")
        if not options.check:
            path.write_bytes(written(catalogue))
    print("\n".join(wrong) or "catalogues: all up to date", file=sys.stderr if wrong else sys.stdout)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
