-- Bounds of what goes outside: of codes, of ways, of people, and of push services that take nothing from us.

-- Codes that were sent to confirm addresses, for a day. What bounds them outlasts the addresses and the accounts that they were
-- for, so nothing refers to those. `codes` and `codes_since_us` of notification_addresses count nothing any more.
CREATE TABLE notification_codes (
    id           UUID   NOT NULL PRIMARY KEY,
    user_id      UUID   NOT NULL,
    way          TEXT   NOT NULL CHECK (way IN ('email', 'sms')),
    address_hash BYTEA  NOT NULL,
    sent_us      BIGINT NOT NULL
);
CREATE INDEX notification_codes_by_user ON notification_codes (user_id, sent_us);
CREATE INDEX notification_codes_by_address ON notification_codes (way, address_hash, sent_us);
CREATE INDEX notification_codes_by_way ON notification_codes (way, sent_us);
CREATE INDEX notification_codes_by_age ON notification_codes (sent_us);
DROP INDEX notification_addresses_by_pending;

-- Each way is taken on by itself, and so many at once of one person's.
DROP INDEX notification_deliveries_due;
CREATE INDEX notification_deliveries_due_by_way ON notification_deliveries (way, next_us, id) WHERE state = 'waiting';
CREATE INDEX notification_deliveries_due_by_user ON notification_deliveries (user_id, way, next_us, id)
    WHERE state = 'waiting';

-- How often in a row its push service said that it takes nothing from this server.
ALTER TABLE push_subscriptions ADD COLUMN refusals BIGINT NOT NULL DEFAULT 0;
