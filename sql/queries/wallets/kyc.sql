-- name: submit_kyc
-- The id when user $1 waits for approval from now on; no row for a user who waits already or is approved.
UPDATE users SET kyc_status = 'pending' WHERE id = $1 AND kyc_status IN ('none', 'rejected')
RETURNING id;

-- name: approve_kyc
-- The level of user $1 when the approval changed anything; else no row.
UPDATE users SET kyc_status = 'approved', kyc_level = greatest(kyc_level, 1)
WHERE id = $1 AND (kyc_status <> 'approved' OR kyc_level < 1)
RETURNING kyc_level;
