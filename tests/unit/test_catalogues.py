"""Nothing that people read stays behind in one language: catalogues are whole, and pages hold no text that no catalogue sees."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys
from types import ModuleType

import pytest
from babel.messages.pofile import read_po

from dubbing.access_errors import WeakPasswordError
from dubbing.errors import DubbingError, ForbiddenError, NoAudioError, NotFoundError, StateConflictError, UsageError
from dubbing.web import words
from dubbing.web.catalogues import LANGUAGES, SOURCE, gettext, ngettext, speaking
from dubbing.web.interpreter import preferred
from tests.conftest import ROOT

SCRIPT = ROOT / "scripts" / "make_catalogues.py"


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_catalogues", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_sentence_is_marked_and_has_its_translation() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, f"{done.stderr}\nscripts/make_catalogues.py gathers them; then translate what is empty"


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("<h1>Users</h1>", ["Users"]),
        ("<p>{{ count }} of {{ all }}</p>", ["of"]),
        ('<input placeholder="Search by name">', ["Search by name"]),
        ('<nav aria-label="More {{ what }}">', ["More"]),
        ("<p>{{ 'Fix lines' if mine else _('All lines') }}</p>", ["Fix lines"]),
        ('{% for value, label in [("all", "All")] %}{{ label }}{% endfor %}', ["All"]),
        ('{% set label = "Show" %}{{ label }}', ["Show"]),
        ("{% if a %}<p>{% for b in c %}<b>Deep down</b>{% endfor %}</p>{% endif %}", ["Deep down"]),
        ("{% block title %}Lines of {{ job | title }}{% endblock %}", ["Lines of"]),
        ('<h1>{{ _("Users") }}</h1>', []),
        ('<p title="{{ _("A title") }}">{{ _("%(n)s left", n=left) }} <bdi>{{ name }}</bdi>, {{ time }}</p>', []),
        ("<p>{% trans count=n %}{{ count }} line{% pluralize %}{{ count }} lines{% endtrans %}</p>", []),
        (
            '<a href="/ui/jobs"{{ \' aria-current="true"\' | safe if here }} class="{{ "good" if ok else "bad" }}">1</a>',
            [],
        ),
        ('<option value="a"{{ " selected" if a }}>{{ names["Some key"] }}</option><code>dub serve</code>', []),
    ],
)
def test_text_of_a_template_that_no_catalogue_sees_is_found(make: ModuleType, template: str, found: list[str]) -> None:
    assert make.bare(template) == found


def test_sentences_of_a_script_are_found_and_its_names_are_not(make: ModuleType) -> None:
    script = """
      // Comments may say what they like.
      said.textContent = "Saved.";
      button.textContent = going ? `Pause ${name}` : words.resume;
      request.setRequestHeader("Upload-Offset", "PATCH"); document.querySelector("main p");
    """
    assert make.bare_in_script(script) == ["Saved.", "Pause"]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ('msgid "Save"\nmsgstr ""\n', "not translated: 'Save'"),
        ('#, fuzzy\nmsgid "Save"\nmsgstr "Guardar"\n', "marked as unsure (fuzzy): 'Save'"),
        ('msgid "%(n)s left"\nmsgstr "quedan %(m)s"\n', "other places than '%(n)s left' has: 'quedan %(m)s'"),
        ('msgid "Run {a}"\nmsgstr "Ejecute"\n', "other places than 'Run {a}' has: 'Ejecute'"),
        ('msgid "Call <code>x</code>"\nmsgstr "Llame x"\n', "other places than 'Call <code>x</code>' has: 'Llame x'"),
        ('msgid "a"\nmsgid_plural "b"\nmsgstr[0] "c"\nmsgstr[1] ""\n', "not translated: 'a'"),
        ('msgid "%(n)s of %(m)s"\nmsgstr "de %(m)s, %(n)s"\n', ""),
    ],
)
def test_what_is_wrong_with_a_catalogue_is_named(make: ModuleType, entry: str, complaint: str) -> None:
    head = 'msgid ""\nmsgstr ""\n"Plural-Forms: nplurals=2; plural=(n != 1);\\n"\n\n'
    catalogue = read_po(io.BytesIO((head + entry).encode()), locale="es")

    assert list(make.complaints(catalogue)) == [complaint] * bool(complaint)


def test_the_facts_of_errors_are_gathered_from_where_they_are_raised(make: ModuleType) -> None:
    source = (
        'raise NotFoundError(what=f"file of {upload.name!r}")\nraise ForbiddenError(role="a" if b else "c", action=d)'
    )

    assert sorted(make.facts(source)) == ["a", "c", "file of {upload1}"]


@pytest.mark.parametrize(
    ("header", "tag"),
    [
        ("", "en"),
        ("es", "es"),
        ("es-MX,es;q=0.9,en;q=0.8", "es"),
        ("en-GB,es;q=0.9", "en"),
        ("eu,ca;q=0.9,es;q=0.7,en;q=0.3", "es"),
        ("en;q=0.1, ES;q=0.2", "es"),
        ("es;q=0", "en"),
        ("fr", "en"),
        ("*", "en"),
        ("es;q=x, ;;,q", "en"),
    ],
)
def test_the_language_a_browser_likes_best_is_taken(header: str, tag: str) -> None:
    assert preferred(header) == tag


def test_every_language_says_what_english_says() -> None:
    assert list(LANGUAGES) == ["en", "es"]
    said = set()
    for tag in LANGUAGES:
        with speaking(tag):
            said.add((gettext("Log in"), ngettext("%(count)s warning", "%(count)s warnings", 2)))
    assert said == {("Log in", "%(count)s warnings"), ("Iniciar sesión", "%(count)s avisos")}
    assert gettext("Log in") == "Log in"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (WeakPasswordError(length=3, least=12), "La contraseña tiene 3 caracteres y se necesitan al menos 12"),
        (NotFoundError(what="such page"), "Aquí no existe: esa página"),
        (NotFoundError(what="job 4f1c"), "Aquí no existe: trabajo 4f1c"),
        (NotFoundError(what="dub of {x} <b> into eu"), "Aquí no existe: doblaje de {x} <b> al idioma eu"),
        (ForbiddenError(role="viewer", action="change anything"), "El rol «observador» no puede cambiar nada"),
        (UsageError(detail="No upload was named"), "No se indicó ninguna subida"),
        (UsageError(detail="limit: something new"), "limit: something new"),
        (
            StateConflictError(name="talk", state="done_with_warnings", action="paused"),
            "El trabajo talk está terminado con avisos, así que no puede ser pausado",
        ),
    ],
)
def test_an_error_is_said_in_the_language_of_the_page(error: DubbingError, message: str) -> None:
    with speaking("es"):
        assert words.message(error) == message
    with speaking(SOURCE):
        assert words.message(error) == error.message
        assert words.advice(error) == error.advice


def test_the_error_a_job_ended_with_is_said_in_the_language_of_the_page() -> None:
    told = NoAudioError(name="a {b} 100 %.mp4").as_dict()

    with speaking("es"):
        expected = "El archivo a {b} 100 %.mp4 no tiene ninguna pista de audio, así que no hay nada que doblar"
        assert words.message(told) == expected
        assert words.advice(told) == "Compruebe que se haya elegido el archivo correcto."
        assert words.message(told | {"message": "Older words"}) == "Older words"
    assert words.message(told) == told["message"]


def test_the_usual_warnings_of_a_report_are_said_in_the_language_of_the_page() -> None:
    warning = "es: 6 of 9 lines start more than a second late: 2, 3, 5, 6, 8, 9"
    with speaking("es"):
        assert words.remark(warning) == "es: 6 de 9 líneas empiezan más de un segundo tarde: 2, 3, 5, 6, 8, 9"
        assert words.remark("something nobody foresaw") == "something nobody foresaw"
    assert words.remark(warning) == warning


def test_remarks_are_the_ones_that_are_made() -> None:
    made = [ROOT / "dubbing" / path for path in ("stages/inspect.py", "stages/casting.py", "queue/choose.py")]
    source = "".join(path.read_text(encoding="utf-8") for path in made)

    for remark in words.REMARKS:
        fixed = max(re.split(r"\{\w+\}:?|^of |lines (?!were)", remark), key=len).strip(" :).")
        assert fixed in source, f"{remark!r} is made no longer"
