"""Print every setting, its value and where it comes from, with passwords masked. Ends with one verdict line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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
    for key, value, is_set in config.shown(settings):
        print(f"{key}={value}  ({'set' if is_set else 'default'})")
    print(f"OK: {len(type(settings).model_fields)} settings are valid.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
