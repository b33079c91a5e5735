-- Flow control. In instance, held says what an instance that isn't admitted yet is held for:
-- 0 nothing, 1 a debounce, 2 a batch, 3 a throttle, 4 a place. A held one is parked (status
-- waiting); it becomes runnable by admission only.
ALTER TABLE instance ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
DROP INDEX instance_active;
CREATE INDEX instance_active ON instance (owner, priority DESC, id) WHERE status = 'running';

-- Places of one scope and key: how many there are, and how many are taken. registry is the
-- generation of the triggers that said so last. A row is there while somebody has a place, or
-- waits for one.
CREATE TABLE pool (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    cap INTEGER NOT NULL,
    registry INTEGER NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;

-- An instance's places, in the order in which it takes them. state: 0 not yet asked for,
-- 1 waits, 2 taken, 3 given back (a failed instance, which may be retried).
CREATE TABLE place (
    instance INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    cap INTEGER NOT NULL,
    registry INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state INTEGER NOT NULL,
    PRIMARY KEY (instance, rank)
) WITHOUT ROWID;
CREATE INDEX place_order ON place (scope, key, state, priority DESC, instance);

-- What is owed of a rate: debt tokens at a moment. It is forgotten once it is settled.
CREATE TABLE rate (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    at REAL NOT NULL,
    debt REAL NOT NULL,
    settled REAL NOT NULL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX rate_settled ON rate (settled);

-- The open group of a scope and key; its instance's due time says when it is closed. throttle:
-- what it waits for then, as JSON.
CREATE TABLE gathering (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    instance INTEGER NOT NULL UNIQUE,
    opened REAL NOT NULL,
    count INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    listed INTEGER NOT NULL,
    throttle TEXT,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;

-- The activities behind a gathered instance, in order of arrival. input is there until its list
-- is put together.
CREATE TABLE gathered (
    id INTEGER PRIMARY KEY,
    instance INTEGER NOT NULL,
    activity INTEGER,
    input BLOB
);
CREATE INDEX gathered_instance ON gathered (instance, id);
