"""Triggers: which activities start which flows. Pure: patterns, scopes, specs and the index."""

from __future__ import annotations

from triggerflow.triggers.cancel_on import CancelOn as CancelOn
from triggerflow.triggers.cancel_on import compile_cancel_on as compile_cancel_on
from triggerflow.triggers.delivery import Delivery as Delivery
from triggerflow.triggers.delivery import Position as Position
from triggerflow.triggers.guard import Guard as Guard
from triggerflow.triggers.index import TriggerIndex as TriggerIndex
from triggerflow.triggers.pattern import Pattern as Pattern
from triggerflow.triggers.pattern import compile_pattern as compile_pattern
from triggerflow.triggers.pivots import Looked as Looked
from triggerflow.triggers.pivots import Pivot as Pivot
from triggerflow.triggers.pivots import in_namespace as in_namespace
from triggerflow.triggers.pivots import pivots_of as pivots_of
from triggerflow.triggers.scope import Scope as Scope
from triggerflow.triggers.scope import compile_scope as compile_scope
from triggerflow.triggers.trigger import Trigger as Trigger
from triggerflow.triggers.trigger import define_trigger as define_trigger
from triggerflow.triggers.waits import Watch as Watch
from triggerflow.triggers.waits import wait_activity as wait_activity

__all__ = [
    "CancelOn",
    "Delivery",
    "Guard",
    "Looked",
    "Pattern",
    "Pivot",
    "Position",
    "Scope",
    "Trigger",
    "TriggerIndex",
    "Watch",
    "compile_cancel_on",
    "compile_pattern",
    "compile_scope",
    "define_trigger",
    "in_namespace",
    "pivots_of",
    "wait_activity",
]
