-- Tracks that are not where all nodes find them: their node sends them to the bucket. Those of before are.
ALTER TABLE recording_tracks ADD COLUMN is_waiting BIGINT NOT NULL DEFAULT 0;
