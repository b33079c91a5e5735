"""Waits for activities: held against what was appended, in order, from where each begins.

A wait is a row of the commit that opened it. Whoever works goes through the activities page by
page, looks up the waits that are filed under what each page holds (see `triggers.pivots`), and
tells those that are met. All waits share one position in the store. A wait that began before
that position, or came while a page was looked at, catches up by itself first (see
`store.sqlite.waits`), so each gets its first activity and none is missed. Two workers may go
through at once: both go in order, and the row is closed by the first hit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import attrs
import trio

from triggerflow.engine.sighted import Page, Sighted
from triggerflow.store.operations import Outcome
from triggerflow.store.waits import Hit, Watched
from triggerflow.triggers import Looked, Pivot, Watch

if TYPE_CHECKING:
    from triggerflow.core.codec import ValueCodec
    from triggerflow.engine.clock import Clock
    from triggerflow.engine.committer import Committer
    from triggerflow.engine.reader import Reader
    from triggerflow.store.protocol import Store
    from triggerflow.store.records import ActivityRecord
    from triggerflow.store.waits import Standing, WaitRecord

log: Final = logging.getLogger("triggerflow")

# Activities that are looked at together.
_PAGE: Final = 200
# Waits that are read together, and pivots under which they are looked up.
_WAITS: Final = 500
_PIVOTS: Final = 1000
# So many hits, or bytes of what they carry, are one commit.
_HITS: Final = 100
_LARGEST: Final = 4 * 1024 * 1024
# So many activities that met nothing are looked at before that is written down.
_AHEAD: Final = 1000
_COMPILED: Final = 1000
# Larger pages, in bytes, are decoded off the loop, and no longer than this, in seconds, are
# waits held against one without letting others run.
_HEAVY: Final = 64 * 1024
_SLICE: Final = 0.005


@attrs.define
class _Ahead:
    """What is known beyond the store's position.

    Attributes:
        since: the store's position when this began.
        position: all activities up to here were held against every wait that didn't catch up
            and isn't newer than `newest`; none was met since the last commit.
    """

    since: int
    position: int
    newest: int


@attrs.define
class _Found:
    """What is to be told and isn't yet."""

    hits: list[Hit] = attrs.field(factory=list)
    passed_over: list[int] = attrs.field(factory=list)
    size: int = 0

    @property
    def full(self) -> bool:
        return len(self.hits) + len(self.passed_over) >= _HITS or self.size >= _LARGEST


