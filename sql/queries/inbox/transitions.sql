-- name: finish_transition
-- Finish the event $2 of claim $1, in the transaction of its transition, which has changed something (0) or not (1),
-- as $3 says; the claim ends with it if $4. A claim that is gone raises TS002.
SELECT inbox_finish($1, ARRAY[$2::uuid], ARRAY[1], ARRAY[NULL::text], $4, ARRAY[$3::smallint]);
