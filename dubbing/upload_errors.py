"""What somebody who sends files may be told; see errors.py for the tree they belong to."""

from __future__ import annotations

from dubbing.errors import DubbingError, MachineError


class UploadOffsetError(DubbingError):
    """The upload stands at byte {offset}, and the piece begins at {asked}."""

    code, retryable, exit_code, http_status = "upload_offset", True, 75, 409
    hint = "Go on from the byte that Upload-Offset names."


class UploadBusyError(DubbingError):
    """Another connection is sending this upload."""

    code, hint, retryable, exit_code, http_status = "upload_busy", "Wait a few seconds, then go on.", True, 75, 423


class ChecksumError(DubbingError):
    """The piece arrived damaged: its {algorithm} is another than was announced."""

    code, hint, retryable, exit_code, http_status = "checksum", "Send it again; nothing of it was kept.", True, 75, 460


class UploadTooLargeError(DubbingError):
    """What was sent is larger than the {limit} bytes that were announced or are allowed."""

    code, hint, exit_code, http_status = "upload_too_large", "Choose the file again.", 3, 413


class QuotaError(DubbingError):
    """The file has {need_mb} MB, and {free_mb} MB are left of your {quota_mb} MB."""

    code, exit_code, http_status = "quota", 3, 413
    hint = "Delete dubs that are no longer needed, or ask an administrator for more room."


class UploadRoomError(MachineError):
    """The server has {free_mb} MB left for uploads, and this file needs {need_mb} MB."""

    code, retryable, http_status = "upload_room", True, 507
    hint = "An administrator has to free some space; what was sent is kept until the upload ends."


class UploadUnfinishedError(DubbingError):
    """The file {name} has not arrived as a whole ({received} of {size} bytes)."""

    code, hint, retryable, exit_code, http_status = "upload_unfinished", "Let the upload end first.", True, 75, 409


class UploadInUseError(DubbingError):
    """The file {name} belongs to a dub."""

    code, hint, exit_code, http_status = "upload_in_use", "Delete the dub; the file goes with it.", 2, 409


class TusVersionError(DubbingError):
    """The upload protocol is tus 1.0.0, and the request speaks {version}."""

    code, hint, exit_code, http_status = "tus_version", "Send the header Tus-Resumable: 1.0.0.", 2, 412
