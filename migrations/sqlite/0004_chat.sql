-- What people write: in channels and to each other.
-- Ids are UUIDs (16 bytes), moments are microseconds since 1970 UTC. Accounts that messages name may be gone by now, so nothing
-- refers to them.

-- Messages and their changes are numbered from here, whichever channel they are in.
CREATE TABLE chat_ids (
    last BIGINT NOT NULL
);
INSERT INTO chat_ids (last) VALUES (0);

-- A channel that was written in, or two people who wrote to each other: a scope. A channel's has the channel's id. Whoever
-- writes locks the row before drawing numbers, so that within one scope they grow in the order in which they become visible.
CREATE TABLE chat_scopes (
    scope_id    BLOB   NOT NULL PRIMARY KEY,
    channel_id  BLOB   UNIQUE REFERENCES channels (id) ON DELETE CASCADE,
    low_id      BLOB,
    high_id     BLOB,
    last_id     BIGINT NOT NULL,
    slow_mode_s BIGINT NOT NULL DEFAULT 0 CHECK (slow_mode_s >= 0),
    keep_count  BIGINT CHECK (keep_count >= 0),
    keep_s      BIGINT CHECK (keep_s > 0),
    history     TEXT   NOT NULL DEFAULT 'everyone' CHECK (history IN ('everyone', 'members', 'moderators')),
    CHECK ((channel_id IS NULL) <> (low_id IS NULL) AND (low_id IS NULL) = (high_id IS NULL))
);
CREATE INDEX chat_scopes_by_change ON chat_scopes (last_id);
CREATE INDEX chat_scopes_by_low ON chat_scopes (low_id);
CREATE INDEX chat_scopes_by_high ON chat_scopes (high_id);

-- `changed_id` is the number of the last change, the message's own at first. A message that was taken away stays, empty,
-- until its time has come.
CREATE TABLE messages (
    id         BIGINT NOT NULL PRIMARY KEY,
    scope_id   BLOB   NOT NULL REFERENCES chat_scopes (scope_id) ON DELETE CASCADE,
    from_id    BLOB   NOT NULL,
    username   TEXT   NOT NULL,
    content    TEXT   NOT NULL,
    words      TEXT   NOT NULL,
    mentions   TEXT   NOT NULL,
    nonce      TEXT,
    reply_to   BIGINT,
    created_us BIGINT NOT NULL,
    edited_us  BIGINT,
    deleted_us BIGINT,
    deleted_by BLOB,
    changed_id BIGINT NOT NULL
);
CREATE INDEX messages_by_scope ON messages (scope_id, id);
CREATE INDEX messages_by_change ON messages (scope_id, changed_id);
CREATE INDEX messages_by_age ON messages (scope_id, created_us);
CREATE INDEX messages_by_author ON messages (scope_id, from_id, id);
CREATE UNIQUE INDEX messages_by_nonce ON messages (scope_id, from_id, nonce) WHERE nonce IS NOT NULL;

-- Signs at messages.
CREATE TABLE reactions (
    message_id BIGINT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    user_id    BLOB   NOT NULL,
    emoji      TEXT   NOT NULL,
    at_id      BIGINT NOT NULL,
    PRIMARY KEY (message_id, emoji, user_id)
);

-- Up to where somebody has read.
CREATE TABLE chat_reads (
    user_id  BLOB   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    scope_id BLOB   NOT NULL REFERENCES chat_scopes (scope_id) ON DELETE CASCADE,
    read_id  BIGINT NOT NULL,
    PRIMARY KEY (user_id, scope_id)
);
CREATE INDEX chat_reads_by_scope ON chat_reads (scope_id);

-- When somebody last came or went.
CREATE TABLE last_seen (
    user_id BLOB   NOT NULL PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    at_us   BIGINT NOT NULL
);

-- Who lets nothing of whom through.
CREATE TABLE blocks (
    user_id    BLOB   NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    blocked_id BLOB   NOT NULL,
    since_us   BIGINT NOT NULL,
    PRIMARY KEY (user_id, blocked_id)
);

-- Messages that somebody told the moderators of.
CREATE TABLE reports (
    message_id BIGINT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
    by_id      BLOB   NOT NULL,
    reason     TEXT   NOT NULL,
    at_us      BIGINT NOT NULL,
    PRIMARY KEY (message_id, by_id)
);

-- Words to look for. They come normalised, so nothing more is done to them here.
CREATE VIRTUAL TABLE message_words USING fts5(
    words, content='', contentless_delete=1, tokenize="unicode61 remove_diacritics 0 categories 'L* N* M* Co'"
);
CREATE TRIGGER message_words_added AFTER INSERT ON messages BEGIN
    INSERT INTO message_words (rowid, words) VALUES (new.id, new.words);
END;
CREATE TRIGGER message_words_changed AFTER UPDATE OF words ON messages BEGIN
    DELETE FROM message_words WHERE rowid = old.id;
    INSERT INTO message_words (rowid, words) VALUES (new.id, new.words);
END;
CREATE TRIGGER message_words_removed AFTER DELETE ON messages BEGIN
    DELETE FROM message_words WHERE rowid = old.id;
END;
