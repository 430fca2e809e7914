-- Who made a webhook, or had it tried again last: while they are no administrator it is told nothing. NULL where it is older than
-- this column.
ALTER TABLE webhooks ADD COLUMN made_by UUID;
