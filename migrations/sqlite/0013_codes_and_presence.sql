-- False where it is certain that a code was not sent: it counts for no bound but that between two codes.
ALTER TABLE notification_codes ADD COLUMN was_sent BOOLEAN NOT NULL DEFAULT TRUE;

-- A process of a node, which says now and then that it is alive: whoever was there through it was seen until then, should it
-- end without a word.
CREATE TABLE presence_runs (
    id       BLOB   NOT NULL PRIMARY KEY,
    alive_us BIGINT NOT NULL
);
CREATE INDEX presence_runs_by_age ON presence_runs (alive_us);

-- Who is there through which of them.
CREATE TABLE presences (
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    run_id  BLOB NOT NULL REFERENCES presence_runs (id) ON DELETE CASCADE,
    PRIMARY KEY (user_id, run_id)
);
CREATE INDEX presences_by_run ON presences (run_id);
