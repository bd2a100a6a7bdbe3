-- Partitions by time, step 2 of 3: no row of before lies behind the ends that step 1 has set.
-- online: yes, both tables are read once, and written and read meanwhile

-- A hundred million rows take some minutes, for which nobody waits.
SET LOCAL statement_timeout = '1h';
ALTER TABLE webhook_attempts VALIDATE CONSTRAINT webhook_attempts_ends;
ALTER TABLE audit_events VALIDATE CONSTRAINT audit_events_ends;
