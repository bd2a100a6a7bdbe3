-- Partitions by time, step 2 of 3: no row of before lies behind the ends that step 1 has set.
--
-- online: yes, readers and writers go on while each table is read once
--
-- Each table is read once, and rows are written and read meanwhile.

ALTER TABLE webhook_attempts VALIDATE CONSTRAINT webhook_attempts_ends;
ALTER TABLE audit_events VALIDATE CONSTRAINT audit_events_ends;
