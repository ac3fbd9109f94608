-- What writes and estimates free-standing counters. PL/pgSQL names the schema in the text of its functions, so that install
-- runs this file again where the schema was renamed.

-- What each writing function asks first, an add where something is unusual. It runs under the search path of its caller,
-- which is one of them.
CREATE OR REPLACE FUNCTION {schema}.counter_checked(
    of_counter text, of_key text, n numeric, OUT id bigint, OUT shards integer, OUT is_numeric boolean
) LANGUAGE plpgsql STABLE
    AS $$
    BEGIN
        IF of_key IS NULL OR n IS NULL THEN
            RAISE null_value_not_allowed USING
                MESSAGE = format('counter "%s": neither a key nor a number may be NULL.', of_counter);
        END IF;
        SELECT c.id, coalesce((c.shards_for ->> of_key)::integer, c.shards), c.is_numeric
        INTO id, shards, is_numeric FROM {schema}.counter AS c WHERE c.name = of_counter;
        IF NOT FOUND THEN
            RAISE undefined_object USING
                MESSAGE = format('counter "%s" is not installed.', of_counter),
                HINT = format('Run: tally install %s', of_counter);
        ELSIF n IN ('NaN', 'Infinity', '-Infinity') OR (NOT is_numeric AND n <> trunc(n)) THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('counter "%s": expected a number%s, got %s.', of_counter,
                    CASE WHEN is_numeric THEN '' ELSE ' without a fraction' END, n);
        ELSIF octet_length(of_key) > 2000 THEN
            RAISE check_violation USING
                MESSAGE = format('counter "%s": a key has at most 2,000 bytes, got %s.', of_counter, octet_length(of_key));
        ELSIF NOT is_numeric THEN
            PERFORM n::bigint;
        END IF;
    END
    $$;

-- Add to one row that nobody holds. The first choice follows from the transaction's number: each transaction begins
-- elsewhere, and one that adds again finds its own row.
CREATE OR REPLACE FUNCTION {schema}.counter_add(of_counter text, of_key text, n numeric) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        id bigint;
        shards integer;
        is_numeric boolean;
        level text := current_setting('transaction_isolation');
        first integer;
        place tid;
        total numeric;
    BEGIN
        SELECT c.id, coalesce((c.shards_for ->> of_key)::integer, c.shards), c.is_numeric
        INTO id, shards, is_numeric FROM {schema}.counter AS c WHERE c.name = of_counter;
        -- A call costs more than the look-up, and is left out where it could not complain: of NaN, infinities and NULL
        -- nothing here is true.
        IF NOT coalesce(
            id > 0 AND abs(n) < 1099511627776 AND (is_numeric OR n = trunc(n)) AND octet_length(of_key) <= 2000, false
        ) THEN
            PERFORM {schema}.counter_checked(of_counter, of_key, n);
        END IF;
        first := (hashint8(pg_current_xact_id()::text::bigint) & 2147483647) % shards;
        IF level IN ('read committed', 'read uncommitted') THEN
            -- A range and an order where one shard is meant: for LIMIT 1 of an equality, the planner may walk over the table.
            SELECT f.ctid INTO place FROM {schema}.counter_shard AS f
            WHERE f.counter = id AND f.key = of_key COLLATE "C" AND f.shard BETWEEN first AND first
            ORDER BY f.counter, f.key, f.shard FOR NO KEY UPDATE SKIP LOCKED LIMIT 1;
            IF place IS NULL THEN
                -- Another one behind it, unless the first has no row yet; that is inserted then.
                SELECT f.ctid INTO place FROM {schema}.counter_shard AS f
                WHERE f.counter = id AND f.key = of_key COLLATE "C" AND f.shard > first AND first = (
                    SELECT min(e.shard) FROM {schema}.counter_shard AS e
                    WHERE e.counter = id AND e.key = of_key COLLATE "C" AND e.shard >= first
                )
                ORDER BY f.counter, f.key, f.shard FOR NO KEY UPDATE SKIP LOCKED LIMIT 1;
                IF place IS NULL THEN
                    SELECT f.ctid INTO place FROM {schema}.counter_shard AS f
                    WHERE f.counter = id AND f.key = of_key COLLATE "C" AND f.shard < first AND first = (
                        SELECT min(e.shard) FROM {schema}.counter_shard AS e
                        WHERE e.counter = id AND e.key = of_key COLLATE "C" AND e.shard >= first
                    )
                    ORDER BY f.counter, f.key, f.shard FOR NO KEY UPDATE SKIP LOCKED LIMIT 1;
                END IF;
            END IF;
        ELSIF level = 'repeatable read' THEN
            -- A row that somebody changed since the snapshot cannot be updated: only the transaction's own is.
            SELECT f.ctid INTO place FROM {schema}.counter_shard AS f
            WHERE f.counter = id AND f.key = of_key COLLATE "C" AND f.shard BETWEEN first AND first
              AND f.xmin = pg_current_xact_id()::xid
            ORDER BY f.counter, f.key, f.shard LIMIT 1;
        END IF;
        -- At SERIALIZABLE nothing is read, since a read could conflict with the adds of others.

        -- A statement of its own: the row may be newer than the snapshot of the one that has locked it.
        UPDATE {schema}.counter_shard AS s SET value = s.value + n WHERE s.ctid = place RETURNING s.value INTO total;
        IF NOT FOUND THEN
            INSERT INTO {schema}.counter_shard (counter, key, shard, value) VALUES (id, of_key, first, n);
        END IF;
        -- Below 2^40 in each of up to 2^23 rows, no total can pass a bigint. A new row tells nothing of the others.
        IF NOT is_numeric AND (abs(coalesce(total, n)) >= 1099511627776 OR (total IS NULL AND level <> 'serializable')) THEN
            PERFORM sum(s.value)::bigint FROM {schema}.counter_shard AS s WHERE s.counter = id AND s.key = of_key COLLATE "C";
        END IF;
    END
    $$;

