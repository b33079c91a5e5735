-- What flows do towards others: children, emitted activities, waits for activities, search
-- attributes, results that are recorded under a key of the user's.

-- depth: how deep a child it is. chain: how many emitted activities led to it. origin: its
-- waits for activities begin after this one. abandoned: it goes on when its parent is
-- cancelled. awaited: its parent waits for its end.
ALTER TABLE instance ADD COLUMN depth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN chain INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN origin INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN abandoned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE instance ADD COLUMN awaited INTEGER NOT NULL DEFAULT 0;
CREATE INDEX instance_parent ON instance (parent, id) WHERE parent IS NOT NULL;

-- Digest of a pattern -> the last activity that a wait for it got, from the generation before.
ALTER TABLE generation ADD COLUMN positions BLOB;

-- value: as JSON, so that 1, "1" and true are three.
CREATE TABLE attribute (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    instance INTEGER NOT NULL,
    PRIMARY KEY (name, value, instance)
) WITHOUT ROWID;
CREATE INDEX attribute_instance ON attribute (instance, name);

-- The first result of a step under a key of the user's.
CREATE TABLE recorded (
    step TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (step, key)
) WITHOUT ROWID;
