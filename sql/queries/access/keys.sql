-- name: used_ids
-- The ids of $1 under which a posting or a payable is stored.
SELECT k.id FROM keys AS k WHERE k.id = any((SELECT $1::uuid[])::uuid[])
UNION
SELECT p.id FROM payables AS p WHERE p.id = any((SELECT $1::uuid[])::uuid[]);
