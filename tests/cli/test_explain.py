"""`explain` and `firings` on the command line: what is said, and that nothing is written."""

import json
import os
import sqlite3
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2].parent / "shared" / "data"

FOLLOW = {"type": "Follow", "actor": "https://a.example/ann", "object": {"kimd": "club"}}

APP = """
import triggerflow as tf

app = tf.App(store="sqlite:///it.db", entry_points=False)


@app.flow
def keep(activity):
    yield tf.wait_signal("go")


@app.guard
def never(document):
    return False


app.trigger("yes", on="Follow", start=keep)
app.trigger("once", on="Follow", start=keep, dedup="$.actor")
app.trigger("shape", on="Follow", match={"object": {"kind": ["club"]}}, start=keep)
app.trigger("typo", on="follow", start=keep)
app.trigger("like", on="Like", start=keep)
app.trigger("who", on="Follow", actors=["https://*.other/*"], start=keep)
app.trigger("guarded", on="Follow", guard="never@1", start=keep)
app.trigger("mapped", on="Follow", input="$.nothing", start=keep)
"""


@pytest.fixture
def it(project):
    project.write(APP, "it")
    return project


def explain(it, *words, **more):
    return it.run("explain", *words, app="it", **more).stdout


def test_a_document_is_explained_as_if_it_were_appended(it):
    """What fires first, then the misses from the nearest; no store comes into being."""
    out = explain(it, it.lines(FOLLOW)).splitlines()
    assert out[0].startswith("Follow  by https://a.example/ann  bafy")
    assert out[0].endswith("not appended")
    rows = [line.split(maxsplit=2) for line in out[1:9]]
    assert [row[:2] for row in rows] == [
        ["starts", "yes"],
        ["starts", "once"],
        ["failed", "mapped"],
        ["guard", "guarded"],
        ["actors", "who"],
        ["pattern", "shape"],
        ["type", "typo"],
        ["1", "trigger"],
    ]
    assert rows[2][2] == "the activity has no $.nothing"
    assert 'match.object.kind: expected "club"' in rows[5][2]
    assert 'did you mean "kimd"?' in rows[5][2]
    assert rows[6][2] == "is on follow, this is Follow: did you mean Follow?"
    assert rows[7][2] == "is on other types"
    assert not (it.path / "it.db").exists()


def test_a_stored_activity_is_explained_with_what_came_of_it(it):
    """By CID and by --last; the past tense, and the instance that it started."""
    it.run("append", it.lines(FOLLOW, {**FOLLOW, "n": 2}), app="it")
    instance = it.run("ps", "--json", app="it").stdout
    assert instance
    out = explain(it, "--last", "1", "--trigger", "once").splitlines()
    assert out[0].endswith("appended as seq 2")
    assert out[1].split()[:2] == ["deduped", "once"]
    assert "came first, which led to" in out[1]
    first, second = (
        json.loads(line) for line in explain(it, "--last", "2", "--json").splitlines()
    )
    assert (first["seq"], second["seq"]) == (1, 2)
    assert first["cid"] in out[1]
    by_cid = explain(it, first["cid"])
    assert "started  yes" in by_cid
    assert "appended as seq 1" in by_cid


def test_explaining_writes_nothing(it):
    """The registry, the counts, even the file's bytes of data stay as they are."""
    it.run("append", it.lines(FOLLOW), app="it")
    it.write(APP.replace('on="Like"', 'on="Dislike"'), "it")

    def content():
        db = sqlite3.connect(it.path / "it.db")
        try:
            return list(db.iterdump())
        finally:
            db.close()

    before = content()
    explain(it, it.lines({**FOLLOW, "n": 2}))
    explain(it, "--last", "1")
    assert content() == before


def test_bad_lines_are_told_and_the_others_explained(it):
    """A line that an append would refuse is told with its reason; the exit status is 3."""
    name = it.lines(FOLLOW, "{bad", {"type": "Follow"}, FOLLOW)
    out = explain(it, name, status=3)
    assert "line 2: refused" in out
    assert "line 3: refused" in out
    assert "activity.actor is missing" in out
    assert "2 activities, 2 of them with a firing; by trigger:" in out


