-- What every installation needs once. The quoted name of the schema is filled in at each place in braces.

DO $do$
BEGIN
    -- IF NOT EXISTS asks for the right to create schemas even where nothing is created.
    IF to_regnamespace({schema_name}) IS NULL THEN
        CREATE SCHEMA {schema};
    END IF;
END
$do$;

CREATE TABLE {schema}.layout (
    version integer NOT NULL
);
COMMENT ON TABLE {schema}.layout IS 'tallystick: version of the layout of this schema';
INSERT INTO {schema}.layout (version) VALUES (4);

CREATE TABLE {schema}.aggregate (
    name text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('grouped', 'ordered')),
    definition text NOT NULL,
    fingerprint text NOT NULL,
    source regclass NOT NULL,
    mirror regclass,
    ordering text,
    index text,
    generated text,
    phase text NOT NULL CHECK (phase IN ('building', 'kept')),
    serving text NOT NULL CHECK (serving IN ('kept', 'direct')),
    rolled_back boolean NOT NULL DEFAULT false,
    installed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    backfilled_at timestamptz,
    CHECK (serving = 'direct' OR (phase = 'kept' AND NOT rolled_back))
);
COMMENT ON TABLE {schema}.aggregate IS 'tallystick: one row per aggregate; serving is the switch that readers follow';
COMMENT ON COLUMN {schema}.aggregate.backfilled_at IS 'when a backfill ended last; NULL before the first';
COMMENT ON COLUMN {schema}.aggregate.rolled_back IS 'an operator keeps readers on the source, until resume';
COMMENT ON COLUMN {schema}.aggregate.index IS 'name of an index of the source; restored before it, and kept by REINDEX';

CREATE TABLE {schema}.reset (
    aggregate text NOT NULL,
    epoch bigint NOT NULL,
    partition regclass,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (aggregate, epoch)
);
COMMENT ON TABLE {schema}.reset IS 'tallystick: left by TRUNCATE; state, and deltas of a lower epoch, are void';
COMMENT ON COLUMN {schema}.reset.partition IS 'only this one was truncated: the state holds more than the source';

-- Deltas of transactions before the floor have all been folded, so readers begin there. Transaction ids mean nothing in
-- another cluster: the floor counts only in a row that its folder wrote itself, which the row's xmin tells, and if that
-- folder is no transaction to come. A row that was restored has another xmin, or by chance the same; then the floor,
-- which is never above its folder, is no higher than what is written here later.
CREATE TABLE {schema}.watermark (
    aggregate text PRIMARY KEY,
    floor xid8 NOT NULL DEFAULT '0',
    folder xid8 NOT NULL DEFAULT '0',
    major integer NOT NULL DEFAULT current_setting('server_version_num')::integer / 10000,
    files oid[]
) WITH (fillfactor = 10);
COMMENT ON TABLE {schema}.watermark IS 'tallystick: how far each aggregate is folded, and by which major version';
COMMENT ON COLUMN {schema}.watermark.files IS 'of an ordered one: files of the source that its buckets stand for';

CREATE TABLE {schema}.partition (
    aggregate text NOT NULL,
    relation regclass NOT NULL,
    attached xid NOT NULL,
    PRIMARY KEY (aggregate, relation)
);
COMMENT ON TABLE {schema}.partition IS 'tallystick: partitions that are counted; xmin of their rows in pg_inherits';

-- Two passes may be under way: that of the workers, which never ends, and one that was asked for.
CREATE TABLE {schema}.audit (
    aggregate text NOT NULL,
    pass text NOT NULL CHECK (pass IN ('worker', 'asked')),
    position text[],
    groups bigint NOT NULL,
    drifted bigint NOT NULL,
    passes bigint NOT NULL,
    size bigint NOT NULL,
    verified_at timestamptz NOT NULL,
    PRIMARY KEY (aggregate, pass)
);
COMMENT ON TABLE {schema}.audit IS 'tallystick: how far each aggregate has been verified chunk by chunk';
COMMENT ON COLUMN {schema}.audit.position IS 'last group key, or level and place, of the last chunk; NULL between passes';
COMMENT ON COLUMN {schema}.audit.groups IS 'verified in this pass, or the last one; so is drifted';
COMMENT ON COLUMN {schema}.audit.size IS 'groups, or buckets, of the next chunk, about';

