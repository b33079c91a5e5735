"""`show`, `replay` and `ps` with children, sagas, generations, waits and attributes."""

import pytest

ORDERS = """
import triggerflow as tf

app = tf.App(store="sqlite:///shop.db", entry_points=False)


def charge(cents):
    return f"charged {cents}"


def refund(receipt, cents):
    return f"refunded {receipt}"


@app.flow
def parcel(to):
    yield tf.wait_signal("collected")
    return to


def ship(cents):
    yield tf.call(charge, cents).using(compensate=refund)
    yield tf.child("parcel", "Ann", key="parcel-ann")


@app.flow
def order(activity):
    yield tf.set_attributes(stage="packing", cents=activity["cents"])
    yield tf.spawn("parcel", "aunt")
    won = yield tf.race(ship(activity["cents"]), tf.wait_signal("cancel"))
    yield tf.set_attributes(stage="over")
    return won.index


@app.flow
def ledger(number):
    yield tf.wait_activity({"type": ["Shipped"]})
    yield tf.continue_as_new(number + 1)


@app.flow
def many(_):
    for number in range(21):
        yield tf.spawn("parcel", number)


app.trigger("order", on="Order", start=order)
"""

ORDER = {"type": "Order", "actor": "https://a.example/ann", "cents": 5900}
SHIPPED = {"type": "Shipped", "actor": "https://a.example/ann"}


@pytest.fixture
def ordered(project):
    """A project whose order waits for a child in a branch, beside a spawned one."""
    project.write(ORDERS)
    project.run("append", project.lines(ORDER), "--work")
    return project


def work(project):
    """Let what is runnable run."""
    project.run("append", project.lines(name="none.jsonl"), "--work")


def about(out, word):
    """The lines with a word."""
    return [line for line in out.splitlines() if word in line]


def test_show_has_the_children(ordered):
    """Each child stands there with its flow, status, key, and the tag that started it."""
    out = ordered.run("show", ordered.id_of("order")).stdout
    children = out.partition("\nchildren\n")[2].partition("\n\n")[0].splitlines()
    assert len(children) == 2
    assert "spawn:parcel#0" in children[0]
    for word in ("parcel/1", "waiting", "parcel-ann", "race#0[0]/child:parcel#0"):
        assert word in children[1]
    assert '"stage": "packing"' in about(out, "attributes")[0]
    found = ordered.json("show", ordered.id_of("order"))
    assert [each["key"] for each in found["children"]] == [None, "parcel-ann"]
    assert found["children"][0]["tag"] == "spawn:parcel#0"
    assert found["attributes"] == {"cents": 5900, "stage": "packing"}
    assert found["more_children"] is False


def test_show_says_which_child_is_waited_for(ordered):
    """A pending `child` names the instance that it waits for, and how that stands."""
    child = ordered.json_lines("ps", "--key", "parcel-ann")[0]["id"]
    out = ordered.run("show", ordered.id_of("order")).stdout
    (waits, _) = about(out, "race#0[0]/child:parcel#0")
    assert waits.endswith(f"child {child[:8]}, waiting")


def test_show_has_the_parent(ordered):
    """A child shows its parent's id, flow and status."""
    parent = ordered.id_of("order")
    (line,) = about(ordered.run("show", ordered.id_of("parcel")).stdout, "parent")
    assert line.split() == ["parent", parent, "order/1", "waiting"]


def test_show_of_many_children_tells_where_the_rest_is(ordered):
    """Twenty children are shown, and the command that lists all."""
    ordered.run("start", "many", "--work")
    out = ordered.run("show", ordered.id_of("many")).stdout
    assert len(about(out.partition("\nlog\n")[0], "parcel/1")) == 20
    (more,) = about(out, "and more:")
    words = more.partition("ps ")[2].split()
    assert len(ordered.run("ps", *words).stdout.splitlines()) == 22
    assert ordered.json("show", ordered.id_of("many"))["more_children"] is True


def test_a_child_ref_is_read_without_the_app(ordered):
    """What `spawn` gave is a value of triggerflow's own: no app is needed to show it."""
    words = ("--store", "sqlite:///shop.db", "show", ordered.id_of("order"))
    assert "can't be read here" not in ordered.run(*words, app=None).stdout


def test_replay_says_what_a_compensation_undoes(ordered):
    """A compensation's row names the call that it undoes, a child's row its instance."""
    order = ordered.id_of("order")
    waits = about(ordered.run("replay", order).stdout, "  race#0[0]/child:parcel#0")[0]
    child = ordered.json_lines("ps", "--key", "parcel-ann")[0]["id"]
    assert waits.endswith(f"child {child[:8]}")
    ordered.run("signal", order, "cancel")
    work(ordered)
    out = ordered.run("replay", order).stdout
    (undone,) = about(out, "compensate:refund#0")
    assert undone.endswith('undoes call:charge#0: "refunded charged 5900"')
    rows = {row["tag"]: row for row in ordered.json("replay", order)["entries"]}
    assert rows["race#0[0]/compensate:refund#0"]["undoes"] == "race#0[0]/call:charge#0"
    assert rows["spawn:parcel#0"]["child"] != child
    assert rows["race#0[0]/call:charge#0"]["child"] is None
    (cancelled,) = about(ordered.run("show", order).stdout, "parcel-ann")
    assert "cancelled" in cancelled


def test_generations_and_waits_for_activities(ordered):
    """A later generation says so; its wait shows the pattern, and from where it looks."""
    ordered.run("start", "ledger", "--input", "0", "--work")
    ordered.run("append", ordered.lines(SHIPPED), "--work")
    ledger = ordered.id_of("ledger")
    out = ordered.run("show", ledger).stdout
    assert about(out, "generation")[0].split()[:3] == ["generation", "2,", "begun"]
    assert not about(out, "started")
    (waits,) = about(out, "wait_activity#0")
    assert waits.endswith('{"type": ["Shipped"]}, after activity 2')
    (pending,) = ordered.json("show", ledger)["pending"]
    assert (pending["pattern"], pending["after"]) == ({"type": ["Shipped"]}, 2)
    assert ordered.run("replay", ledger).stdout.splitlines()[0].endswith("generation 2")


def test_ps_by_attribute(ordered):
    """Attributes narrow down; a number is a number, and several must all hold."""
    order = ordered.id_of("order")

    def found(*words):
        return [row["id"] for row in ordered.json_lines("ps", *words)]

    assert found("--attribute", "stage=packing") == [order]
    assert found("--attribute", "stage=packing", "--attribute", "cents=5900") == [order]
    assert found("--attribute", "stage=packing", "--attribute", "cents=1") == []
    assert found("--attribute", 'cents="5900"') == []
    assert "NAME=VALUE" in ordered.run("ps", "--attribute", "stage", status=2).stderr
