-- An activity is known by its CID within its namespace: what two tenants receive alike is one
-- activity for each of them.
CREATE TABLE activity_of_namespace (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    cid TEXT NOT NULL,
    types TEXT NOT NULL,
    actors TEXT NOT NULL,
    document BLOB,
    received REAL NOT NULL,
    namespace TEXT NOT NULL DEFAULT '',
    source TEXT,
    received_digest BLOB,
    cause INTEGER,
    depth INTEGER NOT NULL DEFAULT 0,
    UNIQUE (cid, namespace)
);
INSERT INTO activity_of_namespace
    SELECT seq, cid, types, actors, document, received, namespace, source, received_digest,
        cause, depth FROM activity;
DROP TABLE activity;
ALTER TABLE activity_of_namespace RENAME TO activity;
CREATE INDEX activity_document ON activity (received) WHERE document IS NOT NULL;

-- earlier: the activity that fired in its stead, where a firing was deduped.
ALTER TABLE firing ADD COLUMN earlier INTEGER;
CREATE INDEX firing_of_trigger ON firing (trigger_spec, id);
CREATE INDEX firing_unusual ON firing (outcome, id) WHERE outcome <> 'started';

-- What has fired under a dedup key. scope: a trigger's CID, or its name where the key goes
-- across versions. until: NULL for ever.
CREATE TABLE dedup (
    scope TEXT NOT NULL,
    key BLOB NOT NULL,
    activity INTEGER NOT NULL,
    instance TEXT,
    until REAL,
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;
CREATE INDEX dedup_until ON dedup (until) WHERE until IS NOT NULL;
