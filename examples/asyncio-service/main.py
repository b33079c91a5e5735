"""A web service on asyncio: activities come in by HTTP, flows answer for them.

``uvicorn main:service`` serves it; so does any other ASGI server.
"""

import contextlib
import os

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

import triggerflow as tf

# --- what the service does --------------------------------------------------------------


def send_note(to, text):
    """Send a note; a real one would post it, with step_context().idempotency_key."""
    return {"to": to, "text": text}


@tf.flow
def welcome(activity):
    """Greet whoever follows, and wait a week for an answer."""
    yield tf.call(send_note, activity["actor"], "Welcome!")
    reply = yield tf.wait_signal("reply", timeout=tf.days(7), default=None)
    return {"welcomed": activity["actor"], "reply": reply}


# --- what it says over HTTP -------------------------------------------------------------


async def inbox(request):
    """Take an activity; the answer is sent once activity and instances are on disk."""
    try:
        activity = tf.parse_json(await request.body())
        appended = await request.app.state.client.append(activity)
    except (tf.DecodingRefused, tf.ActivityRejected, tf.EncodingRefused) as refused:
        return JSONResponse({"error": str(refused)}, status_code=400)
    firings = [
        {"trigger": each.trigger, "instance": each.instance_id, "error": each.error}
        for each in appended.firings
    ]
    return JSONResponse({"cid": appended.cid, "firings": firings}, status_code=202)


async def instance(request):
    """Tell how an instance stands; with ``?wait=5`` once it has ended, or in 5 seconds."""
    client, id = request.app.state.client, request.path_params["id"]
    try:
        if (wait := request.query_params.get("wait", "")).isdecimal():
            with contextlib.suppress(tf.WaitTimedOut):
                await client.wait(id, timeout=min(int(wait), 30))
        found = await client.get(id)
    except tf.UnknownInstance as unknown:
        return JSONResponse({"error": str(unknown)}, status_code=404)
    said = {"id": found.id, "flow": found.flow, "status": found.status}
    return JSONResponse(said | {"waiting": list(found.waiting), "result": found.result})


async def reply(request):
    """Hand an instance the reply that it waits for."""
    client, id = request.app.state.client, request.path_params["id"]
    try:
        await client.signal(id, "reply", (await request.body()).decode())
    except (tf.UnknownInstance, tf.InstanceEnded) as error:
        return JSONResponse({"error": str(error)}, status_code=404)
    return JSONResponse({}, status_code=202)


def make_service(store):
    """Put flows, store and routes together; nothing is opened before the server starts."""
    app = tf.App(store)
    app.register(welcome)
    app.trigger("welcome-follower", on="Follow", start=welcome)

    @contextlib.asynccontextmanager
    async def lifespan(service):
        async with app.asyncio_client() as client:
            service.state.client = client
            yield

    routes = [
        Route("/inbox", inbox, methods=["POST"]),
        Route("/instances/{id}", instance),
        Route("/instances/{id}/reply", reply, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


service = make_service(os.environ.get("TRIGGERFLOW_STORE", "sqlite:///triggerflow.db"))
