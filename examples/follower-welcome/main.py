"""A follower welcome: somebody follows, is greeted, and may answer within a week.

Run it twice. What it keeps in ``triggerflow.db`` makes the second run start nothing.
"""

import os
import shlex

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

app.trigger("welcome-person", on="Follow", match={"actor": {"type": ["Person"]}}, start=welcome)
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
        started, instances = 0, {}
        for label, activity in ARRIVALS:
            appended = client.append(activity)
            flows = [client.get(each.instance_id).flow for each in appended.firings]
            if appended.duplicate:
                note = "duplicate, starts nothing"
            else:
                note = f"starts {' and '.join(flows)}" if flows else "no trigger listens"
                started += len(flows)
            print(f"  {label:<14} {note}")
            instances.update(dict.fromkeys(each.instance_id for each in appended.firings))
        print(f"\nflows started: {started}")

        client.run_until_idle()
        for each in instances:
            if "wait_signal:reply#0" in client.get(each).waiting:
                print(f"  {each}  waits for a reply: sending one")
                client.signal(each, "reply", "Lovely garden!", dedup="first-reply")

        print("\nresults:")
        for each in instances:
            ended = client.wait(each, timeout=30)
            print(f"  {each}  {ended.flow:<8} {ended.status}  {ended.result}")

    welcomed, here = next(iter(instances)), shlex.quote(os.path.relpath(__file__))
    print("\nreplay one of them from its log:")
    print(f"  triggerflow --app {here}:app replay {welcomed}")


if __name__ == "__main__":
    main()
