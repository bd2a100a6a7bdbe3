-- Numbers of posted legs: 42 bits for the batch, 10 for the item's place in it from 1, 12 for the leg's place from 0.
-- The planner inlines each of these functions, so that an index on `no >> 22` serves `batch_of(no)`: hence no SET.

-- The number of an item, which is its first leg's, too. Place 0 has the lowest number of the batch.
CREATE OR REPLACE FUNCTION item_no(batch bigint, place bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT (batch << 22) + (place << 12) $$;

-- The highest number of a batch.
CREATE OR REPLACE FUNCTION last_no(batch bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT (batch << 22) | 4194303 $$;

-- The batch of any number.
CREATE OR REPLACE FUNCTION batch_of(no bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT no >> 22 $$;

-- The number of a leg's item.
CREATE OR REPLACE FUNCTION item_of(no bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT (no >> 12) << 12 $$;

REVOKE EXECUTE ON FUNCTION item_no, last_no, batch_of, item_of FROM public;
GRANT EXECUTE ON FUNCTION item_no, last_no, batch_of, item_of TO tallystick_serving;
