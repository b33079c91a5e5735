-- Retention: what is old enough is found by an index, and a firing, which stays for ever,
-- says when the instance that it started was removed.

CREATE INDEX instance_ended ON instance (flow, ended) WHERE ended IS NOT NULL;
CREATE INDEX activity_document ON activity (received) WHERE document IS NOT NULL;

ALTER TABLE firing ADD COLUMN removed REAL;
CREATE INDEX firing_removed ON firing (instance) WHERE removed IS NOT NULL;
