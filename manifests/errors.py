"""The error tree: the class of an error decides what happens next, its text tells a person what to do.

    MaquetteError               .exit_code
      JobError                  before any work: exit 2, one line per mistake
      InputError                a path or file the job names cannot be used: exit 2
      AssetError                this asset is unusable: skip it, record it, go on        (.asset_id)
        UnitError               height outside the gate, unknown unit
        TextureError            an image the asset refers to is missing or unreadable
      PhotoError                this photograph cannot be used: one decision row          (.code)
      TaskError                 this task failed: record it, go on                        (.task_id)
        WorkerLost              the process died: once more in a fresh worker
        TaskTimeout             past its deadline: killed, once more
        RenderError             Blender reported an error, its log attached: once more
      SampleRejected            the two engines disagree, or the frame is empty: counted, not an error
      StorageError              disk full, unreachable, not writable: stop the run, exit 3
        ShardError              a checksum or a count is wrong: stop the run, exit 3

A message says what happened, to which id, and what to do.
"""

from __future__ import annotations

DONE, FAILURES, BAD_JOB, STORAGE, INTERRUPTED = 0, 1, 2, 3, 130


class MaquetteError(Exception):
    """Root of the tree; ``exit_code`` is what the command line ends with when nothing handles it."""

    exit_code = FAILURES


class JobError(MaquetteError):
    """The job manifest is wrong; ``problems`` holds one line per mistake."""

    exit_code = BAD_JOB

    def __init__(self, problems: str | list[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else problems
        super().__init__("\n".join(self.problems))


class InputError(MaquetteError):
    """A folder, file or run that the user named is missing or of the wrong kind."""

    exit_code = BAD_JOB


class AssetError(MaquetteError):
    """An asset cannot be used; the run goes on without it. ``code`` is the reason code of its row in a scan."""

    def __init__(self, asset_id: str, message: str, code: str = "unreadable") -> None:
        self.asset_id = asset_id
        self.message = message
        self.code = code
        super().__init__(f"asset {asset_id}: {message}")

    def __reduce__(self) -> tuple[type[AssetError], tuple[str, str, str]]:
        return type(self), (self.asset_id, self.message, self.code)


class UnitError(AssetError):
    """The measured height is outside the gate."""


class TextureError(AssetError):
    """A texture is missing or unreadable."""


class PhotoError(MaquetteError):
    """A photograph cannot be decoded safely; ``code`` is the reason code of its decision row."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")

    def __reduce__(self) -> tuple[type[PhotoError], tuple[str, str]]:
        return type(self), (self.code, self.message)


class TaskError(MaquetteError):
    """A task did not finish."""

    def __init__(self, task_id: str, message: str) -> None:
        self.task_id = task_id
        self.message = message
        super().__init__(f"task {task_id}: {message}")

    def __reduce__(self) -> tuple[type[TaskError], tuple[str, str]]:
        return type(self), (self.task_id, self.message)


class WorkerLost(TaskError):
    """The worker process died."""


class TaskTimeout(TaskError):
    """The task ran past its deadline and was killed."""


class RenderError(TaskError):
    """Blender reported an error."""


class SampleRejected(MaquetteError):
    """A frame failed its own checks; it is never written."""

    def __init__(self, sample_id: str, reason: str) -> None:
        self.sample_id = sample_id
        self.reason = reason
        super().__init__(f"sample {sample_id}: {reason}")

    def __reduce__(self) -> tuple[type[SampleRejected], tuple[str, str]]:
        return type(self), (self.sample_id, self.reason)


class StorageError(MaquetteError):
    """Storage refused a read or write: disk full, no permission, unreachable."""

    exit_code = STORAGE


class MissingError(StorageError):
    """Storage answers, and has no such file or object."""


class ShardError(StorageError):
    """Stored bytes are not what was written."""
