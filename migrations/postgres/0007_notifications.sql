-- What single people are told of, and how it gets to them.

-- Written in the transaction of what caused it. `id` is what a receiver tells repetitions by. A node takes one that is not
-- routed on until `lease_until_us`. What it says is the message's, so that what was changed or taken away is so here, too.
CREATE TABLE notifications (
    id             UUID   NOT NULL PRIMARY KEY,
    user_id        UUID   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    kind           TEXT   NOT NULL CHECK (kind IN ('mention', 'reply', 'direct_message', 'invitation')),
    from_id        UUID   NOT NULL,
    from_name      TEXT   NOT NULL,
    channel_id     UUID   REFERENCES channels (id) ON DELETE CASCADE,
    message_id     BIGINT REFERENCES messages (id) ON DELETE CASCADE,
    created_us     BIGINT NOT NULL,
    read_us        BIGINT,
    routed_us      BIGINT,
    lease_until_us BIGINT NOT NULL
);
CREATE UNIQUE INDEX notifications_once ON notifications (user_id, message_id) WHERE message_id IS NOT NULL;
CREATE INDEX notifications_by_user ON notifications (user_id, id);
CREATE INDEX notifications_by_message ON notifications (message_id);
CREATE INDEX notifications_by_channel ON notifications (channel_id);
CREATE INDEX notifications_by_age ON notifications (created_us);
CREATE INDEX notifications_not_routed ON notifications (id) WHERE routed_us IS NULL;

-- One for each way outside that a notification takes; `target_id` is the push subscription, or the user for the others. `id`
-- is the same in each attempt. A node takes one on until `lease_until_us`.
CREATE TABLE notification_deliveries (
    id              UUID   NOT NULL PRIMARY KEY,
    notification_id UUID   NOT NULL REFERENCES notifications (id) ON DELETE CASCADE,
    user_id         UUID   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    way             TEXT   NOT NULL CHECK (way IN ('email', 'sms', 'push')),
    target_id       UUID   NOT NULL,
    state           TEXT   NOT NULL CHECK (state IN ('waiting', 'sent', 'skipped', 'given_up')),
    attempts        BIGINT NOT NULL,
    last_error      TEXT,
    created_us      BIGINT NOT NULL,
    next_us         BIGINT NOT NULL,
    lease_until_us  BIGINT NOT NULL,
    done_us         BIGINT,
    UNIQUE (notification_id, way, target_id)
);
CREATE INDEX notification_deliveries_due ON notification_deliveries (next_us) WHERE state = 'waiting';
CREATE INDEX notification_deliveries_by_user ON notification_deliveries (user_id, way, created_us);
CREATE INDEX notification_deliveries_given_up ON notification_deliveries (done_us) WHERE state = 'given_up';

-- JSON; whoever has no row wants what is usual.
CREATE TABLE notification_preferences (
    user_id  UUID NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    document TEXT NOT NULL
);

-- `address` is confirmed; `pending` waits for the code whose hash is here.
CREATE TABLE notification_addresses (
    user_id        UUID   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    way            TEXT   NOT NULL CHECK (way IN ('email', 'sms')),
    address        TEXT,
    pending        TEXT,
    code_hash      BYTEA,
    code_until_us  BIGINT NOT NULL,
    code_tries     BIGINT NOT NULL,
    code_sent_us   BIGINT NOT NULL,
    codes          BIGINT NOT NULL,
    codes_since_us BIGINT NOT NULL,
    PRIMARY KEY (user_id, way)
);
CREATE INDEX notification_addresses_by_pending ON notification_addresses (pending, code_sent_us);

-- An endpoint is one browser's: it belongs to who subscribed there last.
CREATE TABLE push_subscriptions (
    id         UUID   NOT NULL PRIMARY KEY,
    user_id    UUID   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    endpoint   TEXT   NOT NULL UNIQUE,
    p256dh     BYTEA  NOT NULL,
    auth       BYTEA  NOT NULL,
    created_us BIGINT NOT NULL
);
CREATE INDEX push_subscriptions_by_user ON push_subscriptions (user_id);

-- Keys that all nodes share and one of them made.
CREATE TABLE server_keys (
    name   TEXT NOT NULL PRIMARY KEY,
    secret TEXT NOT NULL
);
