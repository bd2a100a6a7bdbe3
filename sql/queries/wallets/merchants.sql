-- name: enable_merchant
-- The id when user $1 was no merchant and is one now; else no row.
UPDATE users SET is_merchant = TRUE, merchant_since = coalesce(merchant_since, clock_timestamp())
WHERE id = $1 AND NOT is_merchant
RETURNING id;

-- name: apply_as_merchant
-- The id when user $1 has applied just now; no row for a user who had applied or was decided on.
UPDATE users SET merchant_status = 'applied'
WHERE id = $1 AND NOT is_merchant AND kyc_status = 'approved' AND merchant_status IN ('none', 'rejected')
RETURNING id;
