-- Waits under pivots: one equality, as a path and a value, that every activity has which a wait
-- matches. So an activity finds the waits that it may meet, however many are open.
--
-- wait.id is never given twice. action: tell (a wait of the flow's) or cancel (cancel_on).
-- digest: what the flow knows the pattern by. scanned: how far activities were held against it
-- by itself. upto: while scanned is below that, the wait catches up by itself; from then on it
-- is as far as all others, which is meta.watched.
CREATE TABLE new_wait (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    instance INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    tag TEXT NOT NULL,
    action TEXT NOT NULL DEFAULT 'tell',
    pattern BLOB NOT NULL,
    digest BLOB,
    position INTEGER NOT NULL,
    scanned INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    UNIQUE (instance, generation, tag)
);
INSERT INTO meta SELECT 'watched', coalesce(max(seq), 0) FROM activity;
INSERT INTO new_wait (id, instance, generation, tag, pattern, position, scanned, upto)
    SELECT id, instance, generation, tag, pattern, position, scanned,
        (SELECT value FROM meta WHERE name = 'watched') FROM wait;
DROP TABLE wait;
ALTER TABLE new_wait RENAME TO wait;
CREATE INDEX wait_behind ON wait (scanned, id) WHERE scanned < upto;

CREATE TABLE wait_key (
    path TEXT NOT NULL,
    value TEXT NOT NULL,
    wait INTEGER NOT NULL,
    PRIMARY KEY (path, value, wait)
) WITHOUT ROWID;
CREATE INDEX wait_key_wait ON wait_key (wait);
-- Waits from before have no pivot: they are held against every activity of their namespace.
INSERT INTO wait_key
    SELECT '', CASE i.namespace WHEN '' THEN '' ELSE char(10) || i.namespace END, w.id
    FROM wait w JOIN instance i ON i.id = w.instance;
CREATE TRIGGER wait_closed AFTER DELETE ON wait BEGIN
    DELETE FROM wait_key WHERE wait = old.id;
END;
