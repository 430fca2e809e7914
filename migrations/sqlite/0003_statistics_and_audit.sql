-- What channels, people and the server have carried since they are counted, the audio configuration, and who did what.

CREATE TABLE channel_statistics (
    channel_id  BLOB   NOT NULL PRIMARY KEY REFERENCES channels (id) ON DELETE CASCADE,
    since_us    BIGINT NOT NULL,
    joins       BIGINT NOT NULL,
    frames_in   BIGINT NOT NULL,
    frames_out  BIGINT NOT NULL,
    bytes_in    BIGINT NOT NULL,
    bytes_out   BIGINT NOT NULL,
    frames_lost BIGINT NOT NULL
);

CREATE TABLE user_statistics (
    user_id       BLOB   NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    since_us      BIGINT NOT NULL,
    last_voice_us BIGINT NOT NULL,
    joins         BIGINT NOT NULL,
    voice_ms      BIGINT NOT NULL,
    frames        BIGINT NOT NULL,
    bytes         BIGINT NOT NULL
);

-- One row: what channels that are deleted carried stays counted.
CREATE TABLE server_statistics (
    id          BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    since_us    BIGINT NOT NULL,
    joins       BIGINT NOT NULL,
    frames_in   BIGINT NOT NULL,
    frames_out  BIGINT NOT NULL,
    bytes_in    BIGINT NOT NULL,
    bytes_out   BIGINT NOT NULL,
    frames_lost BIGINT NOT NULL
);

-- One row, while an administrator's configuration holds instead of the settings'. by_id outlives the account it names.
CREATE TABLE audio_configuration (
    id                BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    sample_rate       BIGINT NOT NULL,
    channels          BIGINT NOT NULL,
    bit_depth         BIGINT NOT NULL,
    buffer_size       BIGINT NOT NULL,
    latency_target_ms BIGINT NOT NULL,
    by_id             BLOB   NOT NULL,
    changed_us        BIGINT NOT NULL
);

-- Ids are made in the order of time. actor_id outlives the account it names; detail is JSON.
CREATE TABLE audit_log (
    id         BLOB   NOT NULL PRIMARY KEY,
    at_us      BIGINT NOT NULL,
    actor_id   BLOB   NOT NULL,
    actor_name TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    target     TEXT,
    detail     TEXT   NOT NULL
);
CREATE INDEX audit_log_by_moment ON audit_log (at_us);
CREATE INDEX audit_log_by_action ON audit_log (action, at_us);
