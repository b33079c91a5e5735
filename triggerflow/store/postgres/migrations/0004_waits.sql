-- Waits under pivots: one equality, as a path and a value, that every activity has which a wait
-- matches. So an activity finds the waits that it may meet, however many are open.
--
-- action: tell (a wait of the flow's) or cancel (cancel_on). digest: what the flow knows the
-- pattern by. scanned: how far activities were held against it by itself. upto: while scanned
-- is below that, the wait catches up by itself; from then on it is as far as all others, which
-- is meta's watched. wait.id is never given twice: meta's wait is the last one that was
-- committed, which a sequence couldn't say.
ALTER TABLE wait ADD COLUMN action TEXT NOT NULL DEFAULT 'tell';
ALTER TABLE wait ADD COLUMN digest BYTEA;
ALTER TABLE wait ADD COLUMN upto BIGINT NOT NULL DEFAULT 0;
INSERT INTO meta SELECT 'watched', horizon('activity'::regclass::oid::bigint & 8388607);
INSERT INTO meta SELECT 'wait', CASE WHEN is_called THEN last_value ELSE 0 END FROM wait_id_seq;
UPDATE meta SET value = greatest(value, (SELECT coalesce(max(id), 0) FROM wait))
    WHERE name = 'wait';
ALTER TABLE wait ALTER COLUMN id DROP IDENTITY;
UPDATE wait SET upto = (SELECT value FROM meta WHERE name = 'watched');
CREATE INDEX wait_behind ON wait (scanned, id) WHERE scanned < upto;

CREATE TABLE wait_key (
    path TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    wait BIGINT NOT NULL REFERENCES wait (id) ON DELETE CASCADE,
    PRIMARY KEY (path, value, wait)
);
CREATE INDEX wait_key_wait ON wait_key (wait);
-- Waits from before have no pivot: they are held against every activity of their namespace.
INSERT INTO wait_key
    SELECT '', CASE i.namespace WHEN '' THEN '' ELSE chr(10) || i.namespace END, w.id
    FROM wait w JOIN instance i ON i.id = w.instance;
