"""The index: from an activity to the triggers that it meets, as immutable generations."""

from __future__ import annotations

from triggerflow.triggers.index.generation import TriggerIndex as TriggerIndex

__all__ = ["TriggerIndex"]