CREATE OR REPLACE FUNCTION {schema}.counter_add_many(of_counter text, of_keys text[], numbers numeric[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        each record;
    BEGIN
        FOR each IN SELECT u.key, u.n FROM unnest(of_keys, numbers) AS u (key, n) ORDER BY u.key COLLATE "C" LOOP
            PERFORM {schema}.counter_add(of_counter, each.key, each.n);
        END LOOP;
    END
    $$;

-- Rows that sum to a total and differ by 1 at most; for a total with a fraction, one of them has it.
CREATE OR REPLACE FUNCTION {schema}.counter_spread(of_id bigint, of_key text, total numeric, shards integer) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        base numeric := div(total, shards);
        rest numeric := total - base * shards;
    BEGIN
        IF rest < 0 THEN
            base := base - 1;
            rest := rest + shards;
        END IF;
        INSERT INTO {schema}.counter_shard (counter, key, shard, value)
        SELECT of_id, of_key, i, base + greatest(least(rest - i, 1), 0)
        FROM generate_series(0, shards - 1) AS i WHERE base + greatest(least(rest - i, 1), 0) <> 0;
    END
    $$;

-- The places of all rows of a key that nobody else holds; they are ours then.
CREATE OR REPLACE FUNCTION {schema}.counter_held(of_id bigint, of_key text) RETURNS tid[]
    LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT coalesce(array_agg(f.place), '{{}}') FROM (
            SELECT s.ctid AS place FROM {schema}.counter_shard AS s
            WHERE s.counter = of_id AND s.key = of_key COLLATE "C" FOR UPDATE SKIP LOCKED
        ) AS f
    $$;

CREATE OR REPLACE FUNCTION {schema}.counter_set(of_counter text, of_key text, n numeric) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        c record;
        places tid[] := '{{}}';
        rest numeric;
    BEGIN
        SELECT * INTO c FROM {schema}.counter_checked(of_counter, of_key, n);
        -- A backfill, which sets all keys, is waited for here.
        PERFORM FROM {schema}.counter AS t WHERE t.id = c.id FOR SHARE;
        INSERT INTO {schema}.counter_set AS t (counter, key, sets) VALUES (c.id, of_key, 1)
        ON CONFLICT (counter, key) DO UPDATE SET sets = t.sets + 1;
        IF current_setting('transaction_isolation') IN ('read committed', 'read uncommitted') THEN
            places := {schema}.counter_held(c.id, of_key);
        END IF;
        -- The rows of others stay; what they show now is taken off, and what they add later is added.
        SELECT coalesce(sum(s.value), 0) INTO rest FROM {schema}.counter_shard AS s
        WHERE s.counter = c.id AND s.key = of_key COLLATE "C" AND s.ctid <> ALL (places);
        DELETE FROM {schema}.counter_shard AS s WHERE s.ctid = ANY (places);
        PERFORM {schema}.counter_spread(c.id, of_key, n - rest, c.shards);
    END
    $$;

CREATE OR REPLACE FUNCTION {schema}.counter_rebalance(of_counter text, of_key text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        c record;
        places tid[];
        total numeric;
    BEGIN
        SELECT * INTO c FROM {schema}.counter_checked(of_counter, of_key, 0);
        places := {schema}.counter_held(c.id, of_key);
        WITH gone AS (DELETE FROM {schema}.counter_shard AS s WHERE s.ctid = ANY (places) RETURNING s.value)
        SELECT coalesce(sum(gone.value), 0) INTO total FROM gone;
        PERFORM {schema}.counter_spread(c.id, of_key, total, c.shards);
    END
    $$;

-- Each shard is as likely to be read, so the mean of all estimates is the count.
CREATE OR REPLACE FUNCTION {schema}.counter_estimate(of_counter text, of_key text, shards_read integer) RETURNS numeric
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        c record;
        reads integer;
        chosen integer[];
        total numeric;
    BEGIN
        IF of_key IS NULL THEN
            RETURN 0;
        END IF;
        SELECT * INTO c FROM {schema}.counter_checked(of_counter, of_key, 0);
        reads := greatest(1, least(shards_read, c.shards));
        chosen := ARRAY(SELECT i FROM generate_series(0, c.shards - 1) AS i ORDER BY random() LIMIT reads);
        SELECT coalesce(sum(f.value), 0) INTO total FROM (
            SELECT s.value FROM {schema}.counter_shard AS s
            WHERE s.counter = c.id AND s.key = of_key COLLATE "C" AND s.shard = ANY (chosen)
            UNION ALL
            SELECT s.value FROM {schema}.counter_shard AS s
            WHERE s.counter = c.id AND s.key = of_key COLLATE "C" AND s.shard >= c.shards AND s.shard % c.shards = ANY (chosen)
        ) AS f;
        IF reads = c.shards THEN
            RETURN total;
        END IF;
        total := total * c.shards / reads;
        RETURN CASE WHEN c.is_numeric THEN total ELSE round(total) END;
    END
    $$;

-- Bring up to `keys` keys above `after` back to one row per shard; rows that others hold are left to a later fold.
-- Gives the number of keys, of rows before and of rows afterwards, and the last key; no key when there are no more.
CREATE OR REPLACE FUNCTION {schema}.counter_fold(
    of_counter text, after text, keys integer, OUT folded bigint, OUT before bigint, OUT behind bigint, OUT last text
) LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
    DECLARE
        c record;
        found_key text;
        shards integer;
        places tid[];
        written bigint;
    BEGIN
        folded := 0;
        before := 0;
        behind := 0;
        SELECT t.* INTO c FROM {schema}.counter AS t WHERE t.name = of_counter;
        FOR found_key IN
            SELECT f.key FROM (
                SELECT s.key FROM {schema}.counter_shard AS s WHERE s.counter = c.id AND s.is_fresh
                UNION
                SELECT s.key FROM {schema}.counter_shard AS s
                WHERE c.is_resized AND s.counter = c.id
                  AND s.shard >= coalesce((c.shards_for ->> s.key)::integer, c.shards)
            ) AS f WHERE after IS NULL OR f.key > after COLLATE "C" ORDER BY f.key LIMIT keys
        LOOP
            shards := coalesce((c.shards_for ->> found_key)::integer, c.shards);
            places := {schema}.counter_held(c.id, found_key);
            WITH gone AS (
                DELETE FROM {schema}.counter_shard AS s WHERE s.ctid = ANY (places) RETURNING s.shard, s.value
            ), merged AS (
                SELECT g.shard % shards AS shard, sum(g.value) AS value FROM gone AS g GROUP BY 1 HAVING sum(g.value) <> 0
            )
            INSERT INTO {schema}.counter_shard (counter, key, shard, value, is_fresh)
            SELECT c.id, found_key, m.shard, m.value, EXISTS (
                SELECT FROM {schema}.counter_shard AS s
                WHERE s.counter = c.id AND s.key = found_key COLLATE "C" AND s.ctid <> ALL (places)
            ) FROM merged AS m;
            GET DIAGNOSTICS written = ROW_COUNT;
            folded := folded + 1;
            before := before + cardinality(places);
            behind := behind + written;
            last := found_key;
        END LOOP;
    END
    $$;

REVOKE ALL ON FUNCTION
    {schema}.counter_checked(text, text, numeric), {schema}.counter_add(text, text, numeric),
    {schema}.counter_add_many(text, text[], numeric[]), {schema}.counter_spread(bigint, text, numeric, integer),
    {schema}.counter_held(bigint, text), {schema}.counter_set(text, text, numeric),
    {schema}.counter_rebalance(text, text), {schema}.counter_estimate(text, text, integer),
    {schema}.counter_fold(text, text, integer)
    FROM PUBLIC;
