-- Members of wide pending sets, in the order of arming. instance.turns counts the turns: who
-- has seen as many knows the pending set.
CREATE TABLE request (
    id INTEGER PRIMARY KEY,
    instance INTEGER NOT NULL,
    tag TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX request_tag ON request (instance, tag);
ALTER TABLE instance ADD COLUMN turns INTEGER NOT NULL DEFAULT 0;
