"""Print every setting, its value and where it comes from, with passwords masked. Ends with one verdict line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import urlsplit

from dubbing import config
from dubbing.errors import SettingsError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-env-file", action="store_true", help="do not read .env")
    parser.add_argument("--no-secrets-file", action="store_true", help="do not read .env.secrets")
    given = parser.parse_args()
    try:
        settings = config.load(
            env_file=None if given.no_env_file else Path(".env"),
            secrets_file=None if given.no_secrets_file else Path(".env.secrets"),
        )
    except SettingsError as error:
        print(f"FAIL: {error.message}. {error.advice}")
        return 1
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        origin = "set" if name in settings.model_fields_set else "default"
        print(f"{field.validation_alias}={mask(value) if field.repr is False else value}  ({origin})")
    print(f"OK: {len(type(settings).model_fields)} settings are valid.")
    return 0


def mask(value: object) -> str:
    """A secret as it may be shown: of an address only the password is hidden, of anything else everything."""
    if value is None:
        return "None"
    if "://" not in str(value):
        return "***"
    parts = urlsplit(str(value))
    if parts.password is None and not parts.query:
        return str(value)
    user = f"{parts.username or ''}:***@" if parts.password is not None else ""
    query = "?***" if parts.query else ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{user}{parts.hostname or ''}{port}{parts.path}{query}"


if __name__ == "__main__":
    sys.exit(main())
