"""The service answers what its README says, without a server and without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from pathlib import Path

import httpx
import pytest

HERE = Path(__file__).resolve().parent
FOLLOW = {"type": "Follow", "actor": "https://a.example/ann", "object": "https://b.example/"}


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Run a scenario with a client of the service, started and stopped as a server would."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("asyncio_service", HERE / "main.py")
    main = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "asyncio_service", main)
    spec.loader.exec_module(main)

    def run(scenario):
        async def live():
            service = main.make_service(f"sqlite:///{tmp_path}/service.db")
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(asyncio.timeout(30))
                await stack.enter_async_context(service.router.lifespan_context(service))
                transport = httpx.ASGITransport(service)
                http = httpx.AsyncClient(transport=transport, base_url="http://test")
                return await scenario(await stack.enter_async_context(http))

        return asyncio.run(live())

    return run


def test_activity_is_taken_and_its_flow_runs_to_its_end(serve):
    """202 with CID and firings, the instance waits, a reply ends it, a later run knows it."""

    async def talk(http):
        taken = await http.post("/inbox", json=FOLLOW)
        assert taken.status_code == 202
        (firing,) = taken.json()["firings"]
        assert (firing["trigger"], firing["error"]) == ("welcome-follower", None)
        path = f"/instances/{firing['instance']}"
        assert (await http.get(path)).json()["status"] in {"running", "waiting"}
        assert (await http.post(f"{path}/reply", content="Thanks!")).status_code == 202
        ended = (await http.get(path, params={"wait": 20})).json()
        assert ended["result"] == {"welcomed": FOLLOW["actor"], "reply": "Thanks!"}
        assert (await http.post(f"{path}/reply", content="again")).status_code == 404
        return taken.json(), path

    async def later(http):
        return (await http.post("/inbox", json=FOLLOW)).json(), (await http.get(path)).json()

    taken, path = serve(talk)
    again, found = serve(later)
    assert again == taken
    assert found["status"] == "done"


def test_many_at_once_start_one_flow_for_each_activity(serve):
    """Senders that repeat themselves get the first answer."""

    async def talk(http):
        documents = [FOLLOW | {"object": f"https://b.example/{n % 20}"} for n in range(60)]
        return await asyncio.gather(*(http.post("/inbox", json=each) for each in documents))

    answers = [each.json() for each in serve(talk)]
    assert answers[:20] == answers[20:40] == answers[40:]
    assert len({each["firings"][0]["instance"] for each in answers}) == 20


def test_what_cannot_be_taken_is_refused(serve):
    """No JSON, no activity and no such instance are the caller's errors, in words."""

    async def talk(http):
        no_json = await http.post("/inbox", content=b"{")
        no_actor = await http.post("/inbox", json={"type": "Follow"})
        nobody = await http.get("/instances/nobody", params={"wait": 1})
        return no_json, no_actor, nobody

    no_json, no_actor, nobody = serve(talk)
    assert (no_json.status_code, no_actor.status_code, nobody.status_code) == (400, 400, 404)
    assert "actor" in no_actor.json()["error"]
    assert "nobody" in nobody.json()["error"]
