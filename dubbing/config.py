"""Settings: read once from the environment (and an optional .env file), frozen, every field documented.

The only module that looks at the environment.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dubbing.errors import SettingsError

TEST_PREFIX = "DUBBING_TEST_"
SECRETS = ("database_url", "redis_url")
"""Addresses that may hold passwords."""


ENGINE_START_MIN = 30


class Settings(BaseSettings):
    """Everything that can be set from outside. A setting exists only where no default serves everybody."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    output_dir: Path = Field(
        Path("Output"),
        validation_alias="DUBBING_OUTPUT_DIR",
        description="Folder that holds one folder per job. On a cluster every node mounts it at the same path.",
    )
    log_dir: Path = Field(
        Path("logs"), validation_alias="DUBBING_LOG_DIR", description="Folder for the logs of the program itself."
    )
    state_dir: Path | None = Field(
        None,
        validation_alias="DUBBING_STATE_DIR",
        description="Folder for databases and for the address of a running server; default is _state in the output folder.",
    )
    models_dir: Path = Field(
        Path("~/.local/share/dubbing/models"),
        validation_alias="DUBBING_MODELS_DIR",
        description="Folder of model weights, one folder a model; every node that runs engines sees it at the same path.",
    )
    offline: bool = Field(
        False,
        validation_alias="DUBBING_OFFLINE",
        description="Never fetch weights, not even when a command asks for them.",
    )
    hub_url: str = Field(
        "https://huggingface.co",
        validation_alias="HF_ENDPOINT",
        pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$",
        description="Model hub that weights are fetched from: Hugging Face, or a mirror of it.",
    )
    hub_token: str | None = Field(
        None,
        validation_alias="HF_TOKEN",
        repr=False,
        description="Token for models whose licence must be accepted on the hub.",
    )
    quality: Literal["auto", "draft", "good", "best"] = Field(
        "auto",
        validation_alias="DUBBING_QUALITY",
        description="The one dial: draft needs no downloads, good and best need model weights, auto takes the best that is here.",
    )
    max_duration_min: int = Field(
        240,
        ge=1,
        le=1440,
        validation_alias="DUBBING_MAX_DURATION_MIN",
        description="Longest video accepted, minutes; guards the disk against forged and endless files.",
    )
    preview: bool = Field(
        True,
        validation_alias="DUBBING_PREVIEW",
        description="Make the first minutes of a long dub playable on its page while the rest is made.",
    )
    commercial_safe: bool = Field(
        False,
        validation_alias="DUBBING_COMMERCIAL_SAFE",
        description="Refuse engines whose licence forbids commercial use of program, weights or outputs.",
    )
    chat_url: str | None = Field(
        None,
        validation_alias="DUBBING_CHAT_URL",
        pattern=r"^https?://.",
        repr=False,
        description="Base address of an OpenAI-compatible service (https://host/v1) that the engine chat translates with.",
    )
    chat_model: str | None = Field(
        None, validation_alias="DUBBING_CHAT_MODEL", description="Name of the model the chat service is asked for."
    )
    chat_api_key: str | None = Field(
        None,
        validation_alias="DUBBING_CHAT_API_KEY",
        repr=False,
        description="Key of the chat service; unset sends none, as local services like it.",
    )
    url: str | None = Field(
        None,
        validation_alias="DUBBING_URL",
        pattern=r"^https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/%-]*)?$",
        description="Address of a dubbing-web (https://dub.example.net): `dub` then works on the jobs of that server, not of "
        "this machine; `dub run` stays here.",
    )
    api_key: str | None = Field(
        None,
        validation_alias="DUBBING_API_KEY",
        pattern=r"^[\x21-\x7e]+$",
        repr=False,
        description="API key that `dub` sends to the server of DUBBING_URL, and to no other.",
    )
    ray_address: str | None = Field(
        None,
        validation_alias="RAY_ADDRESS",
        description="A running Ray cluster to join (host:port); unset starts a private local Ray.",
    )
    serve_config: Path | None = Field(
        None,
        validation_alias="DUBBING_SERVE_CONFIG",
        description="Serve config to deploy; default is serve_configs/laptop.yaml of the installation.",
    )
    engine_start_min: int = Field(
        ENGINE_START_MIN,
        ge=1,
        le=1440,
        validation_alias="DUBBING_ENGINE_START_MIN",
        description="Longest wait for an engine to come up, minutes: a node to be rented, an image to be pulled and "
        "weights to be loaded take as long as the network makes them.",
    )
    serve_api_key: str | None = Field(
        None,
        validation_alias="DUBBING_SERVE_API_KEY",
        min_length=16,
        repr=False,
        description="Key that callers of the speech API send, 16 characters or more; unset keeps the API off.",
    )
    host: str = Field(
        "127.0.0.1",
        validation_alias="HOST",
        description="Address that dubbing-web listens on; with REMOTE_ACCESS_MODE=off anything but this machine's own "
        "lets private networks in.",
    )
    remote_access: Literal["off", "tailscale", "proxy"] = Field(
        "off",
        validation_alias="REMOTE_ACCESS_MODE",
        description="Who may reach dubbing-web: off is this machine (and private networks if HOST says so), tailscale the "
        "tailnet, proxy the addresses of DUBBING_TRUSTED_PROXIES.",
    )
    trusted_proxies: str = Field(
        "",
        validation_alias="DUBBING_TRUSTED_PROXIES",
        description="Addresses or networks, with commas between, whose X-Forwarded headers are believed in proxy mode.",
    )
    web_socket: Path | None = Field(
        None,
        validation_alias="DUBBING_WEB_SOCKET",
        description="Unix socket that dubbing-web takes requests on as well, for `tailscale serve`; its folder must be the "
        "server's own, with mode 0700.",
    )
    tailscale_login: bool = Field(
        False,
        validation_alias="DUBBING_TAILSCALE_LOGIN",
        description="Let in whom `tailscale serve` names, without a password, if a user has that login; on "
        "DUBBING_WEB_SOCKET only.",
    )
    admin_username: str | None = Field(
        None,
        validation_alias="ADMIN_USERNAME",
        description="First administrator, made at the first start together with ADMIN_PASSWORD; unset prints a setup link.",
    )
    admin_password: str | None = Field(
        None,
        validation_alias="ADMIN_PASSWORD",
        repr=False,
        description="Password of ADMIN_USERNAME, 12 characters or more; used only while there is no administrator.",
    )
    dashboard_url: str | None = Field(
        None,
        validation_alias="DUBBING_DASHBOARD_URL",
        pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$",
        description="Address of the Ray dashboard as administrators' browsers reach it, http://127.0.0.1:8265 say; job pages "
        "then lead administrators to the job's task there.",
    )
    port: int = Field(
        8000,
        ge=0,
        le=65535,
        validation_alias="PORT",
        description="Port that dubbing-web listens on; 0 takes a free one.",
    )

    database_url: str | None = Field(
        None,
        validation_alias="DUBBING_DATABASE_URL",
        pattern=r"^(sqlite:///.|postgresql(\+psycopg)?://.)",
        repr=False,
        description="postgresql://... when several machines share the jobs; default is SQLite in the state folder.",
    )
    queue_mode: Literal["auto", "redis", "fallback"] = Field(
        "auto",
        validation_alias="QUEUE_MODE",
        description="redis needs REDIS_URL, fallback is one dispatcher over SQLite, auto takes Redis if it answers.",
    )
    redis_url: str | None = Field(
        None,
        validation_alias="REDIS_URL",
        pattern=r"^(redis|rediss|unix)://",
        repr=False,
        description="Redis 6.2 or newer that orders the queue (redis://host:6379/0); unset means the SQLite queue.",
    )

    @property
    def state(self) -> Path:
        """Where the state databases are."""
        return self.state_dir or self.output_dir / "_state"

    def absolute(self) -> Settings:
        """The same settings for processes with another working directory."""
        paths = {name: getattr(self, name) for name in ("output_dir", "log_dir", "serve_config")}
        paths["models_dir"] = self.models_dir.expanduser()
        paths["web_socket"] = self.web_socket.expanduser() if self.web_socket else None
        paths["state_dir"] = self.state
        found: dict[str, object] = {name: path.resolve() for name, path in paths.items() if path is not None}
        scheme, _, rest = (self.database_url or "").partition(":///")
        if scheme == "sqlite":
            found["database_url"] = f"sqlite:///{Path(rest).resolve()}"
        return self.model_copy(update=found)

    def secrets(self) -> dict[str, str | None]:
        """The values that must not be shown or handed to who does not need them."""
        return {name: getattr(self, name) for name in SECRETS}

    def without_secrets(self) -> Settings:
        """The same settings for processes that touch neither the database nor Redis."""
        return self.model_copy(update=dict.fromkeys((*SECRETS, "api_key")))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values come in through `load` alone, so that nothing is read twice."""
        return (init_settings,)


def load(
    env: Mapping[str, str] | None = None,
    env_file: Path | None = Path(".env"),
    secrets_file: Path | None = Path(".env.secrets"),
) -> Settings:
    """Read the settings; `env` (default: the process's environment) wins over `secrets_file`, that over `env_file`.

    Raises SettingsError.
    """
    found: dict[str, str] = {}
    for file in (env_file, secrets_file):
        if file is not None and file.is_file():
            found |= {k: v for k, v in dotenv_values(file).items() if v is not None}
    found |= dict(os.environ if env is None else env)
    names = {str(f.validation_alias) for f in Settings.model_fields.values()}
    for key in sorted(found):
        if key.startswith("DUBBING_") and not key.startswith(TEST_PREFIX) and key not in names:
            near = difflib.get_close_matches(key, sorted(names), 1)
            fix = f"Did you mean {near[0]}?" if near else "Unset it; docs/settings.md lists what exists."
            raise SettingsError(key=key, value=found[key], expected="no such setting exists", fix=fix)
    values = {key: value for key, value in found.items() if key in names and value != ""}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        secret = any(f.repr is False for f in Settings.model_fields.values() if f.validation_alias == key)
        value = values.get(key)
        if value is not None and (secret or "://" in value):
            value = mask(value)
        raise SettingsError(
            key=key, value=value, expected=first["msg"], fix="Correct it or unset it for the default."
        ) from error


def mask(value: object) -> str:
    """A secret as it may be shown: of an address only the password is hidden, of anything else everything."""
    if value is None:
        return "None"
    if "://" not in str(value):
        return "***"
    try:
        parts = urlsplit(str(value))
    except ValueError:
        return "***"
    if parts.password is None and not parts.query:
        return str(value)
    user = f"{parts.username or ''}:***@" if parts.password is not None else ""
    query = "?***" if parts.query else ""
    return f"{parts.scheme}://{user}{parts.netloc.rpartition('@')[2]}{parts.path}{query}"


def shown(settings: Settings) -> list[tuple[str, str, bool]]:
    """Every setting as (name in the environment, value with secrets masked, whether it was set)."""
    found = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        text = mask(value) if field.repr is False else str(value)
        found.append((str(field.validation_alias), text, name in settings.model_fields_set))
    return found