class Watching:
    """Scans activities for the waits that they meet. Runs on the loop's thread.

    Attributes:
        open: there may be open waits.
    """

    def __init__(
        self,
        *,
        store: Store,
        committer: Committer,
        reader: Reader,
        codec: ValueCodec,
        clock: Clock,
        inline: bool,
        told: Callable[[Outcome], None],
    ) -> None:
        """
        Args:
            inline: use no threads.
            told: called with the outcome of each commit of hits.
        """
        self.open = True
        self._store = store
        self._committer = committer
        self._reader = reader
        self._codec = codec
        self._clock = clock
        self._inline = inline
        self._told = told
        self._ahead: _Ahead | None = None
        self._watch = lru_cache(_COMPILED)(self._compiled)
        self._warned: set[int] = set()
        self._broken: set[int] = set()
        self._rested = 0.0
        self._one = trio.CapacityLimiter(1)

    async def scan(self) -> None:
        """Hold the open waits against all activities that they have not seen."""
        while await self._round():
            pass

    async def _round(self) -> bool:
        """A page of each kind, so that none holds up another; whether there may be more."""
        # Whoever opens one from here on says so.
        self.open = False
        standing = await self._reader.ask(self._store.standing)
        if standing.paths == ():
            self._ahead = None
            return False
        self.open = True
        more = False
        if standing.behind:
            more = await self._catch_up(nearest_first=False)
            more = await self._catch_up(nearest_first=True) or more
        return await self._go_on(standing) or more

    # --- waits that are behind

    async def _catch_up(self, *, nearest_first: bool) -> bool:
        """Hold a page of activities against waits that are about as far as one another."""
        group = await self._behind(nearest_first)
        if not group:
            return False
        if nearest_first:
            first = group[0][0].scanned - _PAGE
            group = [each for each in group if each[0].scanned >= first]
        paths = {path for wait, watch in group for path, _ in watch.pivots_in(wait.namespace)}
        page = await self._page(min(wait.scanned for wait, _ in group), Looked(paths))
        if page is None:
            return False
        found = _Found()
        caught_up = []
        for wait, watch in group:
            met = self._first(page, wait, watch, None, found)
            if met is not None:
                self._hit(found, wait, met, wait.scanned)
            elif wait.id not in found.passed_over:
                caught_up.append(wait.id)
            if found.full:
                await self._tell(page, found)
            await self._breathe()
        await self._commit(
            Watched(
                page.last,
                self._clock.now(),
                hits=tuple(found.hits),
                caught_up=tuple(caught_up),
            )
        )
        return True

    async def _behind(self, nearest_first: bool) -> list[tuple[WaitRecord, Watch]]:
        """The first of them that can be read here."""
        found: list[tuple[WaitRecord, Watch]] = []
        after = None
        while not found:
            rows = await self._reader.ask(
                lambda after=after: self._store.waits_behind(  # type: ignore[misc]
                    after, _WAITS, nearest_first=nearest_first
                )
            )
            for wait in rows:
                watch = self._read(wait)
                if watch is not None:
                    found.append((wait, watch))
            if len(rows) < _WAITS:
                break
            after = rows[-1].scanned, rows[-1].id
        return found

    # --- all others

    async def _go_on(self, standing: Standing) -> bool:
        """Hold the next page of activities against all waits that aren't behind."""
        ahead = self._ahead
        if ahead is not None and ahead.newest != standing.newest:
            # What was opened meanwhile has to catch up with what is known.
            self._ahead = None
            if ahead.position > standing.position:
                await self._move(ahead)
                return True
        if ahead is None or ahead.position <= standing.position:
            ahead = _Ahead(standing.position, standing.position, standing.newest)
        page = await self._page(ahead.position, Looked(standing.paths))
        if page is None:
            self._ahead = ahead
            return False
        # If what follows fails, it begins again where the store is.
        self._ahead = None
        found = _Found()
        told = await self._look_up(page, ahead, found)
        ahead.position = page.last
        if told or found.hits or found.passed_over or page.last >= ahead.since + _AHEAD:
            await self._move(ahead, found)
        else:
            self._ahead = ahead
        return True

    async def _look_up(self, page: Page, ahead: _Ahead, found: _Found) -> bool:
        """Find the waits that a page meets; whether some of them were told already."""
        told = False
        # Of several pivots: looked at once is enough.
        done: set[int] = set()
        pivots = page.pivots
        for start in range(0, len(pivots), _PIVOTS):
            left = [(path, value, 0) for path, value in pivots[start : start + _PIVOTS]]
            while left:
                rows = await self._reader.ask(
                    lambda left=left: self._store.waits_under(left, _WAITS)  # type: ignore[misc]
                )
                for index, wait in rows:
                    if wait.id > ahead.newest or wait.id in done:
                        continue
                    self._hold(page, wait, left[index][:2], ahead.since, found, done)
                    if found.full:
                        told = True
                        await self._tell(page, found)
                    await self._breathe()
                if len(rows) < _WAITS:
                    break
                index, wait = rows[-1]
                left = [(*left[index][:2], wait.id), *left[index + 1 :]]
        return told

    def _hold(
        self,
        page: Page,
        wait: WaitRecord,
        under: Pivot,
        since: int,
        found: _Found,
        done: set[int],
    ) -> None:
        watch = self._read(wait)
        if watch is None:
            found.passed_over.append(wait.id)
            return
        if len(watch.pivots_in(wait.namespace)) > 1:
            done.add(wait.id)
        met = self._first(page, wait, watch, under, found)
        if met is not None:
            self._hit(found, wait, met, since)

    # --- what both do

    async def _page(self, after: int, looked: Looked) -> Page | None:
        rows: list[ActivityRecord] = await self._reader.ask(
            lambda: self._store.activities(after, _PAGE)
        )
        if not rows:
            return None
        if self._inline or sum(len(row.document or b"") for row in rows) < _HEAVY:
            await self._breathe()
            return Page(rows, looked)
        return await trio.to_thread.run_sync(
            Page, rows, looked, abandon_on_cancel=True, limiter=self._one
        )

    def _first(
        self, page: Page, wait: WaitRecord, watch: Watch, under: Pivot | None, found: _Found
    ) -> Sighted | None:
        try:
            return page.first(watch, wait, under)
        except Exception as error:  # noqa: BLE001 - one wait must not hold up the others
            self._broken.add(wait.id)
            self._warn(wait, error)
            found.passed_over.append(wait.id)
            return None

    def _hit(self, found: _Found, wait: WaitRecord, met: Sighted, since: int) -> None:
        payload = b""
        if wait.action == "tell":
            payload = self._codec.frame(
                [wait.generation, met.seq, met.document, wait.digest], "the activity"
            )
        found.hits.append(Hit(wait.id, met.seq, since, payload))
        found.size += len(payload)

    async def _tell(self, page: Page, found: _Found) -> None:
        """Commit what was found so far; the page isn't done with."""
        hits, found.hits = tuple(found.hits), []
        over, found.passed_over = tuple(found.passed_over), []
        found.size = 0
        await self._commit(Watched(page.last, self._clock.now(), hits=hits, passed_over=over))

    async def _move(self, ahead: _Ahead, found: _Found | None = None) -> None:
        """Move the position of all, in one commit with the last hits."""
        await self._commit(
            Watched(
                ahead.position,
                self._clock.now(),
                hits=() if found is None else tuple(found.hits),
                passed_over=() if found is None else tuple(found.passed_over),
                newest=ahead.newest,
            )
        )

    async def _commit(self, operation: Watched) -> None:
        self._told(await self._committer.ask(operation))

    async def _breathe(self) -> None:
        """Let others run, if it is time."""
        if trio.current_time() - self._rested > _SLICE:
            await trio.lowlevel.checkpoint()
            self._rested = trio.current_time()

    # --- patterns

    def _read(self, wait: WaitRecord) -> Watch | None:
        """What a wait waits for; None where this worker can't read it."""
        if wait.id in self._broken:
            return None
        found = self._watch(wait.action, wait.pattern)
        if isinstance(found, Watch):
            return found
        self._warn(wait, found)
        return None

    def _compiled(self, action: str, pattern: bytes) -> Watch | Exception:
        try:
            return Watch.read(action, self._codec.decode(pattern))
        except Exception as error:  # noqa: BLE001 - bytes may be anything
            return error

    def _warn(self, wait: WaitRecord, error: Exception) -> None:
        if wait.id not in self._warned:
            self._warned.add(wait.id)
            log.warning(
                "the wait %s of instance number %s can't be read here and is left to other "
                "workers; `doctor` names it: %s",
                wait.tag,
                wait.instance,
                error,
            )
