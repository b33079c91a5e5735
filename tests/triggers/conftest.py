"""Work counted by lines that run: what bounds it shows on any machine, however busy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def lines_run(request: pytest.FixtureRequest) -> Callable[[Callable[[], object]], int]:
    """Tell how many lines of the test's COUNTED, a module or package, an act runs."""
    file = Path(request.module.COUNTED.__file__)
    place = str(file.parent if file.name == "__init__.py" else file)

    def count_lines(act: Callable[[], object]) -> int:
        count = 0

        def trace(frame: Any, event: str, _: object) -> Any:
            nonlocal count
            if not frame.f_code.co_filename.startswith(place):
                return None
            count += event == "line"
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            act()
        finally:
            sys.settrace(before)
        return count

    return count_lines
