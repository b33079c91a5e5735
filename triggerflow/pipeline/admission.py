"""What the controls of a trigger and of its flow ask, together, before an instance runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from triggerflow.core.admission_request import Admission, limits, request
from triggerflow.core.codec import VALUE_LIMITS

if TYPE_CHECKING:
    from triggerflow.flows.flow import Flow
    from triggerflow.triggers import Trigger

# What a gathered list may have: as much as a flow's input.
_MOST: Final = VALUE_LIMITS.size


def of_flow(flow: Flow | None, input: Any, namespace: str = "") -> Admission | None:
    """What a flow asks before an instance with this input runs; None if it asks nothing.

    A flow that isn't known here asks nothing: nobody here knows its limits.
    """
    if flow is None or flow.control is None:
        return None
    return request(
        flow.control,
        input,
        kind="flow",
        name=flow.name,
        version=str(flow.version),
        namespace=namespace,
        most=_MOST,
    )


def of_trigger(
    trigger: Trigger, flow: Flow | None, document: Any, input: Any
) -> Admission | None:
    """What a trigger and its flow ask before the flow runs.

    The trigger's places come first, in every request, and its priority counts where it has
    one.

    Args:
        document: the activity's, which the trigger's keys are read from.
        input: what the flow gets, which the flow's keys are read from.
    """
    control = trigger.control
    namespace = trigger.namespace
    if control is None:
        return of_flow(flow, input, namespace)
    asked = request(
        control,
        document,
        kind="trigger",
        name=trigger.name,
        version=trigger.trigger_cid,
        namespace=namespace,
        most=_MOST,
    )
    listed = asked.gather is not None and asked.gather.listed
    more = of_flow(flow, [input] if listed else input, namespace)
    if more is None:
        return asked
    return attrs.evolve(
        asked,
        places=asked.places + more.places,
        priority=asked.priority if control.priority else more.priority,
    )


def newest(asked: Admission, current: Trigger | None) -> Admission:
    """What an older spec of a trigger asks, with the limits that its name has now."""
    limits = {} if current is None else dict(limits_of(current))
    if not limits:
        return asked
    places = (
        attrs.evolve(place, limit=limits.get(place.scope, place.limit))
        for place in asked.places
    )
    return attrs.evolve(asked, places=tuple(places))


def limits_of(trigger: Trigger) -> tuple[tuple[str, int], ...]:
    """(scope, limit) of a trigger's places."""
    if trigger.control is None:
        return ()
    return limits(
        trigger.control, kind="trigger", name=trigger.name, namespace=trigger.namespace
    )
