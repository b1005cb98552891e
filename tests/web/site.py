"""A web server's inside over an output folder, with users logged in and a row for every folder of a job."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path
from urllib.parse import unquote

from starlette.testclient import TestClient

from dubbing import config
from dubbing.jobs import Job
from dubbing.store import Fence, Store, User
from dubbing.web import app
from dubbing.web.identity import COOKIE
from dubbing.web.office import Office, open_office

BASE = "http://127.0.0.1:8000"
PASSWORD = "correct horse battery"


def add_job(
    store: Store,
    user: User,
    folder: Path,
    *,
    source: str = "",
    targets: tuple[str, ...] = ("es",),
    warned: bool = False,
) -> Job:
    """The row of a job that has ended in this folder."""
    request = {"source": f"/films/{source or folder.name}", "targets": list(targets)}
    job, _ = store.submit(user.actor, request, targets=targets)
    fence = Fence(job.id, job.epoch + 1, store.in_charge().backend_epoch)
    assert store.take(fence, owner="test", ttl_ms=60_000)
    result = {"report": str(folder / "report.json"), "files": {}, "warnings": ["one"] * warned}
    assert store.finish(fence, result, warned=warned)
    return store.job(user.actor, job.id)


class Site:
    """An office and its application, in this process. Use as a context."""

    def __init__(self, output: Path, **settings: str) -> None:
        values = {"DUBBING_OUTPUT_DIR": str(output), "QUEUE_MODE": "fallback"} | settings
        self.output = output
        self._opening = open_office(config.load(values, env_file=None, secrets_file=None))
        self.jobs: dict[str, str] = {}
        """Folder name -> job id."""

    def __enter__(self) -> Site:
        self.office: Office = self._opening.__enter__()
        self.app = app.build(self.office)
        return self

    def __exit__(self, *error: object) -> None:
        self._opening.__exit__(None, None, None)

    def user(self, name: str, role: str = "user") -> User:
        """A user with PASSWORD; made when there is none."""
        users = {user.name: user for user in self.office.store.users(_ROOT)}
        if name in users:
            return users[name]
        hashed = asyncio.run(self.office.identity.passwords.hash(PASSWORD))
        return self.office.store.add_user(name, role, hashed)  # type: ignore[arg-type]

    def client(self, name: str | None = "root", role: str = "admin", *, base: str = BASE) -> Client:
        """A browser, logged in as a user unless `name` is None; `/jobs/FOLDER...` leads to the page of that job."""
        client = Client(self, base)
        if name is not None:
            client.cookies.set(COOKIE, self.session(name, role))
        return client

    def session(self, name: str = "root", role: str = "admin") -> str:
        """The secret of a new session."""
        secret = secrets.token_urlsafe(32)
        self.office.store.open_session(self.user(name, role).id, secret)
        return secret

    def id_of(self, folder: str, owner: str = "root") -> str:
        """The id of the job in a folder of the output; its row is made when there is none."""
        if folder not in self.jobs:
            self.jobs[folder] = add_job(self.office.store, self.user(owner, "admin"), self.output / folder).id
        return self.jobs[folder]

    def path(self, address: str) -> str:
        """The address of a page whose job is named by its folder."""
        found = re.match(r"/jobs/([^/?#]+)", address)
        return f"/ui/jobs/{self.id_of(unquote(found[1]))}{address[found.end() :]}" if found else address


class Client(TestClient):
    """A browser without a screen: sends what browsers send of where a request came from."""

    def __init__(self, site: Site, base: str) -> None:
        self._site = site
        super().__init__(site.app, base_url=base, raise_server_exceptions=False, client=("127.0.0.1", 50_000))
        self.headers["Sec-Fetch-Site"] = "same-origin"

    def path_of(self, address: str) -> str:
        """See Site.path."""
        return self._site.path(address)

    def request(self, method, url, **options):  # type: ignore[no-untyped-def]
        """See TestClient; jobs may be named by their folders."""
        return super().request(method, self._site.path(str(url)), **options)


_ROOT = User("root", "root", "admin", None, False, 0).actor