def test_a_document_on_several_lines_is_one(it):
    """A pretty-printed file is one document, as is stdin."""
    text = json.dumps(FOLLOW, indent=2)
    (it.path / "one.json").write_text(text)
    assert explain(it, "one.json") == explain(it, "-", input=text)
    assert "line" not in explain(it, "one.json").splitlines()[0]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 2, "name a file, a CID, or --last N"),
        (("in.jsonl", "--last", "1"), 2, "name a file, a CID, or --last N"),
        (("nowhere.jsonl",), 1, "there is no such file, and a CID begins with `baf`"),
        (("bafynone",), 1, "no activity 'bafynone' in this store"),
        (("in.jsonl", "--trigger", "shap"), 1, "no trigger 'shap'; there are shape"),
        (("in.jsonl", "--envelope", "cloudevent"), 1, "known: activitystreams, cloudevents"),
        (("--last", "1"), 1, "there is no such file yet"),
    ],
)
def test_what_can_not_be_explained(it, words, status, said):
    """Each mistake is one line that says what to do."""
    it.lines(FOLLOW)
    result = it.run("explain", *words, app="it", status=status)
    assert said in result.stderr


def test_words_beside_documents(it):
    """Envelopes, types and actors may be given for explain and append alike."""
    body = it.lines({"ref": "main"})
    words = ("--type", "Follow", "--actor", "https://b.other/ben", "--source", "hooks")
    assert "starts  who" in " ".join(explain(it, body, *words).split("  ")).replace(
        "   ", " "
    ) or ("who" in explain(it, body, *words))
    result = it.run("append", body, *words, app="it")
    assert result.stdout.startswith("1 activity appended")
    event = {"specversion": "1.0", "id": "1", "source": "https://b.other/x", "type": "Follow"}
    out = explain(it, it.lines(event), "--envelope", "cloudevents")
    assert out.startswith("Follow  by https://b.other/x")
    record = {
        "$type": "Follow",
        "subject": {"$link": json.loads(explain(it, "--last", "1", "--json"))["cid"]},
    }
    name = it.lines(record)
    out = explain(it, name, "--envelope", "atproto", "--actor", "did:web:b.other")
    assert out.startswith("Follow  by did:web:b.other")


def test_without_an_app_the_stores_triggers_are_explained(it):
    """A guard whose code isn't there is left to a worker."""
    it.run("append", it.lines(FOLLOW), app="it")
    words = ("--store", "sqlite:///it.db", "explain", it.lines({**FOLLOW, "n": 3}), "--json")
    found = json.loads(it.run(*words, app=None).stdout)
    fates = {each["trigger"]: each["outcome"] for each in found["triggers"]}
    assert fates["yes"] == "started"
    assert fates["once"] == "deduped"
    assert fates["guarded"] == "deferred"


def test_firings_are_listed(it):
    """The newest first, narrowed; what said no left none."""
    it.run("append", it.lines(FOLLOW, {**FOLLOW, "n": 2}), app="it")
    out = it.run("firings", app="it").stdout.splitlines()
    assert len(out) == 1 + 6
    assert out[1].split()[3:5] == ["mapped", "failed"]
    found = [
        json.loads(line)
        for line in it.run(
            "firings", "--outcome", "deduped", "--json", app="it"
        ).stdout.splitlines()
    ]
    assert [each["trigger"] for each in found] == ["once"]
    assert found[0]["earlier"]
    assert it.run("firings", "--trigger", "nobody", app="it").stdout == ""


def test_the_github_payloads_are_a_pleasure(it):
    """All 164 are explained, each in a few lines, with sums at the end."""
    path = DATA / "github-webhooks.jsonl"
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{path} is missing")
        pytest.skip(f"{path} is not here")
    out = explain(it, str(path)).splitlines()
    assert sum(line.startswith("github.") for line in out) == 164
    assert "164 activities, 0 of them with a firing; by trigger:" in out


def test_what_flow_control_would_do_is_explained(it):
    """Which instance it would join, or what limits it; and what it did."""
    source = (it.path / "it.py").read_text()
    parts = {
        "group": '{"batch": {"size": 3, "wait": 1000}}',
        "rate": '{"rate_limit": {"limit": 1, "period": 1000}}',
    }
    for name, control in parts.items():
        source += f'app.trigger("{name}", on="Note", start=keep, control={control})\n'
    it.write(source, "it")
    notes = [{"type": "Note", "actor": "ann", "n": n} for n in range(2)]
    it.run("append", it.lines(notes[0]), app="it")
    for verb in ("joins keep ", "joined keep "):
        out = explain(it, it.lines(notes[1]))
        rows = [line.split(maxsplit=2) for line in out.splitlines()]
        said = {row[1]: (row[0], row[2]) for row in rows if row[1:2] and row[1] in parts}
        assert said["group"][0] == "batched"
        assert said["group"][1].startswith(verb)
        assert said["rate"] == ("limited", "rate_limit: 1 in 1000 s is used up")
        it.run("append", it.lines(notes[1]), app="it")
