"""Flow definitions: what can be a flow, and the words for what can't."""

from __future__ import annotations

import functools
from typing import Any

import attrs
import pytest

from triggerflow.errors import DefinitionError
from triggerflow.flows import Flow, define_flow, flow


def welcome(activity: Any) -> Any:
    """A flow of one argument."""
    yield activity


def nothing() -> Any:
    """A flow of none."""
    yield 1


def test_a_generator_function_is_a_flow() -> None:
    """A flow has the function's name, version 1, and its file and line."""
    made = define_flow(welcome)
    assert (made.name, made.version, made.label) == ("welcome", 1, "welcome/1")
    assert made.fn is welcome
    assert made.location == f"{__file__}:{welcome.__code__.co_firstlineno}"
    assert len(made.code_hash) == 16
    assert int(made.code_hash, 16) >= 0


def test_name_and_version_can_be_given() -> None:
    """Name and version come from the definition where it has them."""
    made = define_flow(welcome, name="shop.welcome", version=7)
    assert (made.name, made.version) == ("shop.welcome", 7)


def test_the_decorator_has_two_forms() -> None:
    """``@flow`` and ``@flow(name=, version=)`` make a flow of the function below."""

    @flow
    def plain(activity: Any) -> Any:
        yield activity

    @flow(name="other", version=2)
    def named(activity: Any) -> Any:
        yield activity

    assert isinstance(plain, Flow)
    assert (plain.label, named.label) == ("plain/1", "other/2")


def test_a_flow_takes_its_input_or_nothing() -> None:
    """A flow function has one parameter, the input, or none; defaults don't count."""

    def with_default(activity: Any, limit: int = 3) -> Any:
        yield activity, limit

    def keyword_default(*, limit: int = 3) -> Any:
        yield limit

    def any_number(*args: Any) -> Any:
        yield args

    assert list(define_flow(welcome).begin("in")) == ["in"]
    assert list(define_flow(nothing).begin("in")) == [1]
    assert list(define_flow(with_default).begin("in")) == [("in", 3)]
    assert list(define_flow(keyword_default).begin("in")) == [3]
    assert list(define_flow(any_number).begin("in")) == [("in",)]


def test_a_flow_can_be_called_as_its_function() -> None:
    """Calling a flow calls its function, so that flows serve as sub-generators."""
    made = define_flow(welcome)
    assert list(made("in")) == ["in"]
    assert list(made(activity="in")) == ["in"]


def refusal(fn: Any, **parts: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        define_flow(fn, **parts)
    return str(caught.value)


def test_a_coroutine_function_is_refused_by_name() -> None:
    """An ``async def`` is refused: the message names it, its kind, and the way out."""

    async def greet(activity: Any) -> None:
        pass

    text = refusal(greet)
    assert "flow 'greet'" in text
    assert "greet is a coroutine function; a flow is a generator function" in text
    assert "`def`" in text


def test_an_async_generator_is_refused_by_name() -> None:
    """An async generator is refused: the message names it and its kind."""

    async def greet(activity: Any) -> Any:
        yield activity

    text = refusal(greet, name="greeting")
    assert "flow 'greeting'" in text
    assert "greet is an async generator" in text


def test_a_partial_of_a_coroutine_function_is_refused() -> None:
    """Wrapping doesn't hide an ``async def``."""

    async def greet(greeting: str, activity: Any) -> None:
        pass

    assert "coroutine function" in refusal(functools.partial(greet, "hi"), name="greet")


def two(first: Any, second: Any) -> Any:
    yield first, second


def keyword(activity: Any, *, limit: Any) -> Any:
    yield activity, limit


@pytest.mark.parametrize(
    ("fn", "names"), [(two, "first, second"), (keyword, "activity, limit")]
)
def test_more_than_one_parameter_is_refused(fn: Any, names: str) -> None:
    """A second required parameter is refused, and the message lists them."""
    text = refusal(fn)
    assert f"takes ({names}), expected one argument: the input" in text
    assert f"flow {fn.__name__!r}" in text


@pytest.mark.parametrize("name", ["", "a/b", "a#1", "a[0]", "b]", "tab\there", "nul\0", 7])
def test_a_bad_name_is_refused(name: Any) -> None:
    """Names that can't stand in a tag are refused, and shown."""
    text = refusal(welcome, name=name)
    assert repr(name) in text


@pytest.mark.parametrize("name", ["welcome", "shop.welcome-2", "gr\u00fc\u00dfen", "two words"])
def test_a_good_name_is_kept(name: str) -> None:
    """Any other name is fine, in any language."""
    assert define_flow(welcome, name=name).name == name


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None])
def test_a_bad_version_is_refused(version: Any) -> None:
    """Versions are whole numbers from 1 up; anything else is refused, and shown."""
    text = refusal(welcome, version=version)
    assert "flow 'welcome'" in text
    assert f"version is {version!r}, expected a whole number from 1 up" in text


def test_a_function_without_a_name_needs_one() -> None:
    """What has no name of its own must be given one."""

    @attrs.define
    class Callable:
        def __call__(self, activity: Any) -> Any:
            yield activity

    assert "expected a name" in refusal(Callable())
    made = define_flow(Callable(), name="callable")
    assert list(made.begin("in")) == ["in"]


def test_a_lambda_is_named_by_its_definition_only() -> None:
    """A generator behind a lambda is fine under a given name."""
    assert list(define_flow(lambda activity: welcome(activity), name="l").begin(1)) == [1]


def test_a_flow_is_no_function_any_more() -> None:
    """A flow can't be made a flow again, nor can what isn't callable."""
    assert "flow 'welcome'" in refusal(define_flow(welcome))
    assert "is a flow already" in refusal(define_flow(welcome))
    assert "found no function" in refusal("welcome")
