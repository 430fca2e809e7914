-- Channels that end when nobody has been in them for a while.
CREATE TABLE rooms (
    channel_id     BLOB   NOT NULL PRIMARY KEY REFERENCES channels (id) ON DELETE CASCADE,
    max_publishers BIGINT NOT NULL CHECK (max_publishers >= 0),
    expires_us     BIGINT NOT NULL
);
CREATE INDEX rooms_by_end ON rooms (expires_us);
