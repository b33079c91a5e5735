"""What the driver says of flows and values that it didn't write."""

from __future__ import annotations

from inspect import CO_GENERATOR
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from triggerflow.errors import EffectMisused

if TYPE_CHECKING:
    from triggerflow.core.effects import Effect


def raised_at(error: BaseException) -> str:
    """``file:line`` of the flow's own line from which the error came, or ""."""
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None and trace.tb_next.tb_frame.f_code.co_flags & CO_GENERATOR:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def not_an_effect(found: Any) -> EffectMisused:
    """What to say to a flow that yielded something else."""
    if isinstance(found, GeneratorType):
        return EffectMisused(
            f"yield {found.__name__}(...)",
            "a generator was yielded, expected an effect",
            "drive it with `yield from`, or pass it to gather or race",
        )
    return EffectMisused(
        f"yield {shown(found):.80}",
        f"found {type(found).__name__}, expected an effect such as tf.call(...)",
    )


def arguments_of(effect: Effect[Any]) -> str:
    """What the code passes now, where the log has another digest."""
    request = effect.request()
    if request is None:
        return ""
    args, kwargs = request
    listed = ", ".join(
        [*(shown(each) for each in args), *(f"{k}={shown(v)}" for k, v in kwargs.items())]
    )
    return (
        f"your code now passes ({listed:.300}); "
        "the log keeps only the digest of what it passed then"
    )


def short(digest: bytes | None) -> str:
    """A digest, as much of it as helps a reader."""
    return "none" if digest is None else digest.hex()[:12]


def shown(value: Any) -> str:
    """A value's repr, or its type where that raises."""
    # A foreign __repr__ may raise; the message matters more.
    try:
        return repr(value)
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__}>"
