"""`triggers` and its verbs, and files of triggers on the command line."""

import json
import tomllib

import pytest

import triggerflow as tf

FILE = """
[[trigger]]
name = "undo"
on = "Undo"
cancel = {flow = "simple", key = "$.object"}
guard = "sure@2"

[[trigger]]
name = "more"
on = "com.shop.*"
start = "simple"
input = {"who.$" = "$.actor"}
"""

GUARD = """

@app.guard(version=2)
def sure(document):
    return True
"""


@pytest.fixture
def shop(project):
    project.change('app.trigger("follow"', f'{GUARD}\n\napp.trigger("follow"')
    (project.path / "more.toml").write_text(FILE)
    return project


def names(shop, *words):
    return [row["name"] for row in shop.json_lines(*words, "triggers")]


@pytest.mark.parametrize("how", ["flag", "environment", "pyproject"])
def test_a_file_adds_triggers_to_the_app(shop, monkeypatch, how):
    """By flag, environment or pyproject.toml, as app and store are."""
    words = ()
    if how == "flag":
        words = ("--triggers", "more.toml")
    elif how == "environment":
        monkeypatch.setenv("TRIGGERFLOW_TRIGGERS", "more.toml")
    else:
        (shop.path / "pyproject.toml").write_text("[tool.triggerflow]\ntriggers='more.toml'\n")
    assert names(shop, *words) == ["follow", "like", "note", "undo", "more"]
    out = shop.run(*words, "triggers").stdout
    assert "cancels simple" in out
    assert "guard sure@2" in out


def test_a_file_that_can_not_work_is_told_by_line(shop):
    """File, line and trigger are named; so is the missing app."""
    (shop.path / "bad.toml").write_text(FILE + "\n[[trigger]]\nname = 'undo'\non = 'X'\n")
    said = shop.run("--triggers", "bad.toml", "triggers", status=1).stderr
    assert "bad.toml:14: trigger 'undo': is there twice, first at bad.toml:2" in said
    said = shop.run("--triggers", "more.toml", "triggers", app=None, status=1).stderr
    assert "--triggers more.toml: there is no app" in said


@pytest.mark.parametrize("kind", ["toml", "json"])
def test_an_export_loads_to_equal_cids(shop, kind):
    """What is exported may be taken in place of the code."""
    before = {
        row["name"]: row["cid"]
        for row in shop.json_lines("--triggers", "more.toml", "triggers")
    }
    flags = ["--json"] if kind == "json" else []
    text = shop.run("--triggers", "more.toml", "triggers", "--export", *flags).stdout
    (shop.path / f"all.{kind}").write_text(text)
    source = (shop.path / "shop.py").read_text()
    shop.write("\n".join(x for x in source.splitlines() if not x.startswith("app.trigger(")))
    after = {
        row["name"]: row["cid"]
        for row in shop.json_lines("--triggers", f"all.{kind}", "triggers")
    }
    assert after == before


def test_show(shop):
    """All fields of one; a misspelt name gets its neighbours."""
    out = shop.run("--triggers", "more.toml", "triggers", "show", "more").stdout
    assert '{"who.$": "$.actor"}' in out
    assert (
        "did you mean more?"
        in shop.run("--triggers", "more.toml", "triggers", "show", "mor", status=1).stderr
    )


def test_diff(shop):
    """Added, changed field by field, and not in the app; nothing is written by it."""
    shop.run("append", shop.lines({"type": "X", "actor": "a"}))
    assert shop.run("triggers", "diff").stdout == ""
    shop.change('app.trigger("like", on="Like", start=failing)', "")
    shop.change('on="Note"', 'on=["Note", "Memo"]')
    found = shop.json_lines("--triggers", "more.toml", "triggers", "diff")
    assert [(row["what"], row["trigger"], row["field"]) for row in found] == [
        ("changed", "note", "on"),
        ("added", "undo", ""),
        ("added", "more", ""),
        ("not in the app", "like", ""),
    ]
    assert found[0]["store"] == ["Note"]
    out = shop.run("triggers", "diff").stdout
    assert '["Note"] -> ["Memo", "Note"]' in out
    assert shop.run("triggers", "diff").stdout == out


def test_retire(shop):
    """A trigger that the app dropped is retired by name; one that it has is refused."""
    like = {"type": "Like", "actor": "a"}
    shop.run("append", shop.lines(like))
    said = shop.run("triggers", "retire", "like", status=1).stderr
    assert "this app defines the trigger" in said
    shop.change('app.trigger("like", on="Like", start=failing)', "")
    assert "1 firing" in shop.run("append", shop.lines({**like, "n": 2})).stdout
    assert shop.run("triggers", "retire", "like").stdout == "retired: like\n"
    assert "0 firings" in shop.run("append", shop.lines({**like, "n": 3})).stdout
    assert "no current trigger" in shop.run("triggers", "retire", "like", status=1).stderr


def test_a_trigger_that_can_not_be_read_is_listed(shop):
    """One of a newer triggerflow is shown as unreadable, with the reason; the rest as ever."""
    from triggerflow.core.codec import encode_document
    from triggerflow.store.records import NewTrigger
    from triggerflow.store.sqlite import SqliteStore

    store = SqliteStore(shop.path / "shop.db")
    store.open()
    spec = encode_document(
        {"name": "newer", "on": ["T"], "version": 1, "warp": 9, "start": "f"}
    )
    store.sync_triggers([NewTrigger("newer", tf.cid_of("newer"), spec, "m")], now=1.0)
    store.close()
    rows = {row["name"]: row for row in shop.json_lines("triggers")}
    assert rows["newer"]["state"] == "unreadable"
    assert "unknown fields: warp" in rows["newer"]["reason"]
    assert json.loads(shop.run("triggers", "--export", "--json").stdout)["trigger"]
    text = shop.run("--store", "sqlite:///shop.db", "triggers", "--export", app=None)
    assert "trigger 'newer' is left out" in text.stderr


def test_how_a_trigger_is_dispatched_is_shown_compared_and_exported(shop):
    """It is no part of the CID, and a file that lacked it would lose it."""
    head = "[[trigger]]\nname = 'more'\non = 'More'\nstart = 'simple'\n"
    rest = "control = {concurrency = {limit = 2, key = '$.k'}}\n"
    retry = "retry = {max_attempts = 4, initial = 9}\ndead_letter = 'simple'\n"
    (shop.path / "more.toml").write_text(head + rest)
    shop.run("--triggers", "more.toml", "append", shop.lines({"type": "X", "actor": "a"}))
    (shop.path / "more.toml").write_text(head + rest + retry)
    shop.forget()
    told = shop.run("--triggers", "more.toml", "triggers", "diff").stdout
    assert "dead_letter" in told
    assert "(none) -> " in told
    shop.run("--triggers", "more.toml", "append", shop.lines({"type": "Y", "actor": "a"}))
    assert "no difference" in shop.run("--triggers", "more.toml", "triggers", "diff").stderr
    shown = shop.run("triggers", "show", "more").stdout
    assert "max_attempts" in shown
    assert "concurrency" in shop.run("triggers").stdout
    text = shop.run("--store", "sqlite:///shop.db", "triggers", "--export", app=None).stdout
    (more,) = [each for each in tomllib.loads(text)["trigger"] if each["name"] == "more"]
    assert more["retry"]["max_attempts"] == 4
    assert more["dead_letter"] == "simple"
    assert more["control"] == {"concurrency": {"limit": 2, "key": "$.k"}}
