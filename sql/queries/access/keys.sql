-- name: used_ids
-- The ids of $1 under which a posting or a payable is stored.
SELECT k.id FROM keys AS k WHERE k.id = ANY($1::uuid[])
UNION
SELECT p.id FROM payables AS p WHERE p.id = ANY($1::uuid[]);
