-- What a running step said last of its progress. A row goes when its call no longer pends;
-- until then the call's next attempt reads it, in whatever process.
CREATE TABLE progress (
    instance INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    tag TEXT NOT NULL,
    details BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (instance, generation, tag)
) WITHOUT ROWID;
