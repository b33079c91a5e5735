-- Search attributes stand in the order of a page, so that a page reads what it shows.
CREATE TABLE attribute_by_creation (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    created REAL NOT NULL,
    instance INTEGER NOT NULL,
    PRIMARY KEY (name, value, created, instance)
) WITHOUT ROWID;
INSERT INTO attribute_by_creation SELECT a.name, a.value, i.created, i.id
    FROM attribute a JOIN instance i ON i.id = a.instance;
DROP TABLE attribute;
ALTER TABLE attribute_by_creation RENAME TO attribute;
CREATE INDEX attribute_instance ON attribute (instance, name);
