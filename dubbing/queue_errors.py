"""What the queue and those who run it may have to say; see errors.py for the tree they belong to."""

from __future__ import annotations

from dubbing.errors import DubbingError, MachineError


class JobStoppedError(DubbingError):
    """The job {name} was {state} by somebody else."""

    code, hint, exit_code, http_status = "job_stopped", "The same command takes it up again.", 6, 409


class ServerLostError(DubbingError):
    """{what} has not been heard of for {silent_s} s."""

    code, retryable, exit_code, http_status = "server_lost", True, 5, 503
    hint = "Jobs stay in the queue: start `dub serve` again; or give the same `dub run` again to dub here."


class RayLostError(DubbingError):
    """Ray went away, and `dub serve` with it (exit code {status})."""

    code, retryable, exit_code, http_status = "ray_lost", True, 5, 503
    hint = "Jobs stay in the queue. Start Ray again if it is not the server's own, then `dub serve`."


class QueueDownError(MachineError):
    """The queue at {address} does not answer: {detail}."""

    code, retryable, exit_code = "queue_down", True, 75
    hint = "Start Redis again; submitted jobs are kept and start then."


class QueueSetupError(MachineError):
    """The Redis at {address} cannot hold the queue: {detail}."""

    code, hint = "queue_setup", "{fix}"


class DispatcherHeldError(MachineError):
    """Another dispatcher holds {lock} ({holder})."""

    code, retryable, exit_code = "dispatcher_held", True, 75
    hint = "Only one dispatcher may run without Redis; stop the other first."
