"""What proves a store or an app: checks, crashes and virtual time, for any test runner."""

from triggerflow.testing.check_store import check_store as check_store
from triggerflow.testing.crash import CrashReport as CrashReport
from triggerflow.testing.crash import crash_everywhere as crash_everywhere
from triggerflow.testing.store_checks.bench import STORE_CHECKS as STORE_CHECKS
from triggerflow.testing.time import run_virtually as run_virtually
from triggerflow.testing.time import virtual_settings as virtual_settings

__all__ = [
    "STORE_CHECKS",
    "CrashReport",
    "check_store",
    "crash_everywhere",
    "run_virtually",
    "virtual_settings",
]
