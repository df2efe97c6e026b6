"""The errors of Sluice, one tree.

SluiceError
├── Retryable                  the same call may succeed later
│   ├── ServiceUnavailable     a server does not answer, or not yet
│   ├── JobFailed              a Spark job failed for a reason that is not in the data
│   │   └── ScanFailed         Spark could not read a file; which one, and whether it is damaged, is not known yet
│   └── WaitTimedOut           a condition did not hold within its limit
└── Permanent                  the same call fails again until somebody changes something
    ├── UsageError             a command was called wrongly
    ├── NotRunning             the stack, or a service of it, is not up
    ├── SetupError             the machine lacks something the stack needs
    ├── ContractError          a dataset contract is not valid
    ├── UnknownDataset         no contract matches
    ├── BadEvent               a Kafka message is not an event that we know
    ├── BadWork                a work message or commit marker is not one of ours
    ├── BadManifest            an object is not the manifest of a set of files
    ├── ObjectGone             an object or a bucket that was asked for is not there
    ├── ObjectChanged          an object has other content than the version that was asked for
    ├── ObjectTooLarge         an object is above the size that the reader takes
    ├── StoreRefused           the object store refused a request: not allowed, or a name it cannot hold
    ├── DownloadFailed         a source file cannot be had, or is not what was promised
    ├── IllegalTransition      the ledger refused a change of state
    └── AccountingMismatch     rows in != rows accepted + rows rejected (I3)

Edges turn the errors of the libraries they wrap into these. A message says what happened, to which
object, what was expected and what to do next; it holds no row data and no credential.
"""

from __future__ import annotations


class SluiceError(Exception):
    """Base of all errors that Sluice raises on purpose.

    Attributes:
        context: the fields that the message was made of, for logs and `--json`.
    """

    def __init__(self, message: str, **context: object) -> None:
        super().__init__(message)
        self.message = message
        self.context = context


class Retryable(SluiceError):
    """The same call may succeed later without anybody changing anything."""


class Permanent(SluiceError):
    """The same call fails again until somebody changes something."""


class ServiceUnavailable(Retryable):
    """A server does not answer, or not yet, or does not let us in."""


class JobFailed(Retryable):
    """A Spark job failed for a reason that is not in the data of one file."""


class ScanFailed(JobFailed):
    """Spark could not read a file; which one, and whether it is damaged, is not known yet."""


class WaitTimedOut(Retryable):
    """A condition did not hold within its time limit."""


class UsageError(Permanent):
    """A command was called wrongly."""


class NotRunning(Permanent):
    """The stack, or a service of it, is not up."""


class SetupError(Permanent):
    """The machine lacks something that the stack needs."""


class ContractError(Permanent):
    """A dataset contract is not valid."""


class UnknownDataset(Permanent):
    """No contract matches the name or the object's key."""


class BadEvent(Permanent):
    """A Kafka message is not a bucket event that we know."""


class BadWork(Permanent):
    """A work message or a commit marker is not one of ours."""


class BadManifest(Permanent):
    """An object is not the manifest of a set of files."""


class ObjectGone(Permanent):
    """An object or a bucket that was asked for is not there."""


class ObjectChanged(Permanent):
    """An object has other content than the version that was asked for."""


class ObjectTooLarge(Permanent):
    """An object is above the size that the reader takes."""


class StoreRefused(Permanent):
    """The object store refused a request: not allowed, or a name it cannot hold."""


class DownloadFailed(Permanent):
    """A source file cannot be had, or is not what its server promised."""


class IllegalTransition(Permanent):
    """The ledger refused a change of state."""


class AccountingMismatch(Permanent):
    """Rows in is not rows accepted plus rows rejected (I3)."""
