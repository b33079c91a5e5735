-- Queued calls. In task, due says from when on it may be claimed; it is NULL from the answer of
-- a failed attempt until its flow has decided. attempt counts the claims, token is that of the
-- last one: it grows with every claim in the store, so no two claims share one.
ALTER TABLE task ADD COLUMN armed REAL NOT NULL DEFAULT 0;
ALTER TABLE task ADD COLUMN timeout REAL;
ALTER TABLE task ADD COLUMN key TEXT;
INSERT INTO meta VALUES ('token', 0);

CREATE INDEX task_ready ON task (queue, step, due, id)
    WHERE owner IS NULL AND due IS NOT NULL;
CREATE INDEX task_suspect ON task (due, id)
    WHERE owner IS NULL AND due IS NOT NULL AND crashes >= 2;
CREATE INDEX task_owned ON task (owner) WHERE owner IS NOT NULL;
CREATE INDEX task_of_queue ON task (queue, id);

-- The last answer to a queued call, which outlives its task: so a repeat is known.
CREATE TABLE task_answer (
    instance INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    tag TEXT NOT NULL,
    token INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (instance, generation, tag)
) WITHOUT ROWID;

-- Which steps a worker runs, of which queues.
CREATE TABLE worker_queue (
    worker INTEGER NOT NULL REFERENCES worker (id) ON DELETE CASCADE,
    queue TEXT NOT NULL,
    step TEXT NOT NULL,
    PRIMARY KEY (worker, queue, step)
) WITHOUT ROWID;
