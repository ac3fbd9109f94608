-- Functions of every installation that have no state; an upgrade replaces them while views use them.

-- All that is below a partitioned table, at any depth, in the snapshot of the statement: each with the transaction that
-- attached it, and the way that leads down to it. PostgreSQL's own function takes locks and ignores the snapshot.
CREATE OR REPLACE FUNCTION {schema}.below(source regclass)
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
CREATE OR REPLACE FUNCTION {schema}.shortest_text(double precision) RETURNS text
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog SET extra_float_digits = 1
    AS $$ BEGIN RETURN $1::text; END $$;
CREATE OR REPLACE FUNCTION {schema}.shortest_text(real) RETURNS text
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog SET extra_float_digits = 1
    AS $$ BEGIN RETURN $1::text; END $$;
CREATE OR REPLACE FUNCTION {schema}.shortest(double precision) RETURNS numeric
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN current_setting('extra_float_digits')::integer > 0
                    THEN $1::text ELSE {schema}.shortest_text($1) END::numeric;
    END;
CREATE OR REPLACE FUNCTION {schema}.shortest(real) RETURNS numeric
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN current_setting('extra_float_digits')::integer > 0
                    THEN $1::text ELSE {schema}.shortest_text($1) END::numeric;
    END;

-- The nearest floating point value. What is nearer to 0 than to the least value is 0, as in PostgreSQL's own arithmetic,
-- where its cast raises an error; what is too great is an error in both.
CREATE OR REPLACE FUNCTION {schema}.nearest_double(value numeric) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN abs(value) <= 2.47032822920623272088284396434110686182e-324::numeric
                    THEN 0 ELSE value::double precision END;
    END;
CREATE OR REPLACE FUNCTION {schema}.nearest_real(value numeric) RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN abs(value) <= 7.00649232162408535461864791644958e-46::numeric THEN 0 ELSE value::real END;
    END;

-- One row's entry in a census: 10^0 for NaN, 10^12 for infinity, 10^24 for minus infinity, 10^(36 + 12 * scale) for
-- a finite value where scales are wanted, else nothing.
CREATE OR REPLACE FUNCTION {schema}.census(value numeric, scales boolean) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN value = 'NaN' THEN 1::numeric
                    WHEN value = 'Infinity' THEN 1000000000000::numeric
                    WHEN value = '-Infinity' THEN 1000000000000000000000000::numeric
                    WHEN scales AND value IS NOT NULL THEN ('1e' || (36 + 12 * least(scale(value), 1000))::text)::numeric
               END;
    END;

-- The widest scale that a census has counted; 0 where it has counted none.
CREATE OR REPLACE FUNCTION {schema}.widest_scale(census numeric) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
        SELECT CASE WHEN census >= 1000000000000000000000000000000000000::numeric
                    THEN (length(trunc(census)::text) - 37) / 12 ELSE 0 END;
    END;

-- A total of finite values, corrected for the NaNs and infinities that a census has counted beside them.
CREATE OR REPLACE FUNCTION {schema}.with_specials(total numeric, census numeric) RETURNS numeric
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
CREATE OR REPLACE FUNCTION {schema}.variance(counted bigint, total numeric, squares numeric, digits integer, sample boolean)
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
CREATE OR REPLACE FUNCTION {schema}.deviation(counted bigint, total numeric, squares numeric, digits integer, sample boolean)
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
