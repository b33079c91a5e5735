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

-- Listings: each narrow question has an index in the order of a page, which is the time of
-- creation. All but the open ones' change when an instance is made and when it ends.
CREATE INDEX instance_created ON instance (created);
CREATE INDEX instance_of_flow ON instance (flow, created);
CREATE INDEX instance_of_key ON instance (key, created) WHERE key IS NOT NULL;
CREATE INDEX instance_of_namespace ON instance (namespace, created) WHERE namespace <> '';
CREATE INDEX instance_of_correlation ON instance (correlation_id, created)
    WHERE correlation_id IS NOT NULL;
CREATE INDEX instance_of_parent ON instance (parent, created) WHERE parent IS NOT NULL;
CREATE INDEX instance_open ON instance (created)
    WHERE status = 'running' OR status = 'waiting' OR status = 'blocked';
CREATE INDEX instance_unhappy ON instance (created)
    WHERE status = 'failed' OR status = 'cancelled';
