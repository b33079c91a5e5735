"""What effects give back, as classes: a log value too, returned or passed to a step."""

from __future__ import annotations

from typing import Final

from triggerflow.core.children import ChildRef
from triggerflow.core.effects import Signal, Won

OWN_CLASSES: Final[tuple[type, ...]] = (Signal, Won, ChildRef)
