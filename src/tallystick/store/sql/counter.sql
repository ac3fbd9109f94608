-- Free-standing counters: one row per counter, and the rows that its count is the sum of.

CREATE TABLE {schema}.counter (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    is_numeric boolean NOT NULL,
    shards integer NOT NULL CHECK (shards BETWEEN 1 AND 10000),
    shards_for jsonb NOT NULL,
    definition text,
    fingerprint text NOT NULL,
    is_resized boolean NOT NULL DEFAULT false,
    backfills bigint NOT NULL DEFAULT 0,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE {schema}.counter IS 'tallystick: one row per free-standing counter';
COMMENT ON COLUMN {schema}.counter.is_resized IS 'rows may stand beyond the configured shards; a fold looks for them';

-- No unique constraint: an add would wait for another that inserts the same shard. Counters are known by a number that is
-- never given again, so that an add that outlives an uninstall counts in no later counter of that name.
CREATE TABLE {schema}.counter_shard (
    counter bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    shard integer NOT NULL,
    value numeric NOT NULL,
    is_fresh boolean NOT NULL DEFAULT true
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0.05, vacuum_truncate = off);
COMMENT ON TABLE {schema}.counter_shard IS 'tallystick: a count is the sum of all rows of its key';
COMMENT ON COLUMN {schema}.counter_shard.is_fresh IS 'no fold has seen it yet; there may be others of the same shard';
-- Adds write neither column of an index, so that their updates are HOT.
CREATE INDEX ON {schema}.counter_shard (counter, key, shard);
CREATE INDEX ON {schema}.counter_shard (counter, key) WHERE is_fresh;
-- Else a publication of all tables would refuse every add.
ALTER TABLE {schema}.counter_shard REPLICA IDENTITY FULL;

-- What sets of one key meet at. At READ COMMITTED the later waits for the earlier; at the levels above, a set whose
-- snapshot does not see the other fails with 40001, where it would have added both values.
CREATE TABLE {schema}.counter_set (
    counter bigint,
    key text COLLATE "C" CHECK (octet_length(key) <= 2000),
    sets bigint NOT NULL,
    PRIMARY KEY (counter, key)
) WITH (fillfactor = 70);
COMMENT ON TABLE {schema}.counter_set IS 'tallystick: one row per key that was ever set; sets of it wait here';