CREATE TABLE {schema}.event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role name NOT NULL DEFAULT session_user,
    application text NOT NULL DEFAULT current_setting('application_name'),
    what text NOT NULL,
    aggregate text,
    detail jsonb NOT NULL DEFAULT '{{}}'
);
COMMENT ON TABLE {schema}.event IS 'tallystick: who did what, and when';

-- Workers write these for each other and for whoever watches them; no reader or writer of the user's looks here.
CREATE TABLE {schema}.worker (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    doing text
) WITH (fillfactor = 50);
COMMENT ON TABLE {schema}.worker IS 'tallystick: running workers; one that ends by itself takes its row with it';

CREATE TABLE {schema}.backlog (
    aggregate text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE {schema}.backlog IS 'tallystick: what waits to be folded, and since when a worker has seen it wait';

CREATE TABLE {schema}.schedule (
    name text PRIMARY KEY,
    cron text NOT NULL,
    task text NOT NULL CHECK (task IN ('reset', 'verify')),
    aggregate text CHECK (aggregate IS NOT NULL OR task = 'verify'),
    key text CHECK (key IS NULL OR task = 'reset'),
    due_at timestamptz NOT NULL,
    done_at timestamptz
);
COMMENT ON TABLE {schema}.schedule IS 'tallystick: tasks by cron expressions in UTC; due_at moves on with the effect';

-- A delta carries the epoch at which it was written. TRUNCATE draws the next one under its ACCESS EXCLUSIVE lock, so
-- whatever was written to the table before has a lower epoch and whatever is written after has at least that one.
CREATE SEQUENCE {schema}.epoch;
SELECT nextval({epoch_name});

-- All that is below a partitioned table, at any depth, in the snapshot of the statement: each with the transaction that
-- attached it, and the way that leads down to it. PostgreSQL's own function takes locks and ignores the snapshot.
CREATE FUNCTION {schema}.below(source regclass)
    RETURNS TABLE (relation regclass, attached xid, path oid[]) LANGUAGE sql STABLE
    BEGIN ATOMIC
        WITH RECURSIVE t AS (
            SELECT i.inhrelid, i.xmin AS attached, ARRAY[i.inhrelid] AS path
            FROM pg_inherits AS i WHERE i.inhparent = source AND NOT i.inhdetachpending
            UNION ALL
            SELECT i.inhrelid, i.xmin, t.path || i.inhrelid
            FROM pg_inherits AS i JOIN t ON i.inhparent = t.inhrelid WHERE NOT i.inhdetachpending
        )
        SELECT t.inhrelid::regclass, t.attached, t.path FROM t;
    END;
REVOKE ALL ON FUNCTION {schema}.below FROM PUBLIC;

-- The functions below are pure and may be executed by every role: views that readers use call them.

-- The decimal number that a floating point value is written as. Its text is the shortest that reads back as the same
-- value, unless a session has turned that off.
CREATE FUNCTION {schema}.shortest_text(double precision) RETURNS text
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog SET extra_float_digits = 1
    AS $$ BEGIN RETURN $1::text; END $$;
CREATE FUNCTION {schema}.shortest_text(real) RETURNS text
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog SET extra_float_digits = 1
    AS $$ BEGIN RETURN $1::text; END $$;
CREATE FUNCTION {schema}.shortest(double precision) RETURNS numeric
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN current_setting('extra_float_digits')::integer > 0
                    THEN $1::text ELSE {schema}.shortest_text($1) END::numeric;
    END;
CREATE FUNCTION {schema}.shortest(real) RETURNS numeric
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN current_setting('extra_float_digits')::integer > 0
                    THEN $1::text ELSE {schema}.shortest_text($1) END::numeric;
    END;

-- The nearest floating point value. What is nearer to 0 than to the least value is 0, as in PostgreSQL's own arithmetic,
-- where its cast raises an error; what is too great is an error in both.
CREATE FUNCTION {schema}.nearest_double(value numeric) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN abs(value) <= 2.47032822920623272088284396434110686182e-324::numeric
                    THEN 0 ELSE value::double precision END;
    END;
CREATE FUNCTION {schema}.nearest_real(value numeric) RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN abs(value) <= 7.00649232162408535461864791644958e-46::numeric THEN 0 ELSE value::real END;
    END;

-- One row's entry in a census: 10^0 for NaN, 10^12 for infinity, 10^24 for minus infinity, 10^(36 + 12 * scale) for
-- a finite value where scales are wanted, else nothing.
CREATE FUNCTION {schema}.census(value numeric, scales boolean) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN value = 'NaN' THEN 1::numeric
                    WHEN value = 'Infinity' THEN 1000000000000::numeric
                    WHEN value = '-Infinity' THEN 1000000000000000000000000::numeric
                    WHEN scales AND value IS NOT NULL THEN ('1e' || (36 + 12 * least(scale(value), 1000))::text)::numeric
               END;
    END;

-- The widest scale that a census has counted; 0 where it has counted none.
CREATE FUNCTION {schema}.widest_scale(census numeric) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN census >= 1000000000000000000000000000000000000::numeric
                    THEN (length(trunc(census)::text) - 37) / 12 ELSE 0 END;
    END;

-- A total of finite values, corrected for the NaNs and infinities that a census has counted beside them.
CREATE FUNCTION {schema}.with_specials(total numeric, census numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE
            WHEN census IS NULL OR mod(census, 1000000000000000000000000000000000000::numeric) = 0 THEN coalesce(total, 0)
            WHEN mod(census, 1000000000000::numeric) > 0 THEN 'NaN'::numeric
            WHEN mod(div(census, 1000000000000::numeric), 1000000000000::numeric) > 0
                 AND mod(div(census, 1000000000000000000000000::numeric), 1000000000000::numeric) > 0 THEN 'NaN'::numeric
            WHEN mod(div(census, 1000000000000::numeric), 1000000000000::numeric) > 0 THEN 'Infinity'::numeric
            ELSE '-Infinity'::numeric
        END;
    END;

-- Variance and standard deviation as numeric_stddev_internal in PostgreSQL's numeric.c computes them, digit for digit:
-- the scales of the totals decide the scale of the quotient. A scale of NULL stands for the totals' shortest scales.
CREATE FUNCTION {schema}.variance(counted bigint, total numeric, squares numeric, digits integer, sample boolean)
    RETURNS numeric LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog
    AS $$
    DECLARE
        s numeric := CASE WHEN digits IS NULL THEN trim_scale(total) ELSE round(total, digits) END;
        q numeric := CASE WHEN digits IS NULL THEN trim_scale(squares) ELSE round(squares, 2 * digits) END;
        spread numeric;
    BEGIN
        IF counted = 0 OR (sample AND counted = 1) THEN
            RETURN NULL;
        ELSIF total IN ('NaN', 'Infinity', '-Infinity') THEN
            RETURN 'NaN';
        END IF;
        spread := counted * q - s * s;
        RETURN CASE WHEN spread <= 0 THEN 0 ELSE spread / (counted::numeric * (counted - sample::integer)) END;
    END
    $$;

-- sqrt() may carry more digits than the quotient it is taken of; rounding twice is put right where it shows.
CREATE FUNCTION {schema}.deviation(counted bigint, total numeric, squares numeric, digits integer, sample boolean)
    RETURNS numeric LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog
    AS $$
    DECLARE
        v numeric := {schema}.variance(counted, total, squares, digits, sample);
        root numeric;
        half numeric;
    BEGIN
        IF v IS NULL OR v = 0 OR v = 'NaN' THEN
            RETURN v;
        END IF;
        root := round(sqrt(v), scale(v));
        half := ('5e-' || (scale(v) + 1))::numeric;
        RETURN CASE WHEN (root - half) * (root - half) > v THEN root - 2 * half ELSE root END;
    END
    $$;

GRANT EXECUTE ON FUNCTION
    {schema}.shortest_text(double precision), {schema}.shortest_text(real),
    {schema}.shortest(double precision), {schema}.shortest(real),
    {schema}.nearest_double(numeric), {schema}.nearest_real(numeric),
    {schema}.census(numeric, boolean), {schema}.widest_scale(numeric), {schema}.with_specials(numeric, numeric),
    {schema}.variance(bigint, numeric, numeric, integer, boolean),
    {schema}.deviation(bigint, numeric, numeric, integer, boolean)
    TO PUBLIC;
