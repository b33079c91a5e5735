-- triggerflow's tables. Rows stand in commit order under small integer keys; public ids
-- (instance ids, CIDs) map to them and occur once. What a turn changes often stands in
-- narrow rows (instance), what is written once and may be large stands apart (activity,
-- generation, log).

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY NOT NULL
) WITHOUT ROWID;
INSERT INTO meta VALUES ('registry', 0);

-- One row per working process. The epoch fences: it grows when the worker is declared dead.
CREATE TABLE worker (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    epoch INTEGER NOT NULL,
    build TEXT NOT NULL,
    pid INTEGER NOT NULL,
    started REAL NOT NULL,
    seen REAL NOT NULL
);
CREATE TABLE worker_flow (
    worker INTEGER NOT NULL REFERENCES worker (id) ON DELETE CASCADE,
    flow TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (worker, flow, version)
) WITHOUT ROWID;

-- Appended once, never removed; retention may take the document, never the CID.
CREATE TABLE activity (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    cid TEXT NOT NULL UNIQUE,
    types TEXT NOT NULL,
    actors TEXT NOT NULL,
    document BLOB,
    received REAL NOT NULL,
    namespace TEXT NOT NULL DEFAULT '',
    source TEXT,
    received_digest BLOB,
    cause INTEGER,
    depth INTEGER NOT NULL DEFAULT 0
);

-- All triggers ever registered; state: active, paused, draining, superseded. registry and
-- retired are the generations from which on, and before which, it is current.
CREATE TABLE trigger_spec (
    id INTEGER PRIMARY KEY,
    cid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    meaning TEXT NOT NULL,
    spec BLOB NOT NULL,
    state TEXT NOT NULL,
    registered REAL NOT NULL,
    registry INTEGER NOT NULL,
    retired INTEGER
);
CREATE UNIQUE INDEX trigger_current ON trigger_spec (name) WHERE state <> 'superseded';
CREATE UNIQUE INDEX trigger_meaning ON trigger_spec (meaning) WHERE state <> 'superseded';

-- The audit, and the guard against firing twice: one row a pair, for ever.
CREATE TABLE firing (
    id INTEGER PRIMARY KEY,
    activity INTEGER NOT NULL,
    trigger_spec INTEGER NOT NULL,
    instance TEXT,
    outcome TEXT NOT NULL,
    error TEXT,
    registry INTEGER NOT NULL,
    at REAL NOT NULL
);
CREATE UNIQUE INDEX firing_pair ON firing (activity, trigger_spec);

-- Dispatch that was put off; trigger_spec NULL: all triggers.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    activity INTEGER NOT NULL,
    trigger_spec INTEGER,
    registry INTEGER NOT NULL,
    created REAL NOT NULL,
    owner INTEGER
);
CREATE INDEX outbox_activity ON outbox (activity);

-- status: running (owned, or runnable where owner is NULL), waiting (parked), blocked,
-- done, failed, cancelled. pending: the encoded pending set. value: result or failure.
-- started: first turn of the present generation.
CREATE TABLE instance (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    public_id TEXT NOT NULL UNIQUE,
    namespace TEXT NOT NULL DEFAULT '',
    flow TEXT NOT NULL,
    version INTEGER,
    status TEXT NOT NULL,
    owner INTEGER,
    generation INTEGER NOT NULL DEFAULT 1,
    log_length INTEGER NOT NULL DEFAULT 0,
    wake INTEGER NOT NULL DEFAULT 0,
    cancelled INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    priority INTEGER NOT NULL DEFAULT 0,
    due REAL,
    pending BLOB,
    cause TEXT,
    reason TEXT,
    value BLOB,
    key TEXT,
    correlation_id TEXT,
    parent INTEGER,
    parent_tag TEXT,
    attributes BLOB,
    activity INTEGER,
    trigger_spec INTEGER,
    created REAL NOT NULL,
    started REAL,
    ended REAL
);
CREATE INDEX instance_active ON instance (owner, id) WHERE status = 'running';
CREATE INDEX instance_due ON instance (due) WHERE status = 'waiting' AND due IS NOT NULL;
CREATE INDEX instance_blocked ON instance (id) WHERE status = 'blocked';
CREATE UNIQUE INDEX instance_key ON instance (namespace, key, flow)
    WHERE key IS NOT NULL AND status IN ('running', 'waiting', 'blocked');

-- The run of an instance since its last continue_as_new.
CREATE TABLE generation (
    instance INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    seed BLOB NOT NULL,
    input BLOB NOT NULL,
    digest BLOB,
    PRIMARY KEY (instance, generation)
);

CREATE TABLE log (
    id INTEGER PRIMARY KEY,
    instance INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    position INTEGER NOT NULL,
    tag TEXT NOT NULL,
    value BLOB NOT NULL,
    failed INTEGER NOT NULL,
    digest BLOB,
    at REAL NOT NULL
);
CREATE UNIQUE INDEX log_position ON log (instance, generation, position);

-- Messages: kind is signal, cancel, retry or complete. Rows with a dedup key stay, marked
-- consumed, so that a repeat is still known.
CREATE TABLE inbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance INTEGER NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    payload BLOB NOT NULL,
    dedup TEXT,
    digest BLOB,
    consumed INTEGER NOT NULL DEFAULT 0,
    at REAL NOT NULL
);
CREATE INDEX inbox_unread ON inbox (instance, id) WHERE consumed = 0;
CREATE UNIQUE INDEX inbox_dedup ON inbox (instance, name, dedup) WHERE dedup IS NOT NULL;

-- Builds that a blocked instance was tried with.
CREATE TABLE tried (
    instance INTEGER NOT NULL,
    build TEXT NOT NULL,
    PRIMARY KEY (instance, build)
) WITHOUT ROWID;

-- Waits for a later activity.
CREATE TABLE wait (
    id INTEGER PRIMARY KEY,
    instance INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    tag TEXT NOT NULL,
    pattern BLOB NOT NULL,
    position INTEGER NOT NULL,
    scanned INTEGER NOT NULL DEFAULT 0,
    UNIQUE (instance, generation, tag)
);

-- Steps offered to a queue.
CREATE TABLE task (
    id INTEGER PRIMARY KEY,
    instance INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    tag TEXT NOT NULL,
    queue TEXT NOT NULL,
    step TEXT NOT NULL,
    args BLOB NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    due REAL,
    priority INTEGER NOT NULL DEFAULT 0,
    lane TEXT,
    owner INTEGER,
    token INTEGER NOT NULL DEFAULT 0,
    crashes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (instance, generation, tag)
);
