"""Patterns: EventBridge event patterns, read at once and compiled to closures when needed."""

from __future__ import annotations

from triggerflow.triggers.pattern.compiled import Pattern as Pattern
from triggerflow.triggers.pattern.compiled import compile_pattern as compile_pattern
from triggerflow.triggers.pattern.conditions import Conditions as Conditions
from triggerflow.triggers.pattern.conditions import Leaf as Leaf
from triggerflow.triggers.pattern.explaining import Mismatch as Mismatch

__all__ = ["Conditions", "Leaf", "Mismatch", "Pattern", "compile_pattern"]
