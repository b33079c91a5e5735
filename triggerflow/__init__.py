"""triggerflow: an activity arrives, triggers match it, durable flows start, once.

The names below are the public face; everything else may change without notice. They load
when they are first used, so that defining flows needs neither trio nor a database.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from triggerflow.app import App as App
    from triggerflow.client import Client as Client
    from triggerflow.core.activity import Activity as Activity
    from triggerflow.core.admission import Batch as Batch
    from triggerflow.core.admission import Concurrency as Concurrency
    from triggerflow.core.admission import Control as Control
    from triggerflow.core.admission import Debounce as Debounce
    from triggerflow.core.admission import RateLimit as RateLimit
    from triggerflow.core.admission import Singleton as Singleton
    from triggerflow.core.admission import Throttle as Throttle
    from triggerflow.core.children import ChildRef as ChildRef
    from triggerflow.core.children import cancel as cancel
    from triggerflow.core.children import child as child
    from triggerflow.core.children import join as join
    from triggerflow.core.children import spawn as spawn
    from triggerflow.core.codec import CID as CID
    from triggerflow.core.codec import cid_of as cid_of
    from triggerflow.core.codec import decode_document as decode_document
    from triggerflow.core.codec import encode_document as encode_document
    from triggerflow.core.codec import parse_json as parse_json
    from triggerflow.core.driver import Replay as Replay
    from triggerflow.core.driver import drive as drive
    from triggerflow.core.durations import days as days
    from triggerflow.core.durations import hours as hours
    from triggerflow.core.durations import minutes as minutes
    from triggerflow.core.effects import Signal as Signal
    from triggerflow.core.effects import Won as Won
    from triggerflow.core.envelopes import Envelope as Envelope
    from triggerflow.core.envelopes import Head as Head
    from triggerflow.core.envelopes import Incoming as Incoming
    from triggerflow.core.envelopes import activity_cid as activity_cid
    from triggerflow.core.failure import Failure as Failure
    from triggerflow.core.log import Entry as Entry
    from triggerflow.core.log import Pending as Pending
    from triggerflow.core.messages import emit as emit
    from triggerflow.core.messages import set_attributes as set_attributes
    from triggerflow.core.messages import signal as signal
    from triggerflow.core.outcomes import Continued as Continued
    from triggerflow.core.outcomes import Done as Done
    from triggerflow.core.outcomes import Failed as Failed
    from triggerflow.core.outcomes import Suspended as Suspended
    from triggerflow.core.retry import RetryAfter as RetryAfter
    from triggerflow.core.retry import RetryPolicy as RetryPolicy
    from triggerflow.core.sagas import compensate as compensate
    from triggerflow.core.sagas import compensate_all as compensate_all
    from triggerflow.core.step import Step as Step
    from triggerflow.core.step import step as step
    from triggerflow.core.transaction import Transaction as Transaction
    from triggerflow.core.transaction import transaction as transaction
    from triggerflow.core.verbs import call as call
    from triggerflow.core.verbs import continue_as_new as continue_as_new
    from triggerflow.core.verbs import gather as gather
    from triggerflow.core.verbs import inbox as inbox
    from triggerflow.core.verbs import now as now
    from triggerflow.core.verbs import patched as patched
    from triggerflow.core.verbs import race as race
    from triggerflow.core.verbs import random as random
    from triggerflow.core.verbs import side_effect as side_effect
    from triggerflow.core.verbs import sleep as sleep
    from triggerflow.core.verbs import sleep_until as sleep_until
    from triggerflow.core.verbs import uuid4 as uuid4
    from triggerflow.core.verbs import wait_signal as wait_signal
    from triggerflow.engine.context import step_context as step_context
    from triggerflow.engine.draining import Drained as Drained
    from triggerflow.engine.engine import Engine as Engine
    from triggerflow.engine.explaining import Explained as Explained
    from triggerflow.engine.explaining import Explanation as Explanation
    from triggerflow.engine.patches import Patch as Patch
    from triggerflow.engine.statistics import Statistics as Statistics
    from triggerflow.engine.views import Appended as Appended
    from triggerflow.engine.views import Firing as Firing
    from triggerflow.engine.views import Instance as Instance
    from triggerflow.engine.views import Progress as Progress
    from triggerflow.engine.views import Rejected as Rejected
    from triggerflow.engine.views import Task as Task
    from triggerflow.engine.walks import Backfill as Backfill
    from triggerflow.engine.walks import Redispatched as Redispatched
    from triggerflow.errors import ActivityRejected as ActivityRejected
    from triggerflow.errors import AttemptOver as AttemptOver
    from triggerflow.errors import ChildFailed as ChildFailed
    from triggerflow.errors import DecodingRefused as DecodingRefused
    from triggerflow.errors import DefinitionError as DefinitionError
    from triggerflow.errors import Diverged as Diverged
    from triggerflow.errors import DuplicateTrigger as DuplicateTrigger
    from triggerflow.errors import EffectMisused as EffectMisused
    from triggerflow.errors import EncodingRefused as EncodingRefused
    from triggerflow.errors import EngineClosed as EngineClosed
    from triggerflow.errors import FlowCancelled as FlowCancelled
    from triggerflow.errors import FlowRanAway as FlowRanAway
    from triggerflow.errors import InstanceConflict as InstanceConflict
    from triggerflow.errors import InstanceEnded as InstanceEnded
    from triggerflow.errors import InstanceRemoved as InstanceRemoved
    from triggerflow.errors import InternalError as InternalError
    from triggerflow.errors import KeyTaken as KeyTaken
    from triggerflow.errors import NoStep as NoStep
    from triggerflow.errors import PatternError as PatternError
    from triggerflow.errors import PluginError as PluginError
    from triggerflow.errors import SchemaTooNew as SchemaTooNew
    from triggerflow.errors import SignalConflict as SignalConflict
    from triggerflow.errors import SignalRefused as SignalRefused
    from triggerflow.errors import StepError as StepError
    from triggerflow.errors import StepFailed as StepFailed
    from triggerflow.errors import StoreError as StoreError
    from triggerflow.errors import TimedOut as TimedOut
    from triggerflow.errors import TooDeep as TooDeep
    from triggerflow.errors import TransactionError as TransactionError
    from triggerflow.errors import TriggerflowError as TriggerflowError
    from triggerflow.errors import UnknownActivity as UnknownActivity
    from triggerflow.errors import UnknownFlow as UnknownFlow
    from triggerflow.errors import UnknownInstance as UnknownInstance
    from triggerflow.errors import UnknownTrigger as UnknownTrigger
    from triggerflow.errors import WaitTimedOut as WaitTimedOut
    from triggerflow.flows import Flow as Flow
    from triggerflow.flows import flow as flow
    from triggerflow.flows.lint import trusted as trusted
    from triggerflow.hooks import hookimpl as hookimpl
    from triggerflow.pipeline.reasons import Reason as Reason
    from triggerflow.store.records import Hold as Hold
    from triggerflow.triggers import Guard as Guard
    from triggerflow.triggers import Trigger as Trigger
    from triggerflow.triggers import compile_pattern as compile_pattern
    from triggerflow.triggers import define_trigger as define_trigger
    from triggerflow.triggers import wait_activity as wait_activity

_HOMES = {
    "triggerflow.app": ("App",),
    "triggerflow.client": ("Client",),
    "triggerflow.core.activity": ("Activity",),
    "triggerflow.core.admission": (
        "Batch",
        "Concurrency",
        "Control",
        "Debounce",
        "RateLimit",
        "Singleton",
        "Throttle",
    ),
    "triggerflow.core.children": ("ChildRef", "cancel", "child", "join", "spawn"),
    "triggerflow.core.codec": (
        "CID",
        "cid_of",
        "decode_document",
        "encode_document",
        "parse_json",
    ),
    "triggerflow.core.driver": ("Replay", "drive"),
    "triggerflow.core.durations": ("days", "hours", "minutes"),
    "triggerflow.core.effects": ("Signal", "Won"),
    "triggerflow.core.envelopes": ("Envelope", "Head", "Incoming", "activity_cid"),
    "triggerflow.core.failure": ("Failure",),
    "triggerflow.core.log": ("Entry", "Pending"),
    "triggerflow.core.messages": ("emit", "set_attributes", "signal"),
    "triggerflow.core.outcomes": ("Continued", "Done", "Failed", "Suspended"),
    "triggerflow.core.retry": ("RetryAfter", "RetryPolicy"),
    "triggerflow.core.sagas": ("compensate", "compensate_all"),
    "triggerflow.core.step": ("Step", "step"),
    "triggerflow.core.transaction": ("Transaction", "transaction"),
    "triggerflow.core.verbs": (
        "call",
        "continue_as_new",
        "gather",
        "inbox",
        "now",
        "patched",
        "race",
        "random",
        "side_effect",
        "sleep",
        "sleep_until",
        "uuid4",
        "wait_signal",
    ),
    "triggerflow.engine.context": ("step_context",),
    "triggerflow.engine.draining": ("Drained",),
    "triggerflow.engine.engine": ("Engine",),
    "triggerflow.engine.explaining": ("Explained", "Explanation"),
    "triggerflow.engine.patches": ("Patch",),
    "triggerflow.engine.statistics": ("Statistics",),
    "triggerflow.engine.views": (
        "Appended",
        "Firing",
        "Instance",
        "Progress",
        "Rejected",
        "Task",
    ),
    "triggerflow.engine.walks": ("Backfill", "Redispatched"),
    "triggerflow.errors": (
        "ActivityRejected",
        "AttemptOver",
        "ChildFailed",
        "DecodingRefused",
        "DefinitionError",
        "Diverged",
        "DuplicateTrigger",
        "EffectMisused",
        "EncodingRefused",
        "EngineClosed",
        "FlowCancelled",
        "FlowRanAway",
        "InstanceConflict",
        "InstanceEnded",
        "InstanceRemoved",
        "InternalError",
        "KeyTaken",
        "NoStep",
        "PatternError",
        "PluginError",
        "SchemaTooNew",
        "SignalConflict",
        "SignalRefused",
        "StepError",
        "StepFailed",
        "StoreError",
        "TimedOut",
        "TooDeep",
        "TransactionError",
        "TriggerflowError",
        "UnknownActivity",
        "UnknownFlow",
        "UnknownInstance",
        "UnknownTrigger",
        "WaitTimedOut",
    ),
    "triggerflow.flows": ("Flow", "flow"),
    "triggerflow.flows.lint": ("trusted",),
    "triggerflow.hooks": ("hookimpl",),
    "triggerflow.pipeline.reasons": ("Reason",),
    "triggerflow.store.records": ("Hold",),
    "triggerflow.triggers": (
        "Guard",
        "Trigger",
        "compile_pattern",
        "define_trigger",
        "wait_activity",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*_HOME_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("triggerflow")
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'triggerflow' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
