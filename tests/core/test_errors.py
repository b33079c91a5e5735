"""Every public error is data with a wording, and travels between processes."""

from __future__ import annotations

import copy
import inspect
import pickle

import attrs
import pytest

import triggerflow
from triggerflow import errors
from triggerflow.core.codec import ValueCodec
from triggerflow.core.failure import Failure
from triggerflow.core.retry import RetryAfter
from triggerflow.errors import TriggerflowError

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, BaseException) and cls.__module__ == errors.__name__
]
CLASSES.append(RetryAfter)

# Fields whose values no message can hold word by word.
UNSAID = {
    ("UnknownInstance", "id"),
    ("InstanceRemoved", "candidates"),
    ("UnknownActivity", "removed"),
    ("TimedOut", "still_running"),
    ("Diverged", "reason"),
}


def values_of(cls) -> dict:
    values: dict = {}
    for index, field in enumerate(attrs.fields(cls) if attrs.has(cls) else ()):
        annotation = str(field.type)
        if field.name == "failure":
            values[field.name] = Failure("OSError", "down", "Traceback")
        elif field.name == "nearby":
            values[field.name] = ((3, "call:a#3"),)
        elif annotation.startswith("tuple"):
            values[field.name] = (f"{field.name}-{index}",)
        elif "bool" in annotation:
            values[field.name] = True
        elif "float" in annotation or "int" in annotation:
            values[field.name] = 70 + index
        else:
            values[field.name] = f"{field.name}-{index}"
    return values


def made(cls):
    values = values_of(cls)
    return cls(**values) if values else cls("what happened")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
class TestEveryError:
    def test_it_pickles(self, cls):
        """Text and fields survive pickle, with every protocol, and copy."""
        error = made(cls)
        copies = [pickle.loads(pickle.dumps(error, p)) for p in range(2, 6)]
        for back in [*copies, copy.copy(error), copy.deepcopy(error)]:
            assert type(back) is cls
            assert str(back) == str(error)
            for name in values_of(cls):
                assert getattr(back, name) == getattr(error, name)

    def test_it_pickles_with_defaults(self, cls):
        """So it does where only the required fields are given."""
        if not attrs.has(cls):
            return
        needed = {f.name for f in attrs.fields(cls) if f.default is attrs.NOTHING}
        error = cls(**{k: v for k, v in values_of(cls).items() if k in needed})
        back = pickle.loads(pickle.dumps(error))
        assert str(back) == str(error)

    def test_its_text_names_its_fields(self, cls):
        """Whoever reads the text has the facts."""
        error = made(cls)
        text = str(error)
        assert text
        for name, value in values_of(cls).items():
            if (cls.__name__, name) in UNSAID:
                continue
            said = value
            if isinstance(value, Failure):
                said = value.message
            elif isinstance(value, tuple):
                said = value[0][1] if isinstance(value[0], tuple) else value[0]
            assert str(said) in text, name

    def test_it_is_one_of_ours(self, cls):
        """Each is a TriggerflowError, but the cancel that `except Exception` must miss."""
        if cls in (errors.FlowCancelled, errors.AttemptOver):
            assert not issubclass(cls, Exception)
        else:
            assert issubclass(cls, TriggerflowError)
        assert inspect.getdoc(cls)

    def test_it_can_be_recorded(self, cls):
        """Its record in a log can be written and read."""
        failure = Failure.of(made(cls))
        codec = ValueCodec()
        record = codec.decode(codec.encode(failure.to_record()))
        assert Failure.from_record(record) == failure
        assert failure.type.endswith(cls.__name__)

    def test_it_compares_by_identity(self, cls):
        """Two errors are never equal, and each can stand in a set."""
        assert made(cls) != made(cls)
        assert len({made(cls), made(cls)}) == 2


def test_the_face_has_them():
    """What a user can catch can be imported from the package."""
    for cls in CLASSES:
        if hasattr(triggerflow, cls.__name__):
            assert getattr(triggerflow, cls.__name__) is cls
    missing = {cls.__name__ for cls in CLASSES} - set(triggerflow.__all__)
    assert missing <= {"LeaseLost"}


def test_near_names():
    """An unknown flow is told with the names that it may have meant."""
    text = str(errors.UnknownFlow("welcom", 2, ("welcome", "goodbye")))
    assert "welcom version 2" in text
    assert "did you mean 'welcome'?" in text
    assert "known: a, b" in str(errors.UnknownFlow("xyz", None, ("b", "a")))
    assert "none is registered" in str(errors.UnknownFlow("xyz", None))


def test_instances_that_are_not_one():
    """A prefix that fits none, or several, is told apart."""
    assert "no instance 'ab'" in str(errors.UnknownInstance("ab"))
    assert "fits several: abc, abd" in str(errors.UnknownInstance("ab", ("abc", "abd")))
