-- False where it is certain that a code was not sent: it counts for no bound but that between two codes.
ALTER TABLE notification_codes ADD COLUMN was_sent BOOLEAN NOT NULL DEFAULT TRUE;
