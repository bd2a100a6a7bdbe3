-- name: submit_kyc
-- Let user $1 wait for approval and return the id; no row comes back for a user who waits already or is approved.
UPDATE users SET kyc_status = 'pending' WHERE id = $1 AND kyc_status IN ('none', 'rejected')
RETURNING id;

-- name: approve_kyc
-- Approve user $1 and return the level; no row comes back for a user who is approved already.
UPDATE users SET kyc_status = 'approved', kyc_level = greatest(kyc_level, 1)
WHERE id = $1 AND (kyc_status <> 'approved' OR kyc_level < 1)
RETURNING kyc_level;
