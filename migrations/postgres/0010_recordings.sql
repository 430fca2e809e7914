-- Recordings of channels: what was recorded when, and the files that came of it.

-- `started_by` is who began it, by the name that they had then; it outlasts the account. A recording without `ended_us` goes on, and
-- a channel has one such at most. `empty_since_us` is since when nobody is in the channel. Once `finished_us` is set all tracks are
-- there. `mix_until_us` is until when the node that makes the mix has time for it.
CREATE TABLE recordings (
    id              UUID   NOT NULL PRIMARY KEY,
    channel_id      UUID   NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    name            TEXT   NOT NULL,
    started_by      UUID   NOT NULL,
    started_by_name TEXT   NOT NULL,
    started_us      BIGINT NOT NULL,
    ended_us        BIGINT,
    ended_why       TEXT,
    ended_by        UUID,
    empty_since_us  BIGINT,
    finished_us     BIGINT,
    mix_state       TEXT   NOT NULL CHECK (mix_state IN ('none', 'wanted', 'ready', 'failed')),
    mix_until_us    BIGINT NOT NULL,
    mix_error       TEXT
);
CREATE UNIQUE INDEX recordings_open ON recordings (channel_id) WHERE ended_us IS NULL;
CREATE INDEX recordings_by_channel ON recordings (channel_id, started_us);
CREATE INDEX recordings_by_start ON recordings (started_us);
CREATE INDEX recordings_unfinished ON recordings (ended_us) WHERE finished_us IS NULL;
CREATE INDEX recordings_to_mix ON recordings (mix_until_us) WHERE mix_state = 'wanted';

-- One speaker as one node heard them, from `started_us` on: a file of so many samples at 48 kHz.
CREATE TABLE recording_tracks (
    id           UUID   NOT NULL PRIMARY KEY,
    recording_id UUID   NOT NULL REFERENCES recordings (id) ON DELETE CASCADE,
    user_id      UUID   NOT NULL,
    username     TEXT   NOT NULL,
    node         TEXT   NOT NULL,
    started_us   BIGINT NOT NULL,
    samples      BIGINT NOT NULL,
    bytes        BIGINT NOT NULL,
    channels     BIGINT NOT NULL
);
CREATE INDEX recording_tracks_by_recording ON recording_tracks (recording_id, started_us);
