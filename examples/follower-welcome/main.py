"""A follower welcome: somebody follows, is greeted, and may answer within a week.

Run it twice. What it keeps in ``triggerflow.db`` makes the second run start nothing.
"""

import os
from pathlib import Path

import triggerflow as tf

app = tf.App()  # keeps everything in ./triggerflow.db


# --- steps: plain functions with side effects, run at least once ------------------------


def fetch_profile(actor):
    """Look somebody up; a real one would ask the actor's server."""
    return {"name": actor["name"], "inbox": f"{actor['id']}/inbox"}


def send_note(inbox, text):
    """Send a note; a real one would post it, with step_context().idempotency_key."""
    return {"to": inbox, "text": text}


def count_follower(actor_id):
    """Add to the statistics; nothing to do here."""
    return actor_id


# --- flows: pure generators, re-driven from their log -----------------------------------


@app.flow
def welcome(activity):
    """Greet a person, and thank them if they answer within a week."""
    profile = yield tf.call(fetch_profile, activity["actor"]).using(
        retry=tf.RetryPolicy(max_attempts=5)
    )
    yield tf.call(send_note, profile["inbox"], f"Welcome, {profile['name']}!")
    reply = yield tf.wait_signal("reply", timeout=tf.days(7), default=None)
    if reply is not None:
        yield tf.call(send_note, profile["inbox"], "Thank you for your note.")
    return {"welcomed": profile["name"], "reply": reply}


@app.flow
def count(activity):
    """Count a follower of any kind."""
    counted = yield tf.call(count_follower, activity["actor"]["id"])
    return {"counted": counted}


# --- triggers: which activities start which flow ----------------------------------------

app.trigger(
    "welcome-person", on="Follow", match={"actor": {"type": ["Person"]}}, start=welcome
)
app.trigger("count-follower", on="Follow", start=count)

# --- what arrives -----------------------------------------------------------------------

GARDEN = "https://garden.example/"
ANN = {"type": "Person", "id": "https://a.example/ann", "name": "Ann"}
RELAY = {"type": "Service", "id": "https://b.example/relay", "name": "Relay"}
ANN_FOLLOWS = {"type": "Follow", "actor": ANN, "object": GARDEN}

ARRIVALS = [
    ("Ann follows", ANN_FOLLOWS),
    ("Relay follows", {"type": "Follow", "actor": RELAY, "object": GARDEN}),
    ("Ann likes", {"type": "Like", "actor": ANN, "object": GARDEN}),
    ("Ann follows", ANN_FOLLOWS),  # delivered twice, as the network does
]


def main():
    """Append what arrives, answer one welcome, and say how to look into it."""
    print(f"store: {app.store}\n\nactivities appended:")
    with app.client() as client:
        started, firings = 0, {}
        for label, activity in ARRIVALS:
            appended = client.append(activity)
            flows = [client.get(each.instance_id).flow for each in appended.firings]
            if appended.duplicate:
                note = "duplicate, starts nothing"
            else:
                note = f"starts {' and '.join(flows)}" if flows else "no trigger listens"
                started += len(flows)
            print(f"  {label:<14} {note}")
            firings.update((each.instance_id, label) for each in appended.firings)
        print(f"\nflows started: {started}")

        client.run_until_idle()
        for id in firings:
            if "wait_signal:reply#0" in client.get(id).waiting:
                print(f"  {id}  waits for a reply: sending one")
                client.signal(id, "reply", "Lovely garden!", dedup="first-reply")

        print("\nresults:")
        for id, label in firings.items():
            ended = client.wait(id, timeout=30)
            print(f"  {id}  {ended.flow:<8} {ended.status}  {ended.result}")

    welcomed = next(iter(firings))
    print(f"\nreplay one of them from its log:\n  {replay_command(welcomed)}")


def replay_command(id):
    """The command that replays an instance, for the directory that we are in."""
    here = Path(__file__).resolve().parent
    try:
        folders = here.relative_to(Path.cwd().resolve()).parts
    except ValueError:
        return f"PYTHONPATH={os.path.relpath(here)} triggerflow --app main:app replay {id}"
    return f"triggerflow --app {'.'.join((*folders, 'main'))}:app replay {id}"


if __name__ == "__main__":
    main()
