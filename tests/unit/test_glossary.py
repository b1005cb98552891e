"""A glossary: what a file may look like, where a term stands in a text, and which targets it is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dubbing import glossary, orders
from dubbing.errors import DubbingError, EmptyFileError, FileMissingError, GlossaryError, UsageError
from dubbing.prepare import read_glossaries
from dubbing.types import DubRequest


def file(folder: Path, text: str | bytes, name: str = "terms.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "Ray,Ray\nreplica,réplica\n",
        "Ray\nreplica,réplica",
        "source,target\nRay,\nreplica , réplica\n\n# a comment\n",
        "Ray\tRay\nreplica\tréplica\n",
        "Ray;Ray\r\nreplica;réplica\r\n",
        '\ufeffRay\n"replica","réplica"',
    ],
)
def test_comma_tab_and_semicolon_are_understood_and_a_term_alone_is_kept(text: str, tmp_path: Path) -> None:
    assert glossary.read(file(tmp_path, text)) == (("Ray", "Ray"), ("replica", "réplica"))


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", EmptyFileError, "empty"),
        ("# nothing\n", EmptyFileError, "empty"),
        ("a,b\na,c\n", GlossaryError, "line 2 translates 'a' a second time"),
        ("a,b,c\n", GlossaryError, "line 1"),
        (",b\n", GlossaryError, "line 1"),
        ("a,b\n" + "x" * 101, GlossaryError, "line 2"),
        ('a,"b\n', GlossaryError, "unexpected end"),
        (b"caf\xe9,coffee\n", GlossaryError, "not UTF-8"),
        ("".join(f"t{i},u\n" for i in range(5001)), GlossaryError, "more than 5000"),
        (b"#" * (1 << 20) + b"#", GlossaryError, "larger than 1 MiB"),
    ],
)
def test_a_bad_file_is_refused_with_the_place(
    text: str | bytes, error: type[DubbingError], said: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said) as caught:
        glossary.read(file(tmp_path, text))
    assert "<" not in caught.value.message + caught.value.advice


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match=r"none\.csv"):
        glossary.read(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("term", "text", "stands"),
    [
        ("cluster", "A Cluster of nodes.", True),
        ("cluster", "Clusters of nodes.", False),
        ("Ray", "Ray's core, X-Ray", True),
        ("Ray", "an array of trays", False),
        ("C++", "We write C++.", True),
        ("head node", "The head node waits.", True),
        ("GPU", "我们用GPU训练", True),
        ("训练", "我们用GPU训练模型", True),
        ("café", "CAFÉ au lait", True),
    ],
)
def test_a_term_stands_in_a_text_as_a_word_of_its_own(term: str, text: str, stands: bool) -> None:
    assert bool(glossary.occurring(((term, "x"),), text)) is stands


def test_a_term_is_met_whatever_its_case_and_ending() -> None:
    terms = (("replica", "réplica"), ("Ray", "Ray"))
    assert glossary.unmet(terms, "Las Réplicas de Ray.") == []
    assert glossary.unmet(terms, "Las copias de Ray.") == ["réplica"]


def test_a_file_is_for_one_target_or_for_all(tmp_path: Path) -> None:
    kept = file(tmp_path, "Ray\nServe\n", "kept.csv")
    spanish = file(tmp_path, "replica,réplica\nServe,Servicio\n", "es.csv")
    assert read_glossaries([str(spanish)], ("es",)) == {"es": (("replica", "réplica"), ("Serve", "Servicio"))}
    assert read_glossaries([str(kept), f"es={spanish}"], ("es", "fr")) == {
        "es": (("Ray", "Ray"), ("Serve", "Servicio"), ("replica", "réplica")),
        "fr": (("Ray", "Ray"), ("Serve", "Serve")),
    }
    with pytest.raises(UsageError, match="With several languages say which one"):
        read_glossaries([str(spanish)], ("es", "fr"))
    with pytest.raises(UsageError, match="not among --to es"):
        read_glossaries([f"fr={spanish}"], ("es",))


def test_a_glossary_travels_with_the_order_and_orders_without_one_still_read() -> None:
    request = DubRequest(Path("a.mp4"), ("es",), Path("out"), glossary={"es": (("Ray", "Ray"), ("replica", "réplica"))})
    data = json.loads(json.dumps(orders.to_json(request)))
    assert orders.from_json(data) == request
    del data["glossary"]
    assert orders.from_json(data).glossary == {}
