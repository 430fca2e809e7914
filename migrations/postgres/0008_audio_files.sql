-- The library of audio files: what is in the folder, who uploaded it, and its tags.

-- `search` is the path and the tags in lower case. `uploaded` files count for the quotas; those of an account that is gone go on to
-- count for all. `touched_us` is when a row was last written by an upload or a tag, so that a list of the folder that was begun before
-- does not remove it.
CREATE TABLE audio_files (
    path        TEXT    NOT NULL PRIMARY KEY,
    search      TEXT    NOT NULL,
    size_bytes  BIGINT  NOT NULL,
    modified_us BIGINT  NOT NULL,
    uploaded    BOOLEAN NOT NULL,
    owner_id    UUID    REFERENCES users (id) ON DELETE SET NULL,
    touched_us  BIGINT  NOT NULL
);
CREATE INDEX audio_files_by_owner ON audio_files (owner_id);

CREATE TABLE audio_tags (
    path TEXT NOT NULL REFERENCES audio_files (path) ON DELETE CASCADE,
    tag  TEXT NOT NULL,
    PRIMARY KEY (path, tag)
);
CREATE INDEX audio_tags_by_tag ON audio_tags (tag);

-- Who listened to what: no address and no account, and a network only as a number that changes with the day.
CREATE TABLE listens (
    id             UUID   NOT NULL PRIMARY KEY,
    path           TEXT   NOT NULL,
    quality        TEXT   NOT NULL,
    began_us       BIGINT NOT NULL,
    ended_us       BIGINT NOT NULL,
    sent_bytes     BIGINT NOT NULL,
    heard_permille BIGINT NOT NULL,
    ranges         TEXT   NOT NULL,
    origin         TEXT   NOT NULL
);
CREATE INDEX listens_by_time ON listens (ended_us);
CREATE INDEX listens_by_path ON listens (path, ended_us);
