"""The part of the error tree (errors.py) that is about fetching model weights."""

from __future__ import annotations

from dubbing.errors import DiskFullError, MachineError


class OfflineError(MachineError):
    """{name} would have to be fetched, and DUBBING_OFFLINE is on."""

    code = "offline"
    hint = "Unset DUBBING_OFFLINE, or bring the files: dub models fetch {name} --from FOLDER."


class HubDownError(MachineError):
    """The model hub {hub} does not answer as it should: {detail}."""

    code, retryable, exit_code = "hub_down", True, 75
    hint = "Try again later; what has arrived is kept. HF_ENDPOINT names another hub, such as a mirror."


class HubRefusedError(MachineError):
    """The model hub {hub} refuses {repo} ({detail})."""

    code = "hub_refused"
    hint = "Accept the licence on {hub}/{repo}, make a token for reading there, and set it as HF_TOKEN."


class HubMissingError(MachineError):
    """The model hub {hub} has no {what}."""

    code, hint = "hub_missing", "Check the revision, and HF_ENDPOINT if it is set."


class DownloadCutError(MachineError):
    """{file} of {name} ended after {got} of {size} bytes."""

    code, retryable, exit_code = "download_cut", True, 75
    hint = "The same command goes on where it stopped."


class WeightsHashError(MachineError):
    """{file} of {name} is not the file it should be: its SHA-256 is {found}, not {expected}."""

    code = "weights_hash"
    hint = "Nothing of it was kept. Try again; if it stays so, do not use these files and tell who serves them."


class WeightsSizeError(MachineError):
    """{file} of {name} is not the file it should be: more than {size} bytes came."""

    code, hint = "weights_size", "Nothing of it was kept. Try again; if it stays so, tell who serves the file."


class ModelsDiskError(DiskFullError):
    """{folder} has {free_mb} MB free, and {name} needs {need_mb} MB more."""

    code, hint = "models_disk_full", "Free some space, or set DUBBING_MODELS_DIR; what has arrived is kept."


class CatalogueError(MachineError):
    """The catalogue {path} cannot be used: {detail}."""

    code, hint = "catalogue", "docs/models.md shows what it looks like."
