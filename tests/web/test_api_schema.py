"""The API keeps to its own description, whatever it is asked (schemathesis, a few examples for each route)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dubbing.web.openapi import document
from tests.web.conftest import line_result, make_job, report_of
from tests.web.server import Running, served
from tests.web.site import Site

schema = schemathesis.openapi.from_dict(document())
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str, str]]:
    """A server, an administrator's session, and a job with files."""
    output = tmp_path_factory.mktemp("schema") / "Output"
    make_job(output, "talk", report_of({"es": [line_result(0, "hola")]}), es_mp4=b"film")
    with Site(output) as site, served(site) as server:
        yield server, site.session(), site.id_of("talk")


@schema.exclude(path="/api/v1/events").parametrize()
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_as_described(case: schemathesis.Case, running: tuple[Running, str, str]) -> None:
    server, secret, job = running
    if "job_id" in case.path_parameters and case.method != "DELETE":
        case.path_parameters["job_id"] = job
    case.call_and_validate(
        base_url=server.address,
        headers={"Cookie": f"dub_session={secret}", "Sec-Fetch-Site": "same-origin"},
        checks=CHECKS,
    )
