"""Failures as data: what a log keeps of an exception, and how it comes back as one."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow import errors
from triggerflow.core.tags import kind_of

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: Final = ("error", "timed_out", "overran", "cancelled")

# Enough for a deep library traceback; a failure must never outgrow the values around it.
_MAX_MESSAGE: Final = 8 * 1024
_MAX_TRACEBACK: Final = 32 * 1024


@attrs.frozen
class Failure:
    """What is left of an exception once it is written: text only, never an object.

    Attributes:
        type: qualified name of the exception's class, such as ``ValueError``.
        message: its text.
        traceback: its traceback as text, innermost call last; "" where there is none.
        kind: ``error``, ``timed_out`` (the effect's own timeout passed), ``overran`` (it
            did, and the attempt still runs) or ``cancelled`` (the flow ended through
            `FlowCancelled`).
    """

    type: str
    message: str
    traceback: str = ""
    kind: str = "error"

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """The record of an exception, its surrogates and its length made harmless."""
        kind = "error"
        if isinstance(error, errors.FlowCancelled):
            kind = "cancelled"
        elif isinstance(error, errors.TimedOut):
            kind = "overran" if error.still_running else "timed_out"
        return cls(
            type=_clean(type_name(type(error)), _MAX_MESSAGE),
            message=_clean(text_of(error), _MAX_MESSAGE),
            traceback=_clean(_traceback(error), _MAX_TRACEBACK),
            kind=kind,
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Failure:
        """The failure that `to_record` wrote."""
        return cls(
            record["type"],
            record["message"],
            record.get("traceback", ""),
            record.get("kind", "error"),
        )

    def of_child(self) -> Failure:
        """The same as the failure of a child: that it timed out is no timeout of its parent."""
        kind = "cancelled" if self.kind == "cancelled" else "error"
        return attrs.evolve(self, kind=kind)

    def to_record(self) -> dict[str, str]:
        """A plain dict, for the codec."""
        return {
            "type": self.type,
            "message": self.message,
            "traceback": self.traceback,
            "kind": self.kind,
        }

    def raised_at(self, tag: str, name: str) -> errors.TriggerflowError:
        """The exception that a flow sees at the yield whose entry is this failure."""
        if self.kind in ("timed_out", "overran"):
            return errors.TimedOut(tag, self.kind == "overran")
        failed: errors.TriggerflowError
        if kind_of(tag) in ("child", "join"):
            failed = errors.ChildFailed(name.partition(":")[2], self)
        else:
            failed = errors.StepFailed(name, self)
        failed.__cause__ = errors.StepError(self.type, self.message, self.traceback)
        return failed


def type_name(cls: type[BaseException]) -> str:
    """The qualified name of an exception class, as failures have it."""
    if cls.__module__ in {"builtins", "triggerflow.errors"}:
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


def text_of(error: BaseException) -> str:
    """Its text. A foreign ``__str__`` may raise; what failed must be told all the same."""
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001
        return f"<its text can't be read: {type(broken).__name__}>"


def _traceback(error: BaseException) -> str:
    if not (error.__traceback__ or error.__cause__ or error.__context__):
        # It was made and never raised, as every timeout is: type and message say it all.
        return ""
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # noqa: BLE001
        return ""


def _clean(text: str, limit: int) -> str:
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    if len(text) > limit:
        half = limit // 2
        out = len(text) - 2 * half
        text = f"{text[:half]}\n... {out} characters left out ...\n{text[-half:]}"
    return text
