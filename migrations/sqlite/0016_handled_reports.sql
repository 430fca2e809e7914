-- Reports that a moderator has dealt with: when, who, and what they noted. NULL while one is open.
ALTER TABLE reports ADD COLUMN handled_us BIGINT;
ALTER TABLE reports ADD COLUMN handled_by BLOB;
ALTER TABLE reports ADD COLUMN note TEXT;
