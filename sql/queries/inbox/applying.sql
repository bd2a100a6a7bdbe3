-- name: finish_inbox_events
-- Finish events $2 of claim $1, none of which has an effect, for the reasons $3; the claim ends with them if $4. The
-- number of events. A claim that is gone raises TS002.
SELECT inbox_finish($1, $2::uuid[], array_fill(0, ARRAY[cardinality($2::uuid[])]), $3::text[], $4, '{}');
