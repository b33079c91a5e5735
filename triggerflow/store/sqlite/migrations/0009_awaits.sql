-- awaits: names of the signals that a parked instance waits for, as a JSON list. parked_by: the
-- worker that parked it, whose build decided that.
ALTER TABLE instance ADD COLUMN awaits TEXT;
ALTER TABLE instance ADD COLUMN parked_by INTEGER;
