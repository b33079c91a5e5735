"""`@tf.transaction`: what it makes of a function, and what it refuses by name."""

from __future__ import annotations

import functools
import inspect
import sqlite3
from datetime import timedelta

import pytest

import triggerflow as tf
from triggerflow.core.transaction import DEFAULT_LIMIT, LONGEST, TransactionStep
from triggerflow.errors import DefinitionError


@tf.transaction
def book(tx: tf.Transaction, seat: str, who: str = "ann") -> dict[str, str]:
    """Book a seat."""
    tx.execute("INSERT INTO seats VALUES (?, ?)", (seat, who))
    return {"seat": seat}


def test_it_keeps_the_functions_face():
    """Name, docstring, module and source are the function's; tags take the name."""
    assert isinstance(book, TransactionStep)
    assert (book.__name__, book.__doc__) == ("book", "Book a seat.")
    assert inspect.unwrap(book) is book.fn
    assert book.__module__ == __name__
    assert tf.call(book, "4A").key == "call:book"
    assert repr(book) == "<transaction step book>"
    assert book.limit == DEFAULT_LIMIT


def test_name_and_timeout():
    """Both may be given; a timedelta is as good as seconds."""
    made = tf.transaction(timeout=timedelta(milliseconds=500), name="reserve")(lambda tx: None)
    assert (made.__name__, made.limit) == ("reserve", 0.5)
    assert tf.call(made).key == "call:reserve"
    assert tf.call(book, "4A").using(name="other").key == "call:other"


def test_the_function_can_be_called_by_itself():
    """A test of one's own needs no engine: any sqlite3 connection will do."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE seats (seat, who)")
    assert book(db, "4A", who="bob") == {"seat": "4A"}
    assert db.execute("SELECT * FROM seats").fetchall() == [("4A", "bob")]


def test_a_call_without_transaction_says_what_to_write():
    """Calling it in a flow, or wrapped in a partial, is told apart from a broken step."""
    with pytest.raises(
        DefinitionError, match=r"called with str.*yield tf.call\(book, \.\.\.\)"
    ):
        book("4A")
    assert not isinstance(functools.partial(book, seat="4A"), TransactionStep)


async def asynchronous(tx):
    pass


async def generates_async(tx):
    yield


def generates(tx):
    yield


class Callable:
    async def __call__(self, tx):
        pass


class Class:
    def method(self, tx):
        pass


REFUSED = {
    "a coroutine function": asynchronous,
    "an async generator function": generates_async,
    "a generator function": generates,
    "has no parameter for the transaction": lambda: None,
    "is a method": Class.method,
    "found 7, expected a plain function": 7,
    "found <transaction step book>": book,
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_cannot_be_one_is_refused_by_name(problem):
    """Async functions, generators, methods and the like, with what to do instead."""
    with pytest.raises(DefinitionError, match=problem) as caught:
        tf.transaction(name="step")(REFUSED[problem])
    assert "transaction step 'step'" in str(caught.value)


def test_an_async_callable_is_refused():
    """An object whose call is a coroutine function is no plain function either."""
    with pytest.raises(DefinitionError, match="is a coroutine function"):
        tf.transaction(name="step")(Callable())


@pytest.mark.parametrize("name", [None, "", "two words", "a/b"])
def test_it_needs_a_plain_name(name):
    """A lambda has none; a name that can't stand in a tag is refused."""
    with pytest.raises(DefinitionError, match="has no plain name"):
        tf.transaction(name=name)(lambda tx: None)


@pytest.mark.parametrize("timeout", [0, -1, LONGEST + 1, float("inf"), "1"])
def test_a_limit_has_limits(timeout):
    """Nobody else writes meanwhile, so a transaction is short."""
    with pytest.raises(DefinitionError, match="timeout"):
        tf.transaction(timeout=timeout)


def test_the_registration_lint_takes_it():
    """A flow that calls a transaction step registers without a warning."""
    app = tf.App("memory://", entry_points=False)

    @app.flow
    def f(seat):
        return (yield tf.call(book, seat))

    assert app.flows.get("f", 1).fn is f.fn
