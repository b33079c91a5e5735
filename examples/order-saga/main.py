"""An order as a saga: pay, pack a parcel for each address, and undo it all if it is called off.

Run it twice. What it keeps in ``triggerflow.db`` makes the second run start nothing.
"""

import os
import shlex

import triggerflow as tf

app = tf.App()  # keeps everything in ./triggerflow.db

SHOP = "https://shop.example/"


# --- steps: plain functions with side effects, and those that undo them -----------------


def reserve(items):
    """Take goods off the shelf."""
    return f"{len(items)} from shelf 7"


def release(reserved, items):
    """Undo `reserve`: a compensation gets the step's result, then its arguments."""
    return f"{len(items)} back, were {reserved}"


def charge(card, cents):
    """Charge a card; a real one would hand on step_context().idempotency_key."""
    return f"{cents} from {card}"


def refund(receipt, card, cents):
    """Undo `charge`. The receipt is None where nobody knows whether it was charged."""
    return f"{cents} to {card}, for {receipt or 'what may have been charged'}"


def print_label(parcel):
    """Ask the courier for a label."""
    if parcel["to"] == "nowhere":
        raise ValueError("the courier knows no such address")
    return f"label for {parcel['to']}"


# --- flows: pure generators, re-driven from their log -----------------------------------


@app.flow
def parcel(packed):
    """A child for each parcel: it has a log and an end of its own."""
    label = yield tf.call(print_label, packed)
    yield tf.wait_signal("collected", timeout=tf.days(3))
    return label


def ship(ordered):
    """A branch: whatever it did is undone if it fails, or if it loses the race."""
    yield tf.call(reserve, ordered["items"]).using(compensate=release)
    yield tf.call(charge, ordered["card"], ordered["cents"]).using(
        compensate=refund, retry=tf.RetryPolicy(max_attempts=5)
    )
    parcels = [
        tf.child(parcel, {"order": ordered["id"], "to": to}, key=f"{ordered['id']} {to}")
        for to in ordered["to"]
    ]
    yield tf.gather(*parcels)


@app.flow(signals=["cancel"])
def order(activity):
    """Ship, unless the customer cancels first; tell the world how it ended."""
    ordered = activity["object"]
    yield tf.set_attributes(order=ordered["id"], stage="packing")
    try:
        won = yield tf.race(shipped=ship(ordered), cancelled=tf.wait_signal("cancel"))
        stage, reason = won.name, won.value
    except tf.ChildFailed as failed:
        stage, reason = "failed", failed.failure.message
    yield tf.set_attributes(stage=stage)
    if stage == "shipped":
        yield tf.emit({"type": "OrderShipped", "actor": SHOP, "object": ordered})
    return {"stage": stage, "reason": reason}


@app.flow
def ledger(so_far):
    """Count what was shipped, for ever: each activity is a generation with a short log."""
    yield tf.set_attributes(orders=so_far["orders"], cents=so_far["cents"])
    shipped = yield tf.wait_activity({"type": ["OrderShipped"], "actor": [SHOP]})
    yield tf.continue_as_new(
        {
            "orders": so_far["orders"] + 1,
            "cents": so_far["cents"] + shipped["object"]["cents"],
        }
    )


app.trigger("order", on="Order", start=order)

# --- what arrives -----------------------------------------------------------------------


def an_order(customer, cents, *to):
    """Make an activity: somebody orders."""
    return {
        "type": "Order",
        "actor": f"https://{customer}.example/",
        "object": {
            "id": f"order-{customer}",
            "items": ["rose", "spade"],
            "card": f"{customer}'s card",
            "cents": cents,
            "to": list(to),
        },
    }


ORDERS = [
    an_order("ann", 5900, "Ann", "Ann's aunt"),
    an_order("ben", 2500, "Ben"),
    an_order("cem", 1200, "Cem", "nowhere"),
    an_order("ann", 5900, "Ann", "Ann's aunt"),  # delivered twice, as the network does
]


def tell(client, instance):
    """Tell what came of an order, by its log and its children."""
    ended = client.wait(instance, timeout=30)
    reason = ended.result["reason"]
    print(
        f"\n{ended.attributes['order']}: {ended.result['stage']}",
        f"({reason})" if reason else "",
    )
    for entry in client.log(instance):
        kind, _, step = entry.tag.rpartition("/")[2].partition("#")[0].partition(":")
        if kind in ("call", "compensate"):
            print(
                f"  {'undone' if kind == 'compensate' else 'done':<9}  {step:<8}  {entry.value}"
            )
    for child in client.instances(parent=instance):
        print(f"  {child.status:<9}  {child.flow:<8}  to {child.input['to']}")


def main():
    """Append the orders, let a customer and the courier act, and tell what came of it."""
    print(f"store: {app.store}\n\nactivities appended:")
    with app.client() as client:
        books = client.start(ledger, {"orders": 0, "cents": 0}, key="books")
        orders = {}
        for activity in ORDERS:
            appended = client.append(activity)
            name = activity["object"]["id"]
            print(f"  {name}  {'duplicate' if appended.duplicate else 'starts order'}")
            orders[name] = appended.firings[0].instance_id
        client.run_until_idle()

        waiting = {each.key: each for each in client.instances(flow=parcel, status="waiting")}
        print(f"\nparcels that wait for the courier: {len(waiting)}")
        if "order-ben Ben" in waiting:
            print("  Ben cancels his order")
            client.signal(orders["order-ben"], "cancel", "changed my mind")
        for key, each in waiting.items():
            if each.parent == orders["order-ann"]:
                print(f"  the courier collects the parcel to {each.input['to']}")
                client.signal(key=key, name="collected")

        client.run_until_idle()
        for instance in orders.values():
            tell(client, instance)
        kept = client.get(books)
        print(f"\nthe ledger, in generation {kept.generation}: {kept.attributes}")

    here = shlex.quote(os.path.relpath(__file__))
    print("\nlook at one of them, and replay it from its log:")
    print(f"  triggerflow --app {here}:app show {orders['order-ben']}")
    print(f"  triggerflow --app {here}:app replay {orders['order-ben']}")


if __name__ == "__main__":
    main()
