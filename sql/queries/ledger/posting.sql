-- name: post
-- One row: the outcome of each item; see sql/functions/ledger_post.sql. Arrays that every call has come as text and
-- are parsed here in a quarter of the driver's time, which is 0.4 us to encode a number of an array and 1.2 us a text.
SELECT
    batch, recorded, outcomes, culprits, figures, leg_version, leg_balance, leg_posted, item_amount, item_captured,
    item_expires, item_effective
FROM ledger_post(
    $1::text::uuid[], $2::text::smallint[], $3::text::bigint[], $4::text::bigint[], $5::text::integer[],
    $6::text::text[], $7::text::integer[], $8::text::integer[], $9::text::text[], $10::text::integer[],
    $11::text::bigint[], $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27,
    payable_ids => $28, item_payable => $29, item_limits => $30, unfrozen => $31,
    condition_revision => $32, condition_available_min => $33, condition_available_max => $34,
    item_revision => $35, item_unit => $36, administered => $37, expiry_seconds => $38, effective_span => $39
);

-- name: post_with_effects
-- The row of `post`, and the effects of posted items in its transaction; see sql/functions/posting_effects.sql.
WITH posted AS MATERIALIZED (
    SELECT
        batch, recorded, outcomes, culprits, figures, leg_version, leg_balance, leg_posted, item_amount, item_captured,
        item_expires, item_effective
    FROM ledger_post(
        $1::text::uuid[], $2::text::smallint[], $3::text::bigint[], $4::text::bigint[], $5::text::integer[],
        $6::text::text[], $7::text::integer[], $8::text::integer[], $9::text::text[], $10::text::integer[],
        $11::text::bigint[], $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27,
        payable_ids => $28, item_payable => $29, item_limits => $30, unfrozen => $31,
        condition_revision => $32, condition_available_min => $33, condition_available_max => $34,
        item_revision => $35, item_unit => $36, administered => $37, expiry_seconds => $38, effective_span => $39
    )
)

SELECT
    posted.*,
    posting_effects(
        ids => $1::text::uuid[], outcomes => posted.outcomes, payable_ids => $28, item_payable => $29, settlers => $40,
        event_items => $41, event_ids => $42, event_principals => $43, event_types => $44, event_objects => $45,
        event_bodies => $46,
        audit_items => $47, audit_ids => $48, audit_types => $49, audit_actors => $50, audit_users => $51,
        audit_objects => $52, audit_data => $53, inbox_claim => $54, inbox_ids => $55, inbox_items => $56,
        inbox_reasons => $57, inbox_ends => $58
    ) AS due
FROM posted;

-- name: post_and_deliver
-- The row of `post_with_effects`. Where events could be fanned out at once (`posting_tells_at_once`, $59 is `since`)
-- the rows of `outbox_deliver` follow, for worker $60 under token $61, with the room of its sender in $62 to $70.
WITH posted AS MATERIALIZED (
    SELECT
        batch, recorded, outcomes, culprits, figures, leg_version, leg_balance, leg_posted, item_amount, item_captured,
        item_expires, item_effective
    FROM ledger_post(
        $1::text::uuid[], $2::text::smallint[], $3::text::bigint[], $4::text::bigint[], $5::text::integer[],
        $6::text::text[], $7::text::integer[], $8::text::integer[], $9::text::text[], $10::text::integer[],
        $11::text::bigint[], $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27,
        payable_ids => $28, item_payable => $29, item_limits => $30, unfrozen => $31,
        condition_revision => $32, condition_available_min => $33, condition_available_max => $34,
        item_revision => $35, item_unit => $36, administered => $37, expiry_seconds => $38, effective_span => $39
    )
),

told AS MATERIALIZED (
    SELECT
        CASE
            WHEN $41::integer[] IS NOT NULL
                THEN posting_tells_at_once(posted.outcomes, $41, $42, $43, $44, $45, $46, $59)
        END AS ids
    FROM posted
),

done AS MATERIALIZED (
    SELECT
        posting_effects(
            ids => $1::text::uuid[], outcomes => posted.outcomes, payable_ids => $28, item_payable => $29,
            settlers => $40, event_items => CASE WHEN told.ids IS NULL THEN $41 END, event_ids => $42,
            event_principals => $43, event_types => $44, event_objects => $45, event_bodies => $46,
            audit_items => $47, audit_ids => $48, audit_types => $49, audit_actors => $50, audit_users => $51,
            audit_objects => $52, audit_data => $53, inbox_claim => $54, inbox_ids => $55, inbox_items => $56,
            inbox_reasons => $57, inbox_ends => $58
        ) AS due
    FROM posted CROSS JOIN told
)

SELECT
    posted.*, done.due, NULL::integer AS due_deliveries, NULL::uuid AS id, NULL::uuid AS event_id,
    NULL::uuid AS endpoint_id, NULL::text AS ordered_object, NULL::integer AS attempts, NULL::text AS event_type,
    NULL::bytea AS body, NULL::text AS url, NULL::text AS headers, NULL::boolean AS disabled, NULL::boolean AS failing,
    NULL::text[] AS secrets, NULL::text[] AS signing_keys
FROM posted CROSS JOIN done
UNION ALL
SELECT
    NULL AS batch, NULL AS recorded, NULL AS outcomes, NULL AS culprits, NULL AS figures, NULL AS leg_version,
    NULL AS leg_balance, NULL AS leg_posted, NULL AS item_amount, NULL AS item_captured, NULL AS item_expires,
    NULL AS item_effective, NULL AS due, made.due AS due_deliveries, made.id, made.event_id, made.endpoint_id,
    made.ordered_object, made.attempts, made.event_type, made.body, made.url, made.headers, made.disabled, made.failing,
    made.secrets, made.signing_keys
FROM told
CROSS JOIN
    LATERAL outbox_deliver(
        told.ids, $60::uuid, $61::uuid, $62::double precision, $63::uuid[], $64::integer[], $65::integer[],
        $66::boolean[], $67::integer, $68::integer, $69::integer, $70::integer
    ) AS made
WHERE told.ids IS NOT NULL;
