-- Where to post what happens in channels.

-- `epoch` and `delivered` are the place in the channel's journal up to which everything was posted. A node takes a webhook
-- on until `lease_until_us`, and no other has it meanwhile.
CREATE TABLE webhooks (
    id             BLOB   NOT NULL PRIMARY KEY,
    channel_id     BLOB   NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    url            TEXT   NOT NULL,
    secret         TEXT   NOT NULL,
    epoch          TEXT   NOT NULL,
    delivered      BIGINT NOT NULL,
    failures       BIGINT NOT NULL,
    last_error     TEXT,
    next_us        BIGINT NOT NULL,
    given_up_us    BIGINT,
    lease_until_us BIGINT NOT NULL
);
CREATE INDEX webhooks_by_channel ON webhooks (channel_id);
CREATE INDEX webhooks_by_time ON webhooks (next_us);
