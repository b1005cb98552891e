from __future__ import annotations

import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlmodel import SQLModel

from dubbing import config
from dubbing.errors import BackupError, SchemaError, SettingsError, StoreError
from dubbing.jobs import Actor
from dubbing.store import Store, open_store
from dubbing.store.backup import backup, check, restore
from dubbing.store.database import MIGRATIONS, SCHEMA, check_sqlite, run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "dubbing.sqlite3"


def open_file(file: Path) -> Store:
    return Store(f"sqlite:///{file}")


def test_the_migrations_make_the_tables_the_program_declares(store: Store) -> None:
    with store.write() as connection:
        assert compare_metadata(MigrationContext.configure(connection), SQLModel.metadata) == []
    script = Config()
    script.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(script).get_current_head() == SCHEMA == store.schema_version()


def test_a_database_of_the_first_version_is_brought_up_to_date_with_its_jobs(url: str) -> None:
    where = make_url(url.replace("postgresql://", "postgresql+psycopg://", 1))
    if where.get_backend_name() == "sqlite":
        Path(str(where.database)).parent.mkdir()
    old = create_engine(where)
    with old.begin() as connection:
        script = Config()
        script.set_main_option("script_location", str(MIGRATIONS))
        script.attributes["connection"] = connection
        command.upgrade(script, "0001")
        connection.execute(text("INSERT INTO app_user (id, name, role) VALUES ('u1', 'ana', 'user')"))
        columns = "id, user_id, pool, priority, cost, state, max_attempts, request"
        values = "'j1', 'u1', 'cpu', 50, 1, 'pending', 5, '{\"source\": \"a.mp4\"}'"
        connection.execute(text(f"INSERT INTO job ({columns}) VALUES ({values})"))
    old.dispose()

    newer = Store(url)

    assert newer.schema_version() == SCHEMA
    job = newer.job(newer.user_by_name("ana").actor, "j1")
    assert (job.request, job.orphan_count, job.shared) == ({"source": "a.mp4"}, 0, False)
    newer.close()


def test_opening_twice_keeps_the_data(store: Store, url: str, ana: Actor) -> None:
    again = Store(url)
    assert again.user(ana.user_id).name == "ana"
    again.ping()
    again.close()


def test_a_database_of_a_newer_version_is_refused(store: Store, url: str) -> None:
    with store.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="9999"):
        Store(url)


def test_only_the_owner_can_read_the_files(file: Path) -> None:
    open_file(file).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_that_is_no_database_is_a_clear_error(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match=str(file)):
        open_file(file)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    with pytest.raises(StoreError):
        open_file(tmp_path / "state" / "x.sqlite3")


def test_a_database_server_that_is_not_there_is_a_clear_error_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Store(f"postgresql://me:secret@/x?host={tmp_path}")
    assert "secret" not in caught.value.message


def test_a_missing_driver_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(StoreError, match=r"pg8000 is not installed; pip install"):
        Store("postgresql+pg8000://me:secret@x/y")


def test_a_sqlite_that_is_too_old_is_named() -> None:
    check_sqlite(Path("jobs.sqlite3"), sqlite3.sqlite_version_info)
    with pytest.raises(StoreError, match=r"SQLite 3\.31\.1; 3\.35 or newer"):
        check_sqlite(Path("jobs.sqlite3"), (3, 31, 1))


def test_one_reading_sees_one_state_whatever_is_written_meanwhile(file: Path) -> None:
    store = open_file(file)
    with store.read() as connection:
        before = run(connection, "SELECT count(*) FROM app_user", {}).fetchone()
        store.add_user("ana")
        assert run(connection, "SELECT count(*) FROM app_user", {}).fetchone() == before
    store.close()


def test_an_error_of_the_driver_is_a_store_error(store: Store) -> None:
    with pytest.raises(StoreError), store.write() as connection:
        run(connection, "SELECT 1 FROM nowhere", {})
    store.ping()


def test_writers_wait_for_their_turn_instead_of_failing(file: Path) -> None:
    stores = [open_file(file) for _ in range(4)]
    actor = stores[0].add_user("ana").actor

    def write(store: Store) -> None:
        for _ in range(25):
            store.submit(actor, {})

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores[0].counts() == {"pending": 100}
    for store in stores:
        store.close()


def test_a_reader_cannot_write(file: Path) -> None:
    store = open_file(file)
    with pytest.raises(StoreError, match="readonly"), store.read() as connection:
        connection.execute(text("DELETE FROM job"))
    store.close()


def test_the_settings_say_which_database(tmp_path: Path) -> None:
    settings = config.load({"DUBBING_STATE_DIR": str(tmp_path / "s")}, None)
    store = open_store(settings)
    assert (tmp_path / "s" / "dubbing.sqlite3").is_file()
    store.close()
    for wrong in ("mysql://x", "sqlite://", "postgresql://"):
        with pytest.raises(SettingsError, match="DUBBING_DATABASE_URL"):
            config.load({"DUBBING_DATABASE_URL": wrong}, None)


def test_a_backup_of_a_database_in_use_can_be_checked_and_restored(file: Path, tmp_path: Path) -> None:
    store = open_file(file)
    actor = store.add_user("ana").actor
    job, _ = store.submit(actor, {"source": "a.mp4"})
    report = backup(file, tmp_path / "b.sqlite3")
    assert (report.schema, report.rows["job"], report.rows["app_user"]) == (SCHEMA, 1, 1)
    store.submit(actor, {"source": "lost.mp4"})
    with pytest.raises(BackupError, match="still uses"):
        restore(tmp_path / "b.sqlite3", file)
    store.close()
    assert restore(tmp_path / "b.sqlite3", file) == check(tmp_path / "b.sqlite3")
    store = open_file(file)
    assert [j.id for j in store.jobs(actor)] == [job.id]
    store.close()


def test_a_damaged_or_foreign_or_missing_backup_is_refused(file: Path, tmp_path: Path) -> None:
    open_file(file).close()
    good = tmp_path / "b.sqlite3"
    backup(file, good)
    with pytest.raises(BackupError, match="exists"):
        backup(file, good)
    with pytest.raises(BackupError, match="no database"):
        backup(tmp_path / "none", tmp_path / "c")
    with pytest.raises(BackupError, match="no such file"):
        check(tmp_path / "none")
    data = bytearray(good.read_bytes())
    data[4096:12288] = b"\xff" * 8192
    bad = tmp_path / "bad.sqlite3"
    bad.write_bytes(data)
    with pytest.raises(BackupError):
        check(bad)
    foreign = sqlite3.connect(tmp_path / "foreign.sqlite3")
    foreign.execute("CREATE TABLE t (x)")
    foreign.close()
    with pytest.raises(BackupError):
        restore(tmp_path / "foreign.sqlite3", file)
