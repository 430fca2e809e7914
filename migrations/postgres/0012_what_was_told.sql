-- Whom was told how much within a day, whatever was deleted since: channels take with them what told of them. `way` is a way
-- outside, with `from_id` empty, or 'invitation', with whoever took them in.
CREATE TABLE notification_sends (
    notification_id UUID   NOT NULL,
    way             TEXT   NOT NULL CHECK (way IN ('email', 'sms', 'push', 'invitation')),
    user_id         UUID   NOT NULL,
    from_id         UUID,
    sent_us         BIGINT NOT NULL,
    PRIMARY KEY (notification_id, way)
);
CREATE INDEX notification_sends_by_user ON notification_sends (user_id, way, sent_us);
CREATE INDEX notification_sends_by_age ON notification_sends (sent_us);
