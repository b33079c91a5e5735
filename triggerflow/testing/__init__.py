"""What proves a store or an app: conformance checks that need no test runner."""

from triggerflow.testing.check_store import STORE_CHECKS as STORE_CHECKS
from triggerflow.testing.check_store import check_store as check_store

__all__ = ["STORE_CHECKS", "check_store"]
