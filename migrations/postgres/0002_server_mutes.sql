-- Whom a moderator muted in a channel's voice, whether or not they are in it.

-- by_id outlives the account it names.
CREATE TABLE server_mutes (
    channel_id UUID   NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    user_id    UUID   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    by_id      UUID   NOT NULL,
    since_us   BIGINT NOT NULL,
    PRIMARY KEY (channel_id, user_id)
);
CREATE INDEX server_mutes_by_user ON server_mutes (user_id);
