-- name: enable_merchant
-- Make user $1 a merchant and return the id; no row comes back for a merchant.
UPDATE users SET is_merchant = TRUE, merchant_since = coalesce(merchant_since, clock_timestamp())
WHERE id = $1 AND NOT is_merchant
RETURNING id;

-- name: apply_as_merchant
-- Note that user $1 applies and return the id; no row comes back for a user who must not apply now.
UPDATE users SET merchant_status = 'applied'
WHERE id = $1 AND NOT is_merchant AND kyc_status = 'approved' AND merchant_status IN ('none', 'rejected')
RETURNING id;
