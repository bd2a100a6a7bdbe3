-- name: cash_crowded
-- Whether more than $2 cash requests of the customer $1 are open (sql/functions/cash_crowded.sql).
SELECT cash_crowded($1, $2) AS crowded;
