-- States of triggers, firings that are taken up again, and backfills.

-- options: how it is dispatched (retry, dead letter), which is no part of its CID. registry
-- is the generation from which on it is in its present state.
ALTER TABLE trigger_spec ADD COLUMN options BLOB;

-- What a trigger was in generations that are over: from since on, before until. A pause whose
-- firings were dropped is `skipped` here.
CREATE TABLE trigger_past (
    trigger_spec INTEGER NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    state TEXT NOT NULL,
    PRIMARY KEY (trigger_spec, since)
) WITHOUT ROWID;
INSERT INTO trigger_past
    SELECT id, registry, retired, 'active' FROM trigger_spec
    WHERE state = 'superseded' AND retired IS NOT NULL;

-- source: live, backfill, resume, redispatch or retry. attempts: how often its dispatch was
-- tried in a row; due: when it is tried again by itself. changes: how often it was written
-- over; what it was before stands in firing_history.
ALTER TABLE firing ADD COLUMN source TEXT NOT NULL DEFAULT 'live';
ALTER TABLE firing ADD COLUMN attempts INTEGER NOT NULL DEFAULT 1;
ALTER TABLE firing ADD COLUMN due REAL;
ALTER TABLE firing ADD COLUMN dead_letter TEXT;
ALTER TABLE firing ADD COLUMN changes INTEGER NOT NULL DEFAULT 0;
CREATE INDEX firing_due ON firing (due) WHERE due IS NOT NULL;
CREATE INDEX firing_unstarted ON firing (activity, trigger_spec, outcome)
    WHERE instance IS NULL;

CREATE TABLE firing_history (
    firing INTEGER NOT NULL,
    change INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    error TEXT,
    registry INTEGER NOT NULL,
    at REAL NOT NULL,
    source TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    PRIMARY KEY (firing, change)
) WITHOUT ROWID;

-- Walks over history: a trigger's backfill, or a name's paused firings that are taken up
-- (resume) or dropped (skip). state: running, paused, done, cancelled. first, last, the times:
-- which activities; cursor: all up to this one are settled. looked is the sum of fired,
-- unstarted, known, removed, and of what met nothing.
CREATE TABLE backfill (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    trigger_spec INTEGER,
    state TEXT NOT NULL,
    reason TEXT,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    received_from REAL,
    received_until REAL,
    cursor INTEGER NOT NULL,
    looked INTEGER NOT NULL DEFAULT 0,
    fired INTEGER NOT NULL DEFAULT 0,
    unstarted INTEGER NOT NULL DEFAULT 0,
    known INTEGER NOT NULL DEFAULT 0,
    removed INTEGER NOT NULL DEFAULT 0,
    owner INTEGER,
    created REAL NOT NULL,
    moved REAL,
    ended REAL
);
CREATE INDEX backfill_open ON backfill (id) WHERE ended IS NULL;
