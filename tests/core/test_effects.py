"""What builds effects: names, options, durations, and what is refused at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

import triggerflow as tf
from triggerflow.core.effects import MISSING
from triggerflow.core.tags import checked_name
from triggerflow.errors import DefinitionError


def charge(*args, **kwargs):
    """A step; nobody runs it here."""


class TestUsing:
    def test_it_returns_the_same_effect(self):
        """.using() is chained, keeps what was said before, and changes no arguments."""
        effect = tf.call(charge, 1, k=2)
        policy = tf.RetryPolicy()
        assert effect.using(timeout=timedelta(minutes=1)) is effect
        assert effect.using(retry=policy).using(name="pay") is effect
        options = effect.options
        assert (options.name, options.retry, options.timeout) == ("pay", policy, 60.0)
        assert effect.request() == ((1,), {"k": 2})
        assert effect.key == "call:pay"

    @pytest.mark.parametrize("fn", ["charge", None, 5])
    def test_only_what_can_be_called_is_a_step(self, fn):
        """What can't be called is refused at its yield, under a name of its own too."""
        for effect in (tf.call(fn), tf.call(fn).using(name="x")):
            with pytest.raises(DefinitionError, match="expected a function"):
                _ = effect.key

    def test_a_flow_is_no_step(self):
        """Who calls a flow like a step is told how flows are started."""
        with pytest.raises(DefinitionError, match=r"start it with child\(\.\.\.\)"):
            _ = tf.call(tf.flow(name="f")(charge)).key

    def test_it_leaves_other_effects_alone(self):
        """Options are one effect's own."""
        tf.call(charge).using(name="x", timeout=1)
        effect = tf.call(charge)
        assert (effect.key, effect.options.timeout) == ("call:charge", None)

    @pytest.mark.parametrize(
        "options",
        [
            {"name": "a/b"},
            {"name": "a#1"},
            {"name": "[a]"},
            {"name": ""},
            {"name": "a\nb"},
            {"name": 5},
            {"retry": 3},
            {"timeout": -1},
            {"timeout": "5"},
        ],
    )
    def test_refusals(self, options):
        """Options that can't work are refused where they are written."""
        with pytest.raises(DefinitionError, match="using"):
            tf.call(charge).using(**options)

    def test_steps_own_arguments(self):
        """A step may have parameters of any name; none of them is ours."""
        effect = tf.call(charge, retry=1, timeout=2, name=3, fn=4)
        assert effect.request()[1] == {"retry": 1, "timeout": 2, "name": 3, "fn": 4}


class TestNames:
    @pytest.mark.parametrize("name", ["a", "odd name", "größe", "a.b-c:d", "日本"])
    def test_allowed(self, name):
        """Any printable name without the marks of a tag."""
        assert checked_name(name, "x") == name

    @pytest.mark.parametrize(
        "name", ["", "a/b", "#", "[", "]", "\n", "\ud800", "\x7f", None, 5]
    )
    def test_refused(self, name):
        """Marks of a tag, control characters, surrogates, and what is no text."""
        with pytest.raises(DefinitionError):
            checked_name(name, "x")

    @pytest.mark.parametrize("name", ["0", "12", "a/b", "#"])
    def test_of_race_branches(self, name):
        """A named branch can't take a number's place, or tags would be ambiguous."""
        with pytest.raises(DefinitionError, match="race"):
            tf.race(tf.sleep(1), **{name: tf.sleep(2)})

    @pytest.mark.parametrize("names", ["", "a|b", "a/b", [], (), ["a", "a"], ["a", 5], 5, None])
    def test_of_signals(self, names):
        """Signal names are checked when the wait is built."""
        with pytest.raises(DefinitionError, match="wait_signal"):
            tf.wait_signal(names)

    def test_of_patches_and_side_effects(self):
        """Both are checked; a side effect of no plain name has one of ours."""
        with pytest.raises(DefinitionError, match="patched"):
            tf.patched("a/b")
        with pytest.raises(DefinitionError, match="side_effect"):
            tf.side_effect(charge, name="")
        assert tf.side_effect(lambda: 1).key == "side_effect:value"
        assert tf.side_effect(charge).key == "side_effect:charge"


class TestTimes:
    @pytest.mark.parametrize("wrong", [-1, None, "1", float("nan"), True, timedelta(-1)])
    def test_sleep_refuses(self, wrong):
        """A sleep has a finite length from 0 up."""
        with pytest.raises(DefinitionError, match="sleep"):
            tf.sleep(wrong)

    def test_due(self):
        """Timers are due after their length or at their moment; waits at their timeout."""
        assert tf.sleep(tf.days(1)).due(100.0) == 86500
        zone = timezone(timedelta(hours=2))
        moment = datetime(2030, 1, 1, 2, tzinfo=zone)
        assert tf.sleep_until(moment).due(5.0) == moment.timestamp()
        assert tf.sleep_until(datetime(2030, 1, 1, tzinfo=UTC)).due(5) == moment.timestamp()
        assert tf.sleep_until(17).due(100.0) == 17
        assert tf.wait_signal("x").due(1.0) is None
        assert tf.wait_signal("x", timeout=5).due(1.0) == 6

    def test_a_naive_moment(self):
        """Which zone a naive datetime means can't be known."""
        with pytest.raises(DefinitionError, match="naive"):
            tf.sleep_until(datetime(2030, 1, 1))  # noqa: DTZ001

    def test_a_default_needs_a_timeout(self):
        """A default= without timeout= would never come."""
        with pytest.raises(DefinitionError, match="timeout"):
            tf.wait_signal("x", default=None)
        assert tf.wait_signal("x", timeout=0, default=None).default is None
        assert tf.wait_signal("x").default is MISSING
        assert repr(MISSING) == "<no default>"


class TestDigests:
    def test_what_they_cover(self):
        """Arguments and signal names; never options, timeouts or durations."""
        assert tf.wait_signal(["a", "b"], timeout=1).request() == (("a", "b"), {})
        assert tf.wait_signal("a", timeout=1).request() == tf.wait_signal("a").request()
        assert tf.sleep(1).request() is None
        assert tf.sleep_until(1).request() is None
        assert tf.call(charge, 1).using(timeout=3).request() == tf.call(charge, 1).request()


class TestComposites:
    @pytest.mark.parametrize("part", [5, None, charge, [], "x", iter(())])
    def test_branches_are_effects_or_generators(self, part):
        """Anything else is refused with a word about what to do."""
        with pytest.raises(DefinitionError, match="expected an effect or a sub-generator"):
            tf.gather(tf.sleep(1), part)
        with pytest.raises(DefinitionError, match="without `yield`"):
            tf.race(a=part)

    def test_an_empty_race(self):
        """Nobody can win a race without branches."""
        with pytest.raises(DefinitionError, match="no branch"):
            tf.race()

    def test_a_flow_can_be_a_branch(self):
        """A registered flow called with its input is a sub-generator."""

        @tf.flow
        def sub(x):
            yield tf.sleep(x)

        assert len(tf.gather(sub(1), tf.sleep(2)).parts) == 2

    def test_descriptions(self):
        """Effects are told in words."""
        assert tf.call(charge).describe() == "call(charge)"
        assert tf.sleep(1).describe() == "sleep"
        assert tf.wait_signal(("a", "b")).describe() == "wait_signal:a|b"
