-- name: post
-- One row: the outcome of each item; see sql/functions/ledger_post.sql. Arrays that every call has come as text and
-- are parsed here in a quarter of the driver's time, which is 0.4 us to encode a number of an array and 1.2 us a text.
SELECT
    batch, recorded, outcomes, culprits, figures, leg_version, leg_balance, leg_posted, item_amount, item_captured,
    item_expires
FROM ledger_post(
    $1::text::uuid[], $2::text::smallint[], $3::text::bigint[], $4::text::bigint[], $5::text::integer[],
    $6::text::text[], $7::text::integer[], $8::text::integer[], $9::text::text[], $10::text::integer[],
    $11::text::bigint[], $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27,
    payable_ids => $28, item_payable => $29, item_limits => $30, unfrozen => $31
);

-- name: post_with_effects
-- The row of `post`, and the effects of posted items in its transaction; see sql/functions/posting_effects.sql.
WITH posted AS MATERIALIZED (
    SELECT
        batch, recorded, outcomes, culprits, figures, leg_version, leg_balance, leg_posted, item_amount, item_captured,
        item_expires
    FROM ledger_post(
        $1::text::uuid[], $2::text::smallint[], $3::text::bigint[], $4::text::bigint[], $5::text::integer[],
        $6::text::text[], $7::text::integer[], $8::text::integer[], $9::text::text[], $10::text::integer[],
        $11::text::bigint[], $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27,
        payable_ids => $28, item_payable => $29, item_limits => $30, unfrozen => $31
    )
)

SELECT
    posted.*,
    posting_effects(
        ids => $1::text::uuid[], outcomes => posted.outcomes, payable_ids => $28, item_payable => $29, settlers => $32,
        event_items => $33, event_ids => $34, event_principals => $35, event_types => $36, event_objects => $37,
        event_bodies => $38,
        audit_items => $39, audit_ids => $40, audit_types => $41, audit_actors => $42, audit_users => $43,
        audit_objects => $44, audit_data => $45
    ) AS due
FROM posted;
