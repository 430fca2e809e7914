-- Accounts, channels and who may do what in them.
-- Ids are UUIDs (16 bytes), moments are microseconds since 1970 UTC, "folded" names compare without regard to case.

CREATE TABLE users (
    id              BLOB    NOT NULL PRIMARY KEY,
    username        TEXT    NOT NULL,
    username_folded TEXT    NOT NULL UNIQUE,
    display_name    TEXT    NOT NULL,
    role            TEXT    NOT NULL CHECK (role IN ('user', 'admin')),
    is_active       BOOLEAN NOT NULL,
    is_guest        BOOLEAN NOT NULL,
    created_us      BIGINT  NOT NULL
);
CREATE INDEX users_by_kind ON users (is_guest, created_us);

-- Apart from users, so that no ordinary query reads a password's hash. No row: no password.
CREATE TABLE credentials (
    user_id       BLOB NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    password_hash TEXT NOT NULL
);

-- Accounts whose tokens are made elsewhere. The empty issuer stands for whoever shares our token secret.
CREATE TABLE external_identities (
    issuer  TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id BLOB NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX external_identities_by_user ON external_identities (user_id);

-- One login and all refresh tokens that came of it.
CREATE TABLE refresh_families (
    id         BLOB   NOT NULL PRIMARY KEY,
    user_id    BLOB   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    used_us    BIGINT NOT NULL,
    expires_us BIGINT NOT NULL
);
CREATE INDEX refresh_families_by_user ON refresh_families (user_id, used_us);
CREATE INDEX refresh_families_by_expiry ON refresh_families (expires_us);

-- Used tokens are kept until they would have run out: seeing one again means that it was stolen.
CREATE TABLE refresh_tokens (
    token_hash BLOB    NOT NULL PRIMARY KEY,
    family_id  BLOB    NOT NULL REFERENCES refresh_families (id) ON DELETE CASCADE,
    is_used    BOOLEAN NOT NULL,
    expires_us BIGINT  NOT NULL
);
CREATE INDEX refresh_tokens_by_family ON refresh_tokens (family_id);
CREATE INDEX refresh_tokens_by_expiry ON refresh_tokens (expires_us);

-- Guessing: for each key (a hash of an account, an address or both) the moment at which all its failures are forgiven.
CREATE TABLE login_failures (
    failure_key BLOB   NOT NULL PRIMARY KEY,
    forgiven_us BIGINT NOT NULL
);
CREATE INDEX login_failures_by_moment ON login_failures (forgiven_us);

-- Where an account logged in from before (a hash of account and address): guessing from elsewhere does not lock it out there.
CREATE TABLE login_places (
    place_key BLOB   NOT NULL PRIMARY KEY,
    used_us   BIGINT NOT NULL
);
CREATE INDEX login_places_by_moment ON login_places (used_us);

CREATE TABLE channels (
    id           BLOB    NOT NULL PRIMARY KEY,
    name         TEXT    NOT NULL,
    name_folded  TEXT    NOT NULL UNIQUE,
    description  TEXT    NOT NULL,
    owner_id     BLOB    NOT NULL REFERENCES users (id),
    max_users    BIGINT  NOT NULL CHECK (max_users > 0),
    max_speakers BIGINT  NOT NULL CHECK (max_speakers >= 0),
    is_private   BOOLEAN NOT NULL,
    created_us   BIGINT  NOT NULL
);
CREATE INDEX channels_by_owner ON channels (owner_id);

CREATE TABLE memberships (
    channel_id  BLOB    NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    user_id     BLOB    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role        TEXT    NOT NULL CHECK (role IN ('owner', 'moderator', 'member')),
    is_priority BOOLEAN NOT NULL,
    since_us    BIGINT  NOT NULL,
    PRIMARY KEY (channel_id, user_id)
);
CREATE INDEX memberships_by_user ON memberships (user_id);

-- by_id outlives the account it names.
CREATE TABLE bans (
    channel_id BLOB   NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    user_id    BLOB   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    by_id      BLOB   NOT NULL,
    reason     TEXT,
    until_us   BIGINT,
    PRIMARY KEY (channel_id, user_id)
);
CREATE INDEX bans_by_user ON bans (user_id);
CREATE INDEX bans_by_end ON bans (until_us);

CREATE TABLE invites (
    code       TEXT   NOT NULL PRIMARY KEY,
    channel_id BLOB   NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    by_id      BLOB   NOT NULL,
    max_uses   BIGINT CHECK (max_uses > 0),
    uses       BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    expires_us BIGINT
);
CREATE INDEX invites_by_channel ON invites (channel_id);
