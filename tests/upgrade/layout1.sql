SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

CREATE SCHEMA tally;

CREATE FUNCTION tally.by_item__delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."by_item__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "by_item": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."by_item__delta" (epoch, narrow, k1, n, a1, a2, a3, a4, a5, a6)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2, a3, a4, a5, a6
  FROM (SELECT k1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, - sum("tally".census(x1, true)) AS a3, - count(*) FILTER (WHERE x2 IS NOT NULL) AS a4, - sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a5, - sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a6 FROM (SELECT o.* FROM oldtab AS t, "tally"."by_item__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  RETURN NULL;
END
$$;

SET default_tablespace = '';

SET default_table_access_method = heap;

CREATE TABLE tally.by_item__delta (
    epoch bigint NOT NULL,
    narrow boolean NOT NULL,
    k1 text,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric,
    a4 bigint,
    a5 numeric,
    a6 numeric
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='10000', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='100000', vacuum_truncate='false');

CREATE TABLE tally.by_item__state (
    narrow boolean NOT NULL,
    k1 text,
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1), (0)::bigint)) STORED,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric,
    a4 bigint,
    a5 numeric,
    a6 numeric
);

CREATE TABLE tally.reset (
    aggregate text NOT NULL,
    epoch bigint NOT NULL
);

COMMENT ON TABLE tally.reset IS 'tallystick: left by TRUNCATE; state, and deltas of a lower epoch, are void';

CREATE FUNCTION tally.by_item__fold(OUT deltas bigint, OUT groups bigint) RETURNS record
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    SET row_security TO 'off'
    BEGIN ATOMIC
 WITH marker AS (
          SELECT max(reset_1.epoch) AS epoch
            FROM tally.reset reset_1
           WHERE (reset_1.aggregate = 'by_item'::text)
         ), void0 AS (
          DELETE FROM tally.by_item__state
           WHERE (( SELECT marker.epoch
                    FROM marker) IS NOT NULL)
         ), void AS (
          DELETE FROM tally.by_item__delta
           WHERE (by_item__delta.epoch < ( SELECT marker.epoch
                    FROM marker))
         )
  DELETE FROM tally.reset
   WHERE ((reset.aggregate = 'by_item'::text) AND (reset.epoch <= ( SELECT marker.epoch
            FROM marker)));
 WITH gone AS (
          DELETE FROM tally.by_item__delta
           WHERE (NOT (EXISTS ( SELECT
                    FROM tally.reset
                   WHERE (reset.aggregate = 'by_item'::text))))
           RETURNING by_item__delta.epoch,
             by_item__delta.narrow,
             by_item__delta.k1,
             by_item__delta.n,
             by_item__delta.a1,
             by_item__delta.a2,
             by_item__delta.a3,
             by_item__delta.a4,
             by_item__delta.a5,
             by_item__delta.a6
         ), gathered AS (
          SELECT p.k1,
             hash_record_extended(ROW(p.k1), (0)::bigint) AS h,
             bool_or(p.narrow) AS narrow,
             (sum(p.n))::bigint AS n,
             (sum(p.a1))::bigint AS a1,
             sum(p.a2) AS a2,
             sum(p.a3) AS a3,
             (sum(p.a4))::bigint AS a4,
             sum(p.a5) AS a5,
             sum(p.a6) AS a6
            FROM ( SELECT gone.k1,
                     gone.narrow,
                     gone.n,
                     gone.a1,
                     gone.a2,
                     gone.a3,
                     gone.a4,
                     gone.a5,
                     gone.a6
                    FROM gone) p
           GROUP BY p.k1
          HAVING (count(*) > 0)
         ), met AS (
          SELECT s.ctid AS place,
             g.h,
             g.k1,
             g.narrow,
             (COALESCE(s.n, (0)::bigint) + COALESCE(g.n, (0)::bigint)) AS n,
             (COALESCE(s.a1, (0)::bigint) + COALESCE(g.a1, (0)::bigint)) AS a1,
             (COALESCE(s.a2, (0)::numeric) + COALESCE(g.a2, (0)::numeric)) AS a2,
             (COALESCE(s.a3, (0)::numeric) + COALESCE(g.a3, (0)::numeric)) AS a3,
             (COALESCE(s.a4, (0)::bigint) + COALESCE(g.a4, (0)::bigint)) AS a4,
             (COALESCE(s.a5, (0)::numeric) + COALESCE(g.a5, (0)::numeric)) AS a5,
             (COALESCE(s.a6, (0)::numeric) + COALESCE(g.a6, (0)::numeric)) AS a6
            FROM (gathered g
              LEFT JOIN tally.by_item__state s ON (((s.h = g.h) AND record_eq(ROW(s.k1), ROW(g.k1)))))
         ), next AS (
          SELECT met.place,
             met.h,
             met.k1,
             met.narrow,
             met.n,
             met.a1,
             met.a2,
             met.a3,
             met.a4,
             met.a5,
             met.a6
            FROM met
         ), state_new AS (
          INSERT INTO tally.by_item__state (narrow, k1, n, a1, a2, a3, a4, a5, a6)  SELECT next.narrow,
                     next.k1,
                     next.n,
                     next.a1,
                     next.a2,
                     next.a3,
                     next.a4,
                     next.a5,
                     next.a6
                    FROM next
                   WHERE ((next.place IS NULL) AND (next.n <> 0))
         ), state_changed AS (
          UPDATE tally.by_item__state s SET n = f.n, a1 = f.a1, a2 = f.a2, a3 = f.a3, a4 = f.a4, a5 = f.a5, a6 = f.a6
            FROM next f
           WHERE ((s.ctid = f.place) AND (f.n <> 0))
         ), state_emptied AS (
          DELETE FROM tally.by_item__state s
            USING next f
           WHERE ((s.ctid = f.place) AND (f.n = 0))
         )
  SELECT ( SELECT count(*) AS count
            FROM gone) AS count,
     ( SELECT count(*) AS count
            FROM next) AS count;
END;

CREATE FUNCTION tally.by_item__insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."by_item__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "by_item": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."by_item__delta" (epoch, narrow, k1, n, a1, a2, a3, a4, a5, a6)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2, a3, a4, a5, a6
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, true)) AS a3, count(*) FILTER (WHERE x2 IS NOT NULL) AS a4, sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a5, sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a6 FROM (SELECT o.* FROM newtab AS t, "tally"."by_item__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  RETURN NULL;
END
$$;

CREATE FUNCTION tally.census(value numeric, scales boolean) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN (value = 'NaN'::numeric) THEN (1)::numeric
             WHEN (value = 'Infinity'::numeric) THEN ('1000000000000'::bigint)::numeric
             WHEN (value = '-Infinity'::numeric) THEN '1000000000000000000000000'::numeric
             WHEN (scales AND (value IS NOT NULL)) THEN (('1e'::text || ((36 + (12 * LEAST(scale(value), 1000))))::text))::numeric
             ELSE NULL::numeric
         END AS "case";
END;

CREATE TABLE public.sale (
    id bigint NOT NULL,
    shop integer,
    item text,
    size integer,
    price numeric,
    rate real
);

CREATE FUNCTION tally.by_item__rebuild() RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    SET row_security TO 'off'
    BEGIN ATOMIC
 DELETE FROM tally.by_item__state;
 DELETE FROM tally.by_item__delta;
 DELETE FROM tally.reset
   WHERE (reset.aggregate = 'by_item'::text);
 INSERT INTO tally.by_item__state (narrow, k1, n, a1, a2, a3, a4, a5, a6)  SELECT (pg_column_size(ROW(r.k1)) < 2000),
             r.k1,
             count(*) AS count,
             COALESCE(count(*) FILTER (WHERE (r.x1 IS NOT NULL)), (0)::bigint) AS "coalesce",
             COALESCE(sum(r.x1) FILTER (WHERE ((r.x1 > '-Infinity'::numeric) AND (r.x1 < 'Infinity'::numeric))), (0)::numeric) AS "coalesce",
             COALESCE(sum(tally.census(r.x1, true)), (0)::numeric) AS "coalesce",
             COALESCE(count(*) FILTER (WHERE (r.x2 IS NOT NULL)), (0)::bigint) AS "coalesce",
             COALESCE(sum(r.x2) FILTER (WHERE ((r.x2 > '-Infinity'::numeric) AND (r.x2 < 'Infinity'::numeric))), (0)::numeric) AS "coalesce",
             COALESCE(sum(tally.census(r.x2, false)) FILTER (WHERE (NOT ((r.x2 > '-Infinity'::numeric) AND (r.x2 < 'Infinity'::numeric)))), (0)::numeric) AS "coalesce"
            FROM ( SELECT sale.item AS k1,
                     sale.price AS x1,
                     ((sale.rate)::text)::numeric AS x2
                    FROM public.sale sale) r
           GROUP BY r.k1
          HAVING (count(*) > 0);
 SELECT count(*) AS count
    FROM tally.by_item__state;
END;

CREATE FUNCTION tally.by_item__row(source_row public.sale) RETURNS TABLE(k1 text, x1 numeric, x2 numeric)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT sale.item AS k1,
     sale.price AS x1,
     ((sale.rate)::text)::numeric AS x2
    FROM ( SELECT (by_item__row.source_row).item AS item,
             (by_item__row.source_row).price AS price,
             (by_item__row.source_row).rate AS rate) sale;
END;

CREATE FUNCTION tally.by_item__source() RETURNS regclass
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT 'public.sale'::regclass AS regclass;
END;

CREATE FUNCTION tally.by_item__truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."by_item__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "by_item": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('by_item', nextval('"tally"."epoch"'::regclass));
  RETURN NULL;
END
$$;

CREATE FUNCTION tally.by_item__update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."by_item__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "by_item": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."by_item__delta" (epoch, narrow, k1, n, a1, a2, a3, a4, a5, a6)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2, a3, a4, a5, a6
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, true)) FILTER (WHERE w > 0), 0) - coalesce(sum("tally".census(x1, true)) FILTER (WHERE w < 0), 0) AS a3, coalesce(count(*) FILTER (WHERE x2 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x2 IS NOT NULL AND w < 0), 0) AS a4, coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric AND w < 0), 0) AS a5, coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AND w < 0), 0) AS a6 FROM (SELECT -1 AS w, o.* FROM "tally"."by_item__row"(OLD) AS o UNION ALL SELECT 1, o.* FROM "tally"."by_item__row"(NEW) AS o) AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0 OR a4 <> 0 OR a5 <> 0 OR a6 <> 0);
  RETURN NULL;
END
$$;

CREATE FUNCTION tally.by_shop__delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."by_shop__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "by_shop": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."by_shop__delta" (epoch, facet, k1, n, a1, a2, a3, d1, d2, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, CASE WHEN facet = 0 THEN a1 END, CASE WHEN facet = 0 THEN a2 END, CASE WHEN facet = 0 THEN a3 END, CASE WHEN facet = 0 THEN d1 END, CASE WHEN facet = 0 THEN d2 END, v1
  FROM (SELECT k1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, min(x2) AS d1, max(x2) AS d2, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, x3 AS v1 FROM (SELECT o.* FROM oldtab AS t, "tally"."by_shop__row"(t.*) AS o) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  RETURN NULL;
END
$$;

CREATE TABLE tally.by_shop__delta (
    epoch bigint NOT NULL,
    facet smallint NOT NULL,
    k1 integer,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric,
    i1 integer,
    d1 integer,
    i2 integer,
    d2 integer,
    v1 text
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='10000', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='100000', vacuum_truncate='false');

CREATE TABLE tally.by_shop__facet1 (
    k1 integer,
    v1 text,
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1, v1), (0)::bigint)) STORED,
    n bigint NOT NULL
);

CREATE TABLE tally.by_shop__state (
    k1 integer,
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1), (0)::bigint)) STORED,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric,
    m1 integer,
    m2 integer,
    c1 bigint
);

CREATE FUNCTION tally.by_shop__fold(OUT deltas bigint, OUT groups bigint) RETURNS record
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    SET row_security TO 'off'
    BEGIN ATOMIC
 WITH marker AS (
          SELECT max(reset_1.epoch) AS epoch
            FROM tally.reset reset_1
           WHERE (reset_1.aggregate = 'by_shop'::text)
         ), void0 AS (
          DELETE FROM tally.by_shop__state
           WHERE (( SELECT marker.epoch
                    FROM marker) IS NOT NULL)
         ), void1 AS (
          DELETE FROM tally.by_shop__facet1
           WHERE (( SELECT marker.epoch
                    FROM marker) IS NOT NULL)
         ), void AS (
          DELETE FROM tally.by_shop__delta
           WHERE (by_shop__delta.epoch < ( SELECT marker.epoch
                    FROM marker))
         )
  DELETE FROM tally.reset
   WHERE ((reset.aggregate = 'by_shop'::text) AND (reset.epoch <= ( SELECT marker.epoch
            FROM marker)));
 WITH gone AS (
          DELETE FROM tally.by_shop__delta
           WHERE (NOT (EXISTS ( SELECT
                    FROM tally.reset
                   WHERE (reset.aggregate = 'by_shop'::text))))
           RETURNING by_shop__delta.epoch,
             by_shop__delta.facet,
             by_shop__delta.k1,
             by_shop__delta.n,
             by_shop__delta.a1,
             by_shop__delta.a2,
             by_shop__delta.a3,
             by_shop__delta.i1,
             by_shop__delta.d1,
             by_shop__delta.i2,
             by_shop__delta.d2,
             by_shop__delta.v1
         ), facet1_gone AS (
          SELECT gone.k1,
             gone.v1,
             hash_record_extended(ROW(gone.k1, gone.v1), (0)::bigint) AS h,
             (sum(gone.n))::bigint AS n
            FROM gone
           WHERE (gone.facet = 1)
           GROUP BY gone.k1, gone.v1
         ), facet1_next AS (
          SELECT s.ctid AS place,
             g.k1,
             g.v1,
             g.h,
             COALESCE(s.n, (0)::bigint) AS was,
             (COALESCE(s.n, (0)::bigint) + g.n) AS n
            FROM (facet1_gone g
              LEFT JOIN tally.by_shop__facet1 s ON (((s.h = g.h) AND record_eq(ROW(s.k1, s.v1), ROW(g.k1, g.v1)))))
         ), facet1_new AS (
          INSERT INTO tally.by_shop__facet1 (k1, v1, n)  SELECT facet1_next.k1,
                     facet1_next.v1,
                     facet1_next.n
                    FROM facet1_next
                   WHERE ((facet1_next.place IS NULL) AND (facet1_next.n <> 0))
         ), facet1_changed AS (
          UPDATE tally.by_shop__facet1 s SET n = f.n
            FROM facet1_next f
           WHERE ((s.ctid = f.place) AND (f.n <> 0))
         ), facet1_emptied AS (
          DELETE FROM tally.by_shop__facet1 s
            USING facet1_next f
           WHERE ((s.ctid = f.place) AND (f.n = 0))
         ), gathered AS (
          SELECT p.k1,
             hash_record_extended(ROW(p.k1), (0)::bigint) AS h,
             (sum(p.n))::bigint AS n,
             (sum(p.a1))::bigint AS a1,
             sum(p.a2) AS a2,
             sum(p.a3) AS a3,
             min(p.i1) AS i1,
             min(p.d1) AS d1,
             max(p.i2) AS i2,
             max(p.d2) AS d2,
             (sum(p.c1))::bigint AS c1
            FROM ( SELECT gone.k1,
                     gone.n,
                     gone.a1,
                     gone.a2,
                     gone.a3,
                     gone.i1,
                     gone.d1,
                     gone.i2,
                     gone.d2,
                     NULL::bigint AS c1
                    FROM gone
                   WHERE (gone.facet = 0)
                 UNION ALL
                  SELECT facet1_next.k1,
                     0,
                     NULL::bigint AS int8,
                     NULL::numeric AS "numeric",
                     NULL::numeric AS "numeric",
                     NULL::integer AS int4,
                     NULL::integer AS int4,
                     NULL::integer AS int4,
                     NULL::integer AS int4,
                     ((((facet1_next.n > 0))::integer - ((facet1_next.was > 0))::integer))::bigint AS int8
                    FROM facet1_next) p
           GROUP BY p.k1
          HAVING (count(*) > 0)
         ), met AS (
          SELECT s.ctid AS place,
             g.h,
             g.k1,
             (COALESCE(s.n, (0)::bigint) + COALESCE(g.n, (0)::bigint)) AS n,
             (COALESCE(s.a1, (0)::bigint) + COALESCE(g.a1, (0)::bigint)) AS a1,
             (COALESCE(s.a2, (0)::numeric) + COALESCE(g.a2, (0)::numeric)) AS a2,
             (COALESCE(s.a3, (0)::numeric) + COALESCE(g.a3, (0)::numeric)) AS a3,
             (COALESCE(s.c1, (0)::bigint) + COALESCE(g.c1, (0)::bigint)) AS c1,
             LEAST(s.m1, g.i1) AS i1,
             g.d1,
             GREATEST(s.m2, g.i2) AS i2,
             g.d2
            FROM (gathered g
              LEFT JOIN tally.by_shop__state s ON (((s.h = g.h) AND record_eq(ROW(s.k1), ROW(g.k1)))))
         ), open AS (
          SELECT met.h,
             met.k1
            FROM met
           WHERE ((met.n <> 0) AND (NOT (((met.d1 IS NULL) OR ((met.i1 IS NOT NULL) AND record_lt(ROW(met.i1), ROW(met.d1)))) AND ((met.d2 IS NULL) OR ((met.i2 IS NOT NULL) AND record_gt(ROW(met.i2), ROW(met.d2)))))))
         ), again AS (
          SELECT o.h,
             o.k1,
             min(r.x2) AS m1,
             max(r.x2) AS m2
            FROM (open o
              JOIN ( SELECT sale.shop AS k1,
                     sale.price AS x1,
                     sale.size AS x2,
                     sale.item AS x3
                    FROM public.sale sale
                   WHERE (sale.size > 1)) r ON ((r.k1 = o.k1)))
           WHERE (o.k1 IS NOT NULL)
           GROUP BY o.h, o.k1
         UNION ALL
          SELECT o.h,
             o.k1,
             min(r.x2) AS m1,
             max(r.x2) AS m2
            FROM (open o
              JOIN ( SELECT sale.shop AS k1,
                     sale.price AS x1,
                     sale.size AS x2,
                     sale.item AS x3
                    FROM public.sale sale
                   WHERE (sale.size > 1)) r ON (((hash_record_extended(ROW(r.k1), (0)::bigint) = o.h) AND record_eq(ROW(r.k1), ROW(o.k1)))))
           WHERE (NOT (o.k1 IS NOT NULL))
           GROUP BY o.h, o.k1
         ), next AS (
          SELECT met.place,
             met.h,
             met.k1,
             met.n,
             met.a1,
             met.a2,
             met.a3,
             met.c1,
             met.i1,
             met.d1,
             met.i2,
             met.d2,
                 CASE
                     WHEN (((met.d1 IS NULL) OR ((met.i1 IS NOT NULL) AND record_lt(ROW(met.i1), ROW(met.d1)))) AND ((met.d2 IS NULL) OR ((met.i2 IS NOT NULL) AND record_gt(ROW(met.i2), ROW(met.d2))))) THEN met.i1
                     ELSE a.m1
                 END AS m1,
                 CASE
                     WHEN (((met.d1 IS NULL) OR ((met.i1 IS NOT NULL) AND record_lt(ROW(met.i1), ROW(met.d1)))) AND ((met.d2 IS NULL) OR ((met.i2 IS NOT NULL) AND record_gt(ROW(met.i2), ROW(met.d2))))) THEN met.i2
                     ELSE a.m2
                 END AS m2
            FROM (met
              LEFT JOIN again a ON (((a.h = met.h) AND record_eq(ROW(a.k1), ROW(met.k1)))))
         ), state_new AS (
          INSERT INTO tally.by_shop__state (k1, n, a1, a2, a3, m1, m2, c1)  SELECT next.k1,
                     next.n,
                     next.a1,
                     next.a2,
                     next.a3,
                     next.m1,
                     next.m2,
                     next.c1
                    FROM next
                   WHERE ((next.place IS NULL) AND (next.n <> 0))
         ), state_changed AS (
          UPDATE tally.by_shop__state s SET n = f.n, a1 = f.a1, a2 = f.a2, a3 = f.a3, m1 = f.m1, m2 = f.m2, c1 = f.c1
            FROM next f
           WHERE ((s.ctid = f.place) AND (f.n <> 0))
         ), state_emptied AS (
          DELETE FROM tally.by_shop__state s
            USING next f
           WHERE ((s.ctid = f.place) AND (f.n = 0))
         )
  SELECT ( SELECT count(*) AS count
            FROM gone) AS count,
     ( SELECT count(*) AS count
            FROM next) AS count;
END;

CREATE FUNCTION tally.by_shop__insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."by_shop__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "by_shop": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."by_shop__delta" (epoch, facet, k1, n, a1, a2, a3, i1, i2, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, CASE WHEN facet = 0 THEN a1 END, CASE WHEN facet = 0 THEN a2 END, CASE WHEN facet = 0 THEN a3 END, CASE WHEN facet = 0 THEN i1 END, CASE WHEN facet = 0 THEN i2 END, v1
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, min(x2) AS i1, max(x2) AS i2, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, x3 AS v1 FROM (SELECT o.* FROM newtab AS t, "tally"."by_shop__row"(t.*) AS o) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  RETURN NULL;
END
$$;

CREATE FUNCTION tally.by_shop__rebuild() RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    SET row_security TO 'off'
    BEGIN ATOMIC
 DELETE FROM tally.by_shop__state;
 DELETE FROM tally.by_shop__facet1;
 DELETE FROM tally.by_shop__delta;
 DELETE FROM tally.reset
   WHERE (reset.aggregate = 'by_shop'::text);
 INSERT INTO tally.by_shop__facet1 (k1, v1, n)  SELECT r.k1,
             r.x3,
             count(*) AS count
            FROM ( SELECT sale.shop AS k1,
                     sale.price AS x1,
                     sale.size AS x2,
                     sale.item AS x3
                    FROM public.sale sale
                   WHERE (sale.size > 1)) r
           WHERE (r.x3 IS NOT NULL)
           GROUP BY r.k1, r.x3;
 INSERT INTO tally.by_shop__state (k1, n, a1, a2, a3, m1, m2, c1)  SELECT r.k1,
             count(*) AS count,
             COALESCE(count(*) FILTER (WHERE (r.x1 IS NOT NULL)), (0)::bigint) AS "coalesce",
             COALESCE(sum(r.x1) FILTER (WHERE ((r.x1 > '-Infinity'::numeric) AND (r.x1 < 'Infinity'::numeric))), (0)::numeric) AS "coalesce",
             COALESCE(sum(tally.census(r.x1, false)) FILTER (WHERE (NOT ((r.x1 > '-Infinity'::numeric) AND (r.x1 < 'Infinity'::numeric)))), (0)::numeric) AS "coalesce",
             min(r.x2) AS min,
             max(r.x2) AS max,
             count(DISTINCT r.x3) AS count
            FROM ( SELECT sale.shop AS k1,
                     sale.price AS x1,
                     sale.size AS x2,
                     sale.item AS x3
                    FROM public.sale sale
                   WHERE (sale.size > 1)) r
           GROUP BY r.k1
          HAVING (count(*) > 0);
 SELECT count(*) AS count
    FROM tally.by_shop__state;
END;

CREATE FUNCTION tally.by_shop__row(source_row public.sale) RETURNS TABLE(k1 integer, x1 numeric, x2 integer, x3 text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT sale.shop AS k1,
     sale.price AS x1,
     sale.size AS x2,
     sale.item AS x3
    FROM ( SELECT (by_shop__row.source_row).shop AS shop,
             (by_shop__row.source_row).item AS item,
             (by_shop__row.source_row).size AS size,
             (by_shop__row.source_row).price AS price) sale
   WHERE (sale.size > 1);
END;

CREATE FUNCTION tally.by_shop__source() RETURNS regclass
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT 'public.sale'::regclass AS regclass;
END;

CREATE FUNCTION tally.by_shop__truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."by_shop__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "by_shop": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('by_shop', nextval('"tally"."epoch"'::regclass));
  RETURN NULL;
END
$$;

CREATE FUNCTION tally.by_shop__update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."by_shop__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "by_shop": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."by_shop__delta" (epoch, facet, k1, n, a1, a2, a3, i1, d1, i2, d2, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, CASE WHEN facet = 0 THEN a1 END, CASE WHEN facet = 0 THEN a2 END, CASE WHEN facet = 0 THEN a3 END, CASE WHEN facet = 0 THEN CASE WHEN NOT record_eq(ROW(i1), ROW(d1)) THEN i1 END END, CASE WHEN facet = 0 THEN CASE WHEN NOT record_eq(ROW(d1), ROW(i1)) THEN d1 END END, CASE WHEN facet = 0 THEN CASE WHEN NOT record_eq(ROW(i2), ROW(d2)) THEN i2 END END, CASE WHEN facet = 0 THEN CASE WHEN NOT record_eq(ROW(d2), ROW(i2)) THEN d2 END END, v1
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a3, min(x2) FILTER (WHERE w > 0) AS i1, min(x2) FILTER (WHERE w < 0) AS d1, max(x2) FILTER (WHERE w > 0) AS i2, max(x2) FILTER (WHERE w < 0) AS d2, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, x3 AS v1 FROM (SELECT -1 AS w, o.* FROM "tally"."by_shop__row"(OLD) AS o UNION ALL SELECT 1, o.* FROM "tally"."by_shop__row"(NEW) AS o) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL) AND (n <> 0 OR facet = 0 AND (a1 <> 0 OR a2 <> 0 OR a3 <> 0 OR NOT record_eq(ROW(i1), ROW(d1)) OR NOT record_eq(ROW(i2), ROW(d2))));
  RETURN NULL;
END
$$;

CREATE FUNCTION tally.deviation(counted bigint, total numeric, squares numeric, digits integer, sample boolean) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog'
    AS $$
    DECLARE
        v numeric := "tally".variance(counted, total, squares, digits, sample);
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

CREATE FUNCTION tally.nearest_double(value numeric) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN (abs(value) <= 0.00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000247032822920623272088284396434110686182) THEN (0)::double precision
             ELSE (value)::double precision
         END AS value;
END;

CREATE FUNCTION tally.nearest_real(value numeric) RETURNS real
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN (abs(value) <= 0.000000000000000000000000000000000000000000000700649232162408535461864791644958) THEN (0)::real
             ELSE (value)::real
         END AS value;
END;

CREATE FUNCTION tally.shortest_text(real) RETURNS text
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog'
    SET extra_float_digits TO '1'
    AS $_$ BEGIN RETURN $1::text; END $_$;

CREATE FUNCTION tally.shortest(real) RETURNS numeric
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT (
         CASE
             WHEN ((current_setting('extra_float_digits'::text))::integer > 0) THEN ($1)::text
             ELSE tally.shortest_text($1)
         END)::numeric AS shortest_text;
END;

CREATE FUNCTION tally.shortest_text(double precision) RETURNS text
    LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog'
    SET extra_float_digits TO '1'
    AS $_$ BEGIN RETURN $1::text; END $_$;

CREATE FUNCTION tally.shortest(double precision) RETURNS numeric
    LANGUAGE sql STABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT (
         CASE
             WHEN ((current_setting('extra_float_digits'::text))::integer > 0) THEN ($1)::text
             ELSE tally.shortest_text($1)
         END)::numeric AS shortest_text;
END;

CREATE FUNCTION tally.totals__delete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."totals__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "totals": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) AS a2 FROM (SELECT o.* FROM oldtab AS t, "tally"."totals__row"(t.*) AS o) AS r HAVING count(*) > 0) AS g;
  RETURN NULL;
END
$$;

CREATE TABLE tally.totals__delta (
    epoch bigint NOT NULL,
    n bigint NOT NULL,
    a1 bigint,
    a2 bigint
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='10000', autovacuum_vacuum_insert_scale_factor='0', autovacuum_vacuum_insert_threshold='100000', vacuum_truncate='false');

CREATE TABLE tally.totals__state (
    h bigint GENERATED ALWAYS AS ((0)::bigint) STORED,
    n bigint NOT NULL,
    a1 bigint,
    a2 bigint
);

CREATE FUNCTION tally.totals__fold(OUT deltas bigint, OUT groups bigint) RETURNS record
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    SET row_security TO 'off'
    BEGIN ATOMIC
 WITH marker AS (
          SELECT max(reset_1.epoch) AS epoch
            FROM tally.reset reset_1
           WHERE (reset_1.aggregate = 'totals'::text)
         ), void0 AS (
          DELETE FROM tally.totals__state
           WHERE (( SELECT marker.epoch
                    FROM marker) IS NOT NULL)
         ), void AS (
          DELETE FROM tally.totals__delta
           WHERE (totals__delta.epoch < ( SELECT marker.epoch
                    FROM marker))
         )
  DELETE FROM tally.reset
   WHERE ((reset.aggregate = 'totals'::text) AND (reset.epoch <= ( SELECT marker.epoch
            FROM marker)));
 WITH gone AS (
          DELETE FROM tally.totals__delta
           WHERE (NOT (EXISTS ( SELECT
                    FROM tally.reset
                   WHERE (reset.aggregate = 'totals'::text))))
           RETURNING totals__delta.epoch,
             totals__delta.n,
             totals__delta.a1,
             totals__delta.a2
         ), gathered AS (
          SELECT (0)::bigint AS h,
             (sum(p.n))::bigint AS n,
             (sum(p.a1))::bigint AS a1,
             (sum(p.a2))::bigint AS a2
            FROM ( SELECT gone.n,
                     gone.a1,
                     gone.a2
                    FROM gone) p
          HAVING (count(*) > 0)
         ), met AS (
          SELECT s.ctid AS place,
             g.h,
             (COALESCE(s.n, (0)::bigint) + COALESCE(g.n, (0)::bigint)) AS n,
             (COALESCE(s.a1, (0)::bigint) + COALESCE(g.a1, (0)::bigint)) AS a1,
             (COALESCE(s.a2, (0)::bigint) + COALESCE(g.a2, (0)::bigint)) AS a2
            FROM (gathered g
              LEFT JOIN tally.totals__state s ON (((s.h = g.h) AND true)))
         ), next AS (
          SELECT met.place,
             met.h,
             met.n,
             met.a1,
             met.a2
            FROM met
         ), state_new AS (
          INSERT INTO tally.totals__state (n, a1, a2)  SELECT next.n,
                     next.a1,
                     next.a2
                    FROM next
                   WHERE ((next.place IS NULL) AND (next.n <> 0))
         ), state_changed AS (
          UPDATE tally.totals__state s SET n = f.n, a1 = f.a1, a2 = f.a2
            FROM next f
           WHERE ((s.ctid = f.place) AND (f.n <> 0))
         ), state_emptied AS (
          DELETE FROM tally.totals__state s
            USING next f
           WHERE ((s.ctid = f.place) AND (f.n = 0))
         )
  SELECT ( SELECT count(*) AS count
            FROM gone) AS count,
     ( SELECT count(*) AS count
            FROM next) AS count;
END;

CREATE FUNCTION tally.totals__insert() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."totals__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "totals": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM (SELECT o.* FROM newtab AS t, "tally"."totals__row"(t.*) AS o) AS r HAVING count(*) > 0) AS g;
  RETURN NULL;
END
$$;

CREATE FUNCTION tally.totals__rebuild() RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    SET row_security TO 'off'
    BEGIN ATOMIC
 DELETE FROM tally.totals__state;
 DELETE FROM tally.totals__delta;
 DELETE FROM tally.reset
   WHERE (reset.aggregate = 'totals'::text);
 INSERT INTO tally.totals__state (n, a1, a2)  SELECT count(*) AS count,
             COALESCE(count(*) FILTER (WHERE (r.x1 IS NOT NULL)), (0)::bigint) AS "coalesce",
             COALESCE(sum(r.x1), (0)::bigint) AS "coalesce"
            FROM ( SELECT sale.size AS x1
                    FROM public.sale sale) r
          HAVING (count(*) > 0);
 SELECT count(*) AS count
    FROM tally.totals__state;
END;

CREATE FUNCTION tally.totals__row(source_row public.sale) RETURNS TABLE(x1 integer)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT sale.size AS x1
    FROM ( SELECT (totals__row.source_row).size AS size) sale;
END;

CREATE FUNCTION tally.totals__source() RETURNS regclass
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT 'public.sale'::regclass AS regclass;
END;

CREATE FUNCTION tally.totals__truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."totals__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "totals": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('totals', nextval('"tally"."epoch"'::regclass));
  RETURN NULL;
END
$$;

CREATE FUNCTION tally.totals__update() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET extra_float_digits TO '1'
    AS $$
BEGIN
  IF TG_RELID <> "tally"."totals__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "totals": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE w > 0), 0) - coalesce(sum(x1) FILTER (WHERE w < 0), 0) AS a2 FROM (SELECT -1 AS w, o.* FROM "tally"."totals__row"(OLD) AS o UNION ALL SELECT 1, o.* FROM "tally"."totals__row"(NEW) AS o) AS r HAVING count(*) > 0) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0);
  RETURN NULL;
END
$$;

CREATE FUNCTION tally.variance(counted bigint, total numeric, squares numeric, digits integer, sample boolean) RETURNS numeric
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog'
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

CREATE FUNCTION tally.widest_scale(census numeric) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN (census >= '1000000000000000000000000000000000000'::numeric) THEN ((length((trunc(census))::text) - 37) / 12)
             ELSE 0
         END AS "case";
END;

CREATE FUNCTION tally.with_specials(total numeric, census numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN ((census IS NULL) OR (mod(census, '1000000000000000000000000000000000000'::numeric) = (0)::numeric)) THEN COALESCE(total, (0)::numeric)
             WHEN (mod(census, ('1000000000000'::bigint)::numeric) > (0)::numeric) THEN 'NaN'::numeric
             WHEN ((mod(div(census, ('1000000000000'::bigint)::numeric), ('1000000000000'::bigint)::numeric) > (0)::numeric) AND (mod(div(census, '1000000000000000000000000'::numeric), ('1000000000000'::bigint)::numeric) > (0)::numeric)) THEN 'NaN'::numeric
             WHEN (mod(div(census, ('1000000000000'::bigint)::numeric), ('1000000000000'::bigint)::numeric) > (0)::numeric) THEN 'Infinity'::numeric
             ELSE '-Infinity'::numeric
         END AS "case";
END;

CREATE TABLE tally.aggregate (
    name text NOT NULL,
    kind text NOT NULL,
    definition text NOT NULL,
    fingerprint text NOT NULL,
    source regclass NOT NULL,
    phase text NOT NULL,
    serving text NOT NULL,
    installed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT aggregate_check CHECK (((serving = 'direct'::text) OR (phase = 'kept'::text))),
    CONSTRAINT aggregate_kind_check CHECK ((kind = 'grouped'::text)),
    CONSTRAINT aggregate_phase_check CHECK ((phase = ANY (ARRAY['building'::text, 'kept'::text]))),
    CONSTRAINT aggregate_serving_check CHECK ((serving = ANY (ARRAY['kept'::text, 'direct'::text])))
);

COMMENT ON TABLE tally.aggregate IS 'tallystick: one row per aggregate; serving is the switch that readers follow';

CREATE VIEW tally.by_shop__changed AS
 SELECT r.k1 AS shop,
    COALESCE(r.n, (0)::bigint) AS n,
        CASE
            WHEN (r.a1 > 0) THEN tally.with_specials(r.a2, r.a3)
            ELSE NULL::numeric
        END AS total,
    r.m1 AS "least",
    r.m2 AS most,
    COALESCE(r.c1, (0)::bigint) AS items
   FROM ( SELECT g.k1,
            g.n,
            g.a1,
            g.a2,
            g.a3,
                CASE
                    WHEN ((g.d1 IS NULL) OR ((g.i1 IS NOT NULL) AND record_lt(ROW(g.i1), ROW(g.d1)))) THEN g.i1
                    ELSE ( SELECT min(s.x2) AS min
                       FROM ( SELECT sale.shop AS k1,
                                sale.price AS x1,
                                sale.size AS x2,
                                sale.item AS x3
                               FROM public.sale sale
                              WHERE (sale.size > 1)) s
                      WHERE ((s.k1 = g.k1) OR ((s.k1 IS NULL) AND (g.k1 IS NULL))))
                END AS m1,
                CASE
                    WHEN ((g.d2 IS NULL) OR ((g.i2 IS NOT NULL) AND record_gt(ROW(g.i2), ROW(g.d2)))) THEN g.i2
                    ELSE ( SELECT max(s.x2) AS max
                       FROM ( SELECT sale.shop AS k1,
                                sale.price AS x1,
                                sale.size AS x2,
                                sale.item AS x3
                               FROM public.sale sale
                              WHERE (sale.size > 1)) s
                      WHERE ((s.k1 = g.k1) OR ((s.k1 IS NULL) AND (g.k1 IS NULL))))
                END AS m2,
            g.c1
           FROM ( SELECT p.k1,
                    (sum(p.n))::bigint AS n,
                    (sum(p.a1))::bigint AS a1,
                    sum(p.a2) AS a2,
                    sum(p.a3) AS a3,
                    min(p.i1) AS i1,
                    min(p.d1) AS d1,
                    max(p.i2) AS i2,
                    max(p.d2) AS d2,
                    (sum(p.c1))::bigint AS c1
                   FROM ( SELECT s.k1,
                            s.n,
                            s.a1,
                            s.a2,
                            s.a3,
                            s.m1 AS i1,
                            NULL::integer AS d1,
                            s.m2 AS i2,
                            NULL::integer AS d2,
                            s.c1
                           FROM ( SELECT s_1.k1,
                                    s_1.h,
                                    s_1.n,
                                    s_1.a1,
                                    s_1.a2,
                                    s_1.a3,
                                    s_1.m1,
                                    s_1.m2,
                                    s_1.c1
                                   FROM tally.by_shop__state s_1
                                  WHERE ((NOT (EXISTS ( SELECT
   FROM tally.reset
  WHERE (reset.aggregate = 'by_shop'::text)))) AND (s_1.k1 IS NOT NULL) AND (EXISTS ( SELECT
   FROM tally.by_shop__delta d
  WHERE (d.k1 = s_1.k1))))
                                UNION ALL
                                 SELECT s_1.k1,
                                    s_1.h,
                                    s_1.n,
                                    s_1.a1,
                                    s_1.a2,
                                    s_1.a3,
                                    s_1.m1,
                                    s_1.m2,
                                    s_1.c1
                                   FROM tally.by_shop__state s_1
                                  WHERE ((NOT (EXISTS ( SELECT
   FROM tally.reset
  WHERE (reset.aggregate = 'by_shop'::text)))) AND (NOT (s_1.k1 IS NOT NULL)))) s
                        UNION ALL
                         SELECT d.k1,
                            d.n,
                            d.a1,
                            d.a2,
                            d.a3,
                            d.i1,
                            d.d1,
                            d.i2,
                            d.d2,
                            NULL::bigint AS int8
                           FROM ( SELECT by_shop__delta.epoch,
                                    by_shop__delta.facet,
                                    by_shop__delta.k1,
                                    by_shop__delta.n,
                                    by_shop__delta.a1,
                                    by_shop__delta.a2,
                                    by_shop__delta.a3,
                                    by_shop__delta.i1,
                                    by_shop__delta.d1,
                                    by_shop__delta.i2,
                                    by_shop__delta.d2,
                                    by_shop__delta.v1
                                   FROM tally.by_shop__delta
                                  WHERE ((by_shop__delta.epoch >= COALESCE(( SELECT max(reset.epoch) AS max
   FROM tally.reset
  WHERE (reset.aggregate = 'by_shop'::text)), (0)::bigint)) AND (by_shop__delta.facet = 0))) d
                        UNION ALL
                         SELECT t.k1,
                            0,
                            NULL::bigint AS int8,
                            NULL::numeric AS "numeric",
                            NULL::numeric AS "numeric",
                            NULL::integer AS int4,
                            NULL::integer AS int4,
                            NULL::integer AS int4,
                            NULL::integer AS int4,
                            (((((COALESCE(f.n, (0)::bigint) + t.n) > 0))::integer)::bigint - ((COALESCE(f.n, (0)::bigint) > 0))::integer)
                           FROM (( SELECT d.k1,
                                    d.v1,
                                    (sum(d.n))::bigint AS n
                                   FROM ( SELECT by_shop__delta.epoch,
    by_shop__delta.facet,
    by_shop__delta.k1,
    by_shop__delta.n,
    by_shop__delta.a1,
    by_shop__delta.a2,
    by_shop__delta.a3,
    by_shop__delta.i1,
    by_shop__delta.d1,
    by_shop__delta.i2,
    by_shop__delta.d2,
    by_shop__delta.v1
   FROM tally.by_shop__delta
  WHERE ((by_shop__delta.epoch >= COALESCE(( SELECT max(reset.epoch) AS max
     FROM tally.reset
    WHERE (reset.aggregate = 'by_shop'::text)), (0)::bigint)) AND (by_shop__delta.facet = 1))) d
                                  GROUP BY d.k1, d.v1) t
                             LEFT JOIN tally.by_shop__facet1 f ON (((f.h = hash_record_extended(ROW(t.k1, t.v1), (0)::bigint)) AND record_eq(ROW(f.k1, f.v1), ROW(t.k1, t.v1)) AND (NOT (EXISTS ( SELECT
                                   FROM tally.reset
                                  WHERE (reset.aggregate = 'by_shop'::text)))))))) p
                  GROUP BY p.k1) g
          WHERE (g.n > 0)) r;

CREATE VIEW tally.by_shop__direct AS
 SELECT sale.shop,
    count(*) AS n,
    sum(sale.price) AS total,
    min(sale.size) AS "least",
    max(sale.size) AS most,
    count(DISTINCT sale.item) AS items
   FROM public.sale sale
  WHERE (sale.size > 1)
  GROUP BY sale.shop;

CREATE VIEW tally.by_shop__rest AS
 SELECT by_shop__changed.shop,
    by_shop__changed.n,
    by_shop__changed.total,
    by_shop__changed."least",
    by_shop__changed.most,
    by_shop__changed.items
   FROM tally.by_shop__changed
  WHERE ((( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'by_shop'::text)) = 'kept'::text) AND (pg_backend_pid() <> 0))
UNION ALL
 SELECT by_shop__direct.shop,
    by_shop__direct.n,
    by_shop__direct.total,
    by_shop__direct."least",
    by_shop__direct.most,
    by_shop__direct.items
   FROM tally.by_shop__direct
  WHERE (( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'by_shop'::text)) IS DISTINCT FROM 'kept'::text);

CREATE VIEW tally.by_shop__settled AS
 SELECT s.k1 AS shop,
    COALESCE(s.n, (0)::bigint) AS n,
        CASE
            WHEN (s.a1 > 0) THEN tally.with_specials(s.a2, s.a3)
            ELSE NULL::numeric
        END AS total,
    s.m1 AS "least",
    s.m2 AS most,
    COALESCE(s.c1, (0)::bigint) AS items
   FROM tally.by_shop__state s
  WHERE ((NOT (EXISTS ( SELECT
           FROM tally.reset
          WHERE (reset.aggregate = 'by_shop'::text)))) AND (s.k1 IS NOT NULL) AND (NOT (EXISTS ( SELECT
           FROM tally.by_shop__delta d
          WHERE (d.k1 = s.k1)))));

CREATE VIEW tally.by_shop AS
 SELECT by_shop__settled.shop,
    by_shop__settled.n,
    by_shop__settled.total,
    by_shop__settled."least",
    by_shop__settled.most,
    by_shop__settled.items
   FROM tally.by_shop__settled
  WHERE ((( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'by_shop'::text)) = 'kept'::text) AND (pg_backend_pid() <> 0))
UNION ALL
 SELECT by_shop__rest.shop,
    by_shop__rest.n,
    by_shop__rest.total,
    by_shop__rest."least",
    by_shop__rest.most,
    by_shop__rest.items
   FROM tally.by_shop__rest;

CREATE VIEW public.report AS
 SELECT by_shop.shop,
    by_shop.n,
    by_shop.total
   FROM tally.by_shop
  WHERE (by_shop.n > 1);

CREATE TABLE public.shop (
    id integer NOT NULL,
    orders bigint,
    total numeric
);

CREATE VIEW tally.by_item__changed AS
 SELECT r.k1 AS item,
    COALESCE(r.n, (0)::bigint) AS n,
        CASE
            WHEN (r.a1 > 0) THEN tally.with_specials((round(r.a2, tally.widest_scale(r.a3)) / (r.a1)::numeric), r.a3)
            ELSE NULL::numeric
        END AS mean,
        CASE
            WHEN (r.a4 > 0) THEN tally.nearest_real(tally.with_specials(r.a5, r.a6))
            ELSE NULL::real
        END AS rates
   FROM ( SELECT g.k1,
            g.n,
            g.a1,
            g.a2,
            g.a3,
            g.a4,
            g.a5,
            g.a6
           FROM ( SELECT p.k1,
                    (sum(p.n))::bigint AS n,
                    (sum(p.a1))::bigint AS a1,
                    sum(p.a2) AS a2,
                    sum(p.a3) AS a3,
                    (sum(p.a4))::bigint AS a4,
                    sum(p.a5) AS a5,
                    sum(p.a6) AS a6
                   FROM ( SELECT s.k1,
                            s.n,
                            s.a1,
                            s.a2,
                            s.a3,
                            s.a4,
                            s.a5,
                            s.a6
                           FROM ( SELECT s_1.narrow,
                                    s_1.k1,
                                    s_1.h,
                                    s_1.n,
                                    s_1.a1,
                                    s_1.a2,
                                    s_1.a3,
                                    s_1.a4,
                                    s_1.a5,
                                    s_1.a6
                                   FROM tally.by_item__state s_1
                                  WHERE ((NOT (EXISTS ( SELECT
   FROM tally.reset
  WHERE (reset.aggregate = 'by_item'::text)))) AND s_1.narrow AND (s_1.k1 IS NOT NULL) AND (EXISTS ( SELECT
   FROM ( SELECT by_item__delta.epoch,
      by_item__delta.narrow,
      by_item__delta.k1,
      by_item__delta.n,
      by_item__delta.a1,
      by_item__delta.a2,
      by_item__delta.a3,
      by_item__delta.a4,
      by_item__delta.a5,
      by_item__delta.a6
     FROM tally.by_item__delta
    WHERE by_item__delta.narrow
  UNION ALL
   SELECT by_item__delta.epoch,
      by_item__delta.narrow,
      by_item__delta.k1,
      by_item__delta.n,
      by_item__delta.a1,
      by_item__delta.a2,
      by_item__delta.a3,
      by_item__delta.a4,
      by_item__delta.a5,
      by_item__delta.a6
     FROM tally.by_item__delta
    WHERE (NOT by_item__delta.narrow)) d
  WHERE (d.k1 = s_1.k1))))
                                UNION ALL
                                 SELECT s_1.narrow,
                                    s_1.k1,
                                    s_1.h,
                                    s_1.n,
                                    s_1.a1,
                                    s_1.a2,
                                    s_1.a3,
                                    s_1.a4,
                                    s_1.a5,
                                    s_1.a6
                                   FROM tally.by_item__state s_1
                                  WHERE ((NOT (EXISTS ( SELECT
   FROM tally.reset
  WHERE (reset.aggregate = 'by_item'::text)))) AND s_1.narrow AND (NOT (s_1.k1 IS NOT NULL)))
                                UNION ALL
                                 SELECT s_1.narrow,
                                    s_1.k1,
                                    s_1.h,
                                    s_1.n,
                                    s_1.a1,
                                    s_1.a2,
                                    s_1.a3,
                                    s_1.a4,
                                    s_1.a5,
                                    s_1.a6
                                   FROM tally.by_item__state s_1
                                  WHERE ((NOT (EXISTS ( SELECT
   FROM tally.reset
  WHERE (reset.aggregate = 'by_item'::text)))) AND (NOT s_1.narrow))) s
                        UNION ALL
                         SELECT d.k1,
                            d.n,
                            d.a1,
                            d.a2,
                            d.a3,
                            d.a4,
                            d.a5,
                            d.a6
                           FROM ( SELECT by_item__delta.epoch,
                                    by_item__delta.narrow,
                                    by_item__delta.k1,
                                    by_item__delta.n,
                                    by_item__delta.a1,
                                    by_item__delta.a2,
                                    by_item__delta.a3,
                                    by_item__delta.a4,
                                    by_item__delta.a5,
                                    by_item__delta.a6
                                   FROM tally.by_item__delta
                                  WHERE (by_item__delta.narrow AND (by_item__delta.epoch >= COALESCE(( SELECT max(reset.epoch) AS max
   FROM tally.reset
  WHERE (reset.aggregate = 'by_item'::text)), (0)::bigint)))
                                UNION ALL
                                 SELECT by_item__delta.epoch,
                                    by_item__delta.narrow,
                                    by_item__delta.k1,
                                    by_item__delta.n,
                                    by_item__delta.a1,
                                    by_item__delta.a2,
                                    by_item__delta.a3,
                                    by_item__delta.a4,
                                    by_item__delta.a5,
                                    by_item__delta.a6
                                   FROM tally.by_item__delta
                                  WHERE ((NOT by_item__delta.narrow) AND (by_item__delta.epoch >= COALESCE(( SELECT max(reset.epoch) AS max
   FROM tally.reset
  WHERE (reset.aggregate = 'by_item'::text)), (0)::bigint)))) d) p
                  GROUP BY p.k1) g
          WHERE (g.n > 0)) r;

CREATE VIEW tally.by_item__direct AS
 SELECT sale.item,
    count(*) AS n,
    avg(sale.price) AS mean,
    tally.nearest_real(sum(tally.shortest(sale.rate))) AS rates
   FROM public.sale sale
  GROUP BY sale.item;

CREATE VIEW tally.by_item__rest AS
 SELECT by_item__changed.item,
    by_item__changed.n,
    by_item__changed.mean,
    by_item__changed.rates
   FROM tally.by_item__changed
  WHERE ((( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'by_item'::text)) = 'kept'::text) AND (pg_backend_pid() <> 0))
UNION ALL
 SELECT by_item__direct.item,
    by_item__direct.n,
    by_item__direct.mean,
    by_item__direct.rates
   FROM tally.by_item__direct
  WHERE (( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'by_item'::text)) IS DISTINCT FROM 'kept'::text);

CREATE VIEW tally.by_item__settled AS
 SELECT s.k1 AS item,
    COALESCE(s.n, (0)::bigint) AS n,
        CASE
            WHEN (s.a1 > 0) THEN tally.with_specials((round(s.a2, tally.widest_scale(s.a3)) / (s.a1)::numeric), s.a3)
            ELSE NULL::numeric
        END AS mean,
        CASE
            WHEN (s.a4 > 0) THEN tally.nearest_real(tally.with_specials(s.a5, s.a6))
            ELSE NULL::real
        END AS rates
   FROM tally.by_item__state s
  WHERE ((NOT (EXISTS ( SELECT
           FROM tally.reset
          WHERE (reset.aggregate = 'by_item'::text)))) AND s.narrow AND (s.k1 IS NOT NULL) AND (NOT (EXISTS ( SELECT
           FROM ( SELECT by_item__delta.epoch,
                    by_item__delta.narrow,
                    by_item__delta.k1,
                    by_item__delta.n,
                    by_item__delta.a1,
                    by_item__delta.a2,
                    by_item__delta.a3,
                    by_item__delta.a4,
                    by_item__delta.a5,
                    by_item__delta.a6
                   FROM tally.by_item__delta
                  WHERE by_item__delta.narrow
                UNION ALL
                 SELECT by_item__delta.epoch,
                    by_item__delta.narrow,
                    by_item__delta.k1,
                    by_item__delta.n,
                    by_item__delta.a1,
                    by_item__delta.a2,
                    by_item__delta.a3,
                    by_item__delta.a4,
                    by_item__delta.a5,
                    by_item__delta.a6
                   FROM tally.by_item__delta
                  WHERE (NOT by_item__delta.narrow)) d
          WHERE (d.k1 = s.k1)))));

CREATE VIEW tally.by_item AS
 SELECT by_item__settled.item,
    by_item__settled.n,
    by_item__settled.mean,
    by_item__settled.rates
   FROM tally.by_item__settled
  WHERE ((( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'by_item'::text)) = 'kept'::text) AND (pg_backend_pid() <> 0))
UNION ALL
 SELECT by_item__rest.item,
    by_item__rest.n,
    by_item__rest.mean,
    by_item__rest.rates
   FROM tally.by_item__rest;

CREATE VIEW tally.by_item__front AS
 SELECT s.k1 AS item,
    COALESCE(s.n, (0)::bigint) AS n,
        CASE
            WHEN (s.a1 > 0) THEN tally.with_specials((round(s.a2, tally.widest_scale(s.a3)) / (s.a1)::numeric), s.a3)
            ELSE NULL::numeric
        END AS mean,
        CASE
            WHEN (s.a4 > 0) THEN tally.nearest_real(tally.with_specials(s.a5, s.a6))
            ELSE NULL::real
        END AS rates
   FROM tally.by_item__state s
  WHERE ((NOT (EXISTS ( SELECT
           FROM tally.reset
          WHERE (reset.aggregate = 'by_item'::text)))) AND s.narrow AND (s.k1 IS NOT NULL) AND (NOT (EXISTS ( SELECT
           FROM ( SELECT by_item__delta.epoch,
                    by_item__delta.narrow,
                    by_item__delta.k1,
                    by_item__delta.n,
                    by_item__delta.a1,
                    by_item__delta.a2,
                    by_item__delta.a3,
                    by_item__delta.a4,
                    by_item__delta.a5,
                    by_item__delta.a6
                   FROM tally.by_item__delta
                  WHERE by_item__delta.narrow
                UNION ALL
                 SELECT by_item__delta.epoch,
                    by_item__delta.narrow,
                    by_item__delta.k1,
                    by_item__delta.n,
                    by_item__delta.a1,
                    by_item__delta.a2,
                    by_item__delta.a3,
                    by_item__delta.a4,
                    by_item__delta.a5,
                    by_item__delta.a6
                   FROM tally.by_item__delta
                  WHERE (NOT by_item__delta.narrow)) d
          WHERE (d.k1 = s.k1)
         OFFSET 0))) AND (( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'by_item'::text)) = 'kept'::text) AND (pg_backend_pid() <> 0));

CREATE VIEW tally.by_item__kept AS
 SELECT by_item__settled.item,
    by_item__settled.n,
    by_item__settled.mean,
    by_item__settled.rates
   FROM tally.by_item__settled
UNION ALL
 SELECT by_item__changed.item,
    by_item__changed.n,
    by_item__changed.mean,
    by_item__changed.rates
   FROM tally.by_item__changed;

CREATE VIEW tally.by_shop__front AS
 SELECT s.k1 AS shop,
    COALESCE(s.n, (0)::bigint) AS n,
        CASE
            WHEN (s.a1 > 0) THEN tally.with_specials(s.a2, s.a3)
            ELSE NULL::numeric
        END AS total,
    s.m1 AS "least",
    s.m2 AS most,
    COALESCE(s.c1, (0)::bigint) AS items
   FROM tally.by_shop__state s
  WHERE ((NOT (EXISTS ( SELECT
           FROM tally.reset
          WHERE (reset.aggregate = 'by_shop'::text)))) AND (s.k1 IS NOT NULL) AND (NOT (EXISTS ( SELECT
           FROM tally.by_shop__delta d
          WHERE (d.k1 = s.k1)
         OFFSET 0))) AND (( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'by_shop'::text)) = 'kept'::text) AND (pg_backend_pid() <> 0));

CREATE VIEW tally.by_shop__kept AS
 SELECT by_shop__settled.shop,
    by_shop__settled.n,
    by_shop__settled.total,
    by_shop__settled."least",
    by_shop__settled.most,
    by_shop__settled.items
   FROM tally.by_shop__settled
UNION ALL
 SELECT by_shop__changed.shop,
    by_shop__changed.n,
    by_shop__changed.total,
    by_shop__changed."least",
    by_shop__changed.most,
    by_shop__changed.items
   FROM tally.by_shop__changed;

CREATE SEQUENCE tally.epoch
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE tally.layout (
    version integer NOT NULL
);

COMMENT ON TABLE tally.layout IS 'tallystick: version of the layout of this schema';

CREATE VIEW tally.totals__direct AS
 SELECT count(*) AS n,
    sum(sale.size) AS size
   FROM public.sale sale;

CREATE VIEW tally.totals__kept AS
 SELECT COALESCE(r.n, (0)::bigint) AS n,
        CASE
            WHEN (r.a1 > 0) THEN r.a2
            ELSE NULL::bigint
        END AS size
   FROM ( SELECT g.n,
            g.a1,
            g.a2
           FROM ( SELECT (sum(p.n))::bigint AS n,
                    (sum(p.a1))::bigint AS a1,
                    (sum(p.a2))::bigint AS a2
                   FROM ( SELECT s.n,
                            s.a1,
                            s.a2
                           FROM ( SELECT totals__state.h,
                                    totals__state.n,
                                    totals__state.a1,
                                    totals__state.a2
                                   FROM tally.totals__state
                                  WHERE (NOT (EXISTS ( SELECT
   FROM tally.reset
  WHERE (reset.aggregate = 'totals'::text))))) s
                        UNION ALL
                         SELECT d.n,
                            d.a1,
                            d.a2
                           FROM ( SELECT totals__delta.epoch,
                                    totals__delta.n,
                                    totals__delta.a1,
                                    totals__delta.a2
                                   FROM tally.totals__delta
                                  WHERE (totals__delta.epoch >= COALESCE(( SELECT max(reset.epoch) AS max
   FROM tally.reset
  WHERE (reset.aggregate = 'totals'::text)), (0)::bigint))) d) p) g) r;

CREATE VIEW tally.totals AS
 SELECT totals__kept.n,
    totals__kept.size
   FROM tally.totals__kept
  WHERE ((( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'totals'::text)) = 'kept'::text) AND (pg_backend_pid() <> 0))
UNION ALL
 SELECT totals__direct.n,
    totals__direct.size
   FROM tally.totals__direct
  WHERE (( SELECT aggregate.serving
           FROM tally.aggregate
          WHERE (aggregate.name = 'totals'::text)) IS DISTINCT FROM 'kept'::text);

INSERT INTO public.sale VALUES
	(1, 1, 'item 1', 1, 0.25, 0.1),
	(2, 2, 'item 2', 2, 0.50, 0.2),
	(4, 4, 'item 4', 4, 1.00, 0.4),
	(5, 5, 'item 0', 5, 1.25, 0.5),
	(6, 6, 'item 1', 6, 1.50, 0.6),
	(7, NULL, 'item 2', 7, 1.75, 0.7),
	(8, 1, 'item 3', 8, 2.00, 0.8),
	(9, 2, 'item 4', 9, 2.25, 0.9),
	(12, 5, 'item 2', 1, 3.00, 1.2),
	(14, NULL, 'item 4', 3, 3.50, 1.4),
	(15, 1, 'item 0', 4, 3.75, 1.5),
	(16, 2, 'item 1', 5, 4.00, 1.6),
	(17, 3, 'item 2', 6, 4.25, 1.7),
	(18, 4, 'item 3', 7, 4.50, 1.8),
	(19, 5, 'item 4', 8, 4.75, 1.9),
	(20, 6, 'item 0', 9, 5.00, 2),
	(24, 3, 'item 4', 2, 6.00, 2.4),
	(25, 4, 'item 0', 3, 6.25, 2.5),
	(26, 5, 'item 1', 4, 6.50, 2.6),
	(27, 6, 'item 2', 5, 6.75, 2.7),
	(28, NULL, 'item 3', 6, 7.00, 2.8),
	(29, 1, 'item 4', 7, 7.25, 2.9),
	(30, 2, 'item 0', 8, 7.50, 3),
	(31, 3, 'item 1', 9, 7.75, 3.1),
	(34, 6, 'item 4', 1, 8.50, 3.4),
	(35, NULL, 'item 0', 2, 8.75, 3.5),
	(36, 1, 'item 1', 3, 9.00, 3.6),
	(37, 2, 'item 2', 4, 9.25, 3.7),
	(38, 3, 'item 3', 5, 9.50, 3.8),
	(39, 4, 'item 4', 6, 9.75, 3.9),
	(40, 5, 'item 0', 7, 10.00, 4),
	(41, 6, 'item 1', 8, 10.25, 4.1),
	(42, NULL, 'item 2', 9, 10.50, 4.2),
	(45, 3, 'item 0', 1, 11.25, 4.5),
	(46, 4, 'item 1', 2, 11.50, 4.6),
	(47, 5, 'item 2', 3, 11.75, 4.7),
	(48, 6, 'item 3', 4, 12.00, 4.8),
	(49, NULL, 'item 4', 5, 12.25, 4.9),
	(50, 1, 'item 0', 6, 12.50, 5),
	(51, 2, 'item 1', 7, 12.75, 5.1),
	(52, 3, 'item 2', 8, 13.00, 5.2),
	(56, NULL, 'item 1', 1, 14.00, 5.6),
	(57, 1, 'item 2', 2, 14.25, 5.7),
	(58, 2, 'item 3', 3, 14.50, 5.8),
	(59, 3, 'item 4', 4, 14.75, 5.9),
	(60, 4, 'item 0', 5, 15.00, 6),
	(61, 5, 'item 1', 6, 15.25, 6.1),
	(62, 6, 'item 2', 7, 15.50, 6.2),
	(64, 1, 'item 4', 9, 16.00, 6.4),
	(67, 4, 'item 2', 1, 16.75, 6.7),
	(68, 5, 'item 3', 2, 17.00, 6.8),
	(69, 6, 'item 4', 3, 17.25, 6.9),
	(70, NULL, 'item 0', 4, 17.50, 7),
	(71, 1, 'item 1', 5, 17.75, 7.1),
	(72, 2, 'item 2', 6, 18.00, 7.2),
	(74, 4, 'item 4', 8, 18.50, 7.4),
	(75, 5, 'item 0', 9, 18.75, 7.5),
	(78, 1, 'item 3', 1, 19.50, 7.8),
	(79, 2, 'item 4', 2, 19.75, 7.9),
	(80, 3, 'item 0', 3, 20.00, 8),
	(81, 4, 'item 1', 4, 20.25, 8.1),
	(82, 5, 'item 2', 5, 20.50, 8.2),
	(84, NULL, 'item 4', 7, 21.00, 8.4),
	(85, 1, 'item 0', 8, 21.25, 8.5),
	(86, 2, 'item 1', 9, 21.50, 8.6),
	(89, 5, 'item 4', 1, 22.25, 8.9),
	(90, 6, 'item 0', 2, 22.50, 9),
	(91, NULL, 'item 1', 3, 22.75, 9.1),
	(92, 1, 'item 2', 4, 23.00, 9.2),
	(94, 3, 'item 4', 6, 23.50, 9.4),
	(95, 4, 'item 0', 7, 23.75, 9.5),
	(96, 5, 'item 1', 8, 24.00, 9.6),
	(97, 6, 'item 2', 9, 24.25, 9.7),
	(100, 2, 'item 0', 1, 25.00, 10),
	(101, 3, 'item 1', 2, 25.25, 10.1),
	(102, 4, 'item 2', 3, 25.50, 10.2),
	(104, 6, 'item 4', 5, 26.00, 10.4),
	(105, NULL, 'item 0', 6, 26.25, 10.5),
	(106, 1, 'item 1', 7, 26.50, 10.6),
	(107, 2, 'item 2', 8, 26.75, 10.7),
	(108, 3, 'item 3', 9, 27.00, 10.8),
	(111, 6, 'item 1', 1, 27.75, 11.1),
	(112, NULL, 'item 2', 2, 28.00, 11.2),
	(114, 2, 'item 4', 4, 28.50, 11.4),
	(115, 3, 'item 0', 5, 28.75, 11.5),
	(116, 4, 'item 1', 6, 29.00, 11.6),
	(117, 5, 'item 2', 7, 29.25, 11.7),
	(118, 6, 'item 3', 8, 29.50, 11.8),
	(119, NULL, 'item 4', 9, 29.75, 11.9),
	(122, 3, 'item 2', 1, 30.50, 12.2),
	(3, 5, 'item 3', 3, 1.75, 0.3),
	(13, 5, 'item 3', 2, 4.25, 1.3),
	(23, 5, 'item 3', 1, 6.75, 2.3),
	(53, 5, 'item 3', 9, 14.25, 5.3),
	(63, 5, 'item 3', 8, 16.75, 6.3),
	(73, 5, 'item 3', 7, 19.25, 7.3),
	(83, 5, 'item 3', 6, 21.75, 8.3),
	(93, 5, 'item 3', 5, 24.25, 9.3),
	(103, 5, 'item 3', 4, 26.75, 10.3),
	(124, 5, 'item 4', 3, 31.00, 12.4),
	(125, 6, 'item 0', 4, 31.25, 12.5),
	(126, NULL, 'item 1', 5, 31.50, 12.6),
	(127, 1, 'item 2', 6, 31.75, 12.7),
	(128, 2, 'item 3', 7, 32.00, 12.8),
	(129, 3, 'item 4', 8, 32.25, 12.9),
	(130, 4, 'item 0', 9, 32.50, 13),
	(134, 1, 'item 4', 2, 33.50, 13.4),
	(135, 2, 'item 0', 3, 33.75, 13.5),
	(136, 3, 'item 1', 4, 34.00, 13.6),
	(137, 4, 'item 2', 5, 34.25, 13.7),
	(138, 5, 'item 3', 6, 34.50, 13.8),
	(139, 6, 'item 4', 7, 34.75, 13.9),
	(140, NULL, 'item 0', 8, 35.00, 14),
	(141, 1, 'item 1', 9, 35.25, 14.1),
	(144, 4, 'item 4', 1, 36.00, 14.4),
	(145, 5, 'item 0', 2, 36.25, 14.5),
	(146, 6, 'item 1', 3, 36.50, 14.6),
	(147, NULL, 'item 2', 4, 36.75, 14.7),
	(148, 1, 'item 3', 5, 37.00, 14.8),
	(149, 2, 'item 4', 6, 37.25, 14.9),
	(150, 3, 'item 0', 7, 37.50, 15),
	(151, 4, 'item 1', 8, 37.75, 15.1),
	(152, 5, 'item 2', 9, 38.00, 15.2),
	(155, 1, 'item 0', 1, 38.75, 15.5),
	(156, 2, 'item 1', 2, 39.00, 15.6),
	(157, 3, 'item 2', 3, 39.25, 15.7),
	(158, 4, 'item 3', 4, 39.50, 15.8),
	(159, 5, 'item 4', 5, 39.75, 15.9),
	(160, 6, 'item 0', 6, 40.00, 16),
	(161, NULL, 'item 1', 7, 40.25, 16.1),
	(162, 1, 'item 2', 8, 40.50, 16.2),
	(166, 5, 'item 1', 1, 41.50, 16.6),
	(167, 6, 'item 2', 2, 41.75, 16.7),
	(168, NULL, 'item 3', 3, 42.00, 16.8),
	(169, 1, 'item 4', 4, 42.25, 16.9),
	(170, 2, 'item 0', 5, 42.50, 17),
	(171, 3, 'item 1', 6, 42.75, 17.1),
	(172, 4, 'item 2', 7, 43.00, 17.2),
	(174, 6, 'item 4', 9, 43.50, 17.4),
	(177, 2, 'item 2', 1, 44.25, 17.7),
	(178, 3, 'item 3', 2, 44.50, 17.8),
	(179, 4, 'item 4', 3, 44.75, 17.9),
	(180, 5, 'item 0', 4, 45.00, 18),
	(181, 6, 'item 1', 5, 45.25, 18.1),
	(182, NULL, 'item 2', 6, 45.50, 18.2),
	(184, 2, 'item 4', 8, 46.00, 18.4),
	(185, 3, 'item 0', 9, 46.25, 18.5),
	(188, 6, 'item 3', 1, 47.00, 18.8),
	(189, NULL, 'item 4', 2, 47.25, 18.9),
	(190, 1, 'item 0', 3, 47.50, 19),
	(191, 2, 'item 1', 4, 47.75, 19.1),
	(192, 3, 'item 2', 5, 48.00, 19.2),
	(194, 5, 'item 4', 7, 48.50, 19.4),
	(195, 6, 'item 0', 8, 48.75, 19.5),
	(196, NULL, 'item 1', 9, 49.00, 19.6),
	(199, 3, 'item 4', 1, 49.75, 19.9),
	(200, 4, 'item 0', 2, 50.00, 20),
	(231, 1, 'late', 61, 2.5, 0.001),
	(232, 2, 'late', 60, 2.5, 0.001),
	(234, 1, 'late', 60, 2.5, 0.001),
	(235, 2, 'late', 61, 2.5, 0.001),
	(236, 3, 'late', 60, 2.5, 0.001),
	(237, 1, 'late', 61, 2.5, 0.001),
	(238, 2, 'late', 60, 2.5, 0.001),
	(239, 3, 'late', 61, 2.5, 0.001),
	(240, 1, 'late', 60, 2.5, 0.001),
	(241, 2, 'late', 61, 2.5, 0.001),
	(242, 3, 'late', 60, 2.5, 0.001),
	(244, 2, 'late', 60, 2.5, 0.001),
	(245, 3, 'late', 61, 2.5, 0.001),
	(246, 1, 'late', 60, 2.5, 0.001),
	(123, 5, 'item 3', 2, 31.75, 12.3),
	(133, 5, 'item 3', 1, 34.25, 13.3),
	(163, 5, 'item 3', 9, 41.75, 16.3),
	(173, 5, 'item 3', 8, 44.25, 17.3),
	(183, 5, 'item 3', 7, 46.75, 18.3),
	(193, 5, 'item 3', 6, 49.25, 19.3),
	(247, 2, 'late', 61, 2.5, 0.001),
	(248, 3, 'late', 60, 2.5, 0.001),
	(249, 1, 'late', 61, 2.5, 0.001),
	(250, 2, 'late', 60, 2.5, 0.001),
	(113, 5, 'item 3', 3, 29.25, 11.3),
	(233, 5, 'late', 61, 3.5, 0.001),
	(243, 5, 'late', 61, 3.5, 0.001);

INSERT INTO public.shop VALUES
	(1, NULL, NULL),
	(2, NULL, NULL),
	(3, NULL, NULL),
	(4, NULL, NULL),
	(5, NULL, NULL),
	(6, NULL, NULL);

INSERT INTO tally.aggregate VALUES
	('by_shop', 'grouped', 'SELECT shop, count(*) AS n, sum(price) AS total, min(size) AS least, max(size) AS most, count(DISTINCT item) AS items FROM sale WHERE size > 1 GROUP BY shop', '0517ad08427e6cd7ee5011afd4813a168c6e186aebd7d3c2220d154b168d4161', 'public.sale', 'kept', 'kept', '2026-11-28 22:27:16.346449+00'),
	('by_item', 'grouped', 'SELECT item, count(*) AS n, avg(price) AS mean, sum(rate) AS rates FROM sale GROUP BY item', '8dd07013d83314ad8b0fb5490e88cb18c133e0cdccf6c2bc6b60240d654f6849', 'public.sale', 'kept', 'kept', '2026-11-28 22:27:16.418639+00'),
	('totals', 'grouped', 'SELECT count(*) AS n, sum(size) AS size FROM sale', 'cdc16a800dc52255dc98383436985523f30d9058adc9cf3a7930141f782b86e6', 'public.sale', 'kept', 'kept', '2026-11-28 22:27:16.470967+00');

INSERT INTO tally.by_item__delta VALUES
	(1, true, 'late', 20, 20, 50.0, 20000000000000000000000000000000000000000000000000, 20, 0.020, NULL),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'item 3', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'new', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'new', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'new', 0, 0, 1.00, 0, 0, 0.0, 0),
	(1, true, 'late', 0, 0, 1.0, 0, 0, 0.000, 0),
	(1, true, 'late', 0, 0, 1.0, 0, 0, 0.000, 0),
	(1, true, 'new', -30, -30, -48.00, -30000000000000000000000000000000000000000000000000000000000000, -30, -9.0, NULL),
	(1, true, 'item 0', -3, -3, -82.50, -3000000000000000000000000000000000000000000000000000000000000, -3, -33.0, NULL),
	(1, true, 'item 4', -3, -3, -74.25, -3000000000000000000000000000000000000000000000000000000000000, -3, -29.7, NULL),
	(1, true, 'item 2', -4, -4, -104.50, -4000000000000000000000000000000000000000000000000000000000000, -4, -41.8, NULL),
	(1, true, 'item 3', -4, -4, -117.50, -4000000000000000000000000000000000000000000000000000000000000, -4, -46.2, NULL),
	(1, true, 'item 1', -4, -4, -93.50, -4000000000000000000000000000000000000000000000000000000000000, -4, -37.4, NULL);

INSERT INTO tally.by_item__state VALUES
	(true, 'item 4', DEFAULT, 37, 37, 933.25, 37000000000000000000000000000000000000000000000000000000000000, 37, 373.3, 0),
	(true, 'item 3', DEFAULT, 37, 37, 931.50, 37000000000000000000000000000000000000000000000000000000000000, 37, 372.6, 0),
	(true, 'item 2', DEFAULT, 36, 36, 880.50, 36000000000000000000000000000000000000000000000000000000000000, 36, 352.2, 0),
	(true, 'item 0', DEFAULT, 36, 36, 932.50, 36000000000000000000000000000000000000000000000000000000000000, 36, 373.0, 0),
	(true, 'item 1', DEFAULT, 36, 36, 881.50, 36000000000000000000000000000000000000000000000000000000000000, 36, 352.6, 0),
	(true, 'new', DEFAULT, 30, 30, 45.00, 30000000000000000000000000000000000000000000000000000000000000, 30, 9.0, 0);

INSERT INTO tally.by_shop__delta VALUES
	(1, 1, 1, 7, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'late'),
	(1, 0, 1, 7, 7, 17.5, NULL, 60, NULL, 61, NULL, NULL),
	(1, 1, 2, 7, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'late'),
	(1, 0, 2, 7, 7, 17.5, NULL, 60, NULL, 61, NULL, NULL),
	(1, 1, 3, 6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'late'),
	(1, 0, 3, 6, 6, 15.0, NULL, 60, NULL, 61, NULL, NULL),
	(1, 1, 3, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 3, -1, -1, -0.75, 0, NULL, 3, NULL, 3, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 1.75, 0, 3, NULL, 3, NULL, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 4.25, 0, 2, NULL, 2, NULL, NULL),
	(1, 1, 6, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 6, -1, -1, -3.25, 0, NULL, 2, NULL, 2, NULL),
	(1, 1, 4, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 4, -1, -1, -13.25, 0, NULL, 9, NULL, 9, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 14.25, 0, 9, NULL, 9, NULL, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 16.75, 0, 8, NULL, 8, NULL, NULL),
	(1, 1, NULL, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, NULL, -1, -1, -15.75, 0, NULL, 8, NULL, 8, NULL),
	(1, 1, 3, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 3, -1, -1, -18.25, 0, NULL, 7, NULL, 7, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 19.25, 0, 7, NULL, 7, NULL, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 21.75, 0, 6, NULL, 6, NULL, NULL),
	(1, 1, 6, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 6, -1, -1, -20.75, 0, NULL, 6, NULL, 6, NULL),
	(1, 1, 2, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 2, -1, -1, -23.25, 0, NULL, 5, NULL, 5, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 24.25, 0, 5, NULL, 5, NULL, NULL),
	(1, 0, 5, 0, 0, 1.00, 0, NULL, NULL, NULL, NULL, NULL),
	(1, 1, 1, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 1, -1, -1, -28.25, 0, NULL, 3, NULL, 3, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 29.25, 0, 3, NULL, 3, NULL, NULL),
	(1, 1, 4, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 4, -1, -1, -30.75, 0, NULL, 2, NULL, 2, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 31.75, 0, 2, NULL, 2, NULL, NULL),
	(1, 1, 2, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 2, -1, -1, -40.75, 0, NULL, 9, NULL, 9, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 41.75, 0, 9, NULL, 9, NULL, NULL),
	(1, 0, 5, 0, 0, 1.00, 0, NULL, NULL, NULL, NULL, NULL),
	(1, 1, 1, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 1, -1, -1, -45.75, 0, NULL, 7, NULL, 7, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 46.75, 0, 7, NULL, 7, NULL, NULL),
	(1, 1, 4, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 4, -1, -1, -48.25, 0, NULL, 6, NULL, 6, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'item 3'),
	(1, 0, 5, 1, 1, 49.25, 0, 6, NULL, 6, NULL, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 5, 1, 1, 2.50, 0, 50, NULL, 50, NULL, NULL),
	(1, 1, 6, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 6, -1, -1, -1.50, 0, NULL, 50, NULL, 50, NULL),
	(1, 1, 4, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 4, -1, -1, -1.50, 0, NULL, 50, NULL, 50, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 5, 1, 1, 2.50, 0, 50, NULL, 50, NULL, NULL),
	(1, 1, 2, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 2, -1, -1, -1.50, 0, NULL, 50, NULL, 50, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 5, 1, 1, 2.50, 0, 50, NULL, 50, NULL, NULL),
	(1, 1, 3, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'late'),
	(1, 0, 3, -1, -1, -2.5, 0, NULL, 61, NULL, 61, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'late'),
	(1, 0, 5, 1, 1, 3.5, 0, 61, NULL, 61, NULL, NULL),
	(1, 1, 1, -1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'late'),
	(1, 0, 1, -1, -1, -2.5, 0, NULL, 61, NULL, 61, NULL),
	(1, 1, 5, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'late'),
	(1, 0, 5, 1, 1, 3.5, 0, 61, NULL, 61, NULL, NULL),
	(1, 1, 1, -5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 1, -5, -5, -7.50, NULL, NULL, 50, NULL, 50, NULL),
	(1, 1, 2, -4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 2, -4, -4, -6.00, NULL, NULL, 50, NULL, 50, NULL),
	(1, 1, 3, -5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 3, -5, -5, -7.50, NULL, NULL, 50, NULL, 50, NULL),
	(1, 1, 4, -4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 4, -4, -4, -6.00, NULL, NULL, 50, NULL, 50, NULL),
	(1, 1, 5, -8, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 5, -8, -8, -15.00, NULL, NULL, 50, NULL, 50, NULL),
	(1, 1, 6, -4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'new'),
	(1, 0, 6, -4, -4, -6.00, NULL, NULL, 50, NULL, 50, NULL);

INSERT INTO tally.by_shop__facet1 VALUES
	(1, 'item 1', DEFAULT, 4),
	(NULL, 'item 4', DEFAULT, 5),
	(3, 'item 3', DEFAULT, 5),
	(3, 'item 1', DEFAULT, 4),
	(4, 'item 0', DEFAULT, 5),
	(5, 'item 0', DEFAULT, 5),
	(2, 'item 4', DEFAULT, 5),
	(5, 'item 3', DEFAULT, 4),
	(6, 'item 4', DEFAULT, 4),
	(NULL, 'item 2', DEFAULT, 5),
	(2, 'item 1', DEFAULT, 5),
	(6, 'item 2', DEFAULT, 4),
	(5, 'item 2', DEFAULT, 4),
	(4, 'item 3', DEFAULT, 5),
	(6, 'item 0', DEFAULT, 5),
	(1, 'item 4', DEFAULT, 4),
	(2, 'item 3', DEFAULT, 4),
	(1, 'item 3', DEFAULT, 4),
	(3, 'item 2', DEFAULT, 4),
	(5, 'item 4', DEFAULT, 4),
	(NULL, 'item 3', DEFAULT, 3),
	(1, 'item 2', DEFAULT, 4),
	(5, 'item 1', DEFAULT, 3),
	(4, 'item 4', DEFAULT, 4),
	(2, 'item 0', DEFAULT, 3),
	(3, 'item 0', DEFAULT, 4),
	(1, 'item 0', DEFAULT, 4),
	(NULL, 'item 0', DEFAULT, 4),
	(4, 'item 1', DEFAULT, 4),
	(3, 'item 4', DEFAULT, 4),
	(4, 'item 2', DEFAULT, 3),
	(2, 'item 2', DEFAULT, 4),
	(6, 'item 3', DEFAULT, 4),
	(NULL, 'item 1', DEFAULT, 4),
	(6, 'item 1', DEFAULT, 4),
	(2, 'new', DEFAULT, 5),
	(1, 'new', DEFAULT, 5),
	(3, 'new', DEFAULT, 5),
	(4, 'new', DEFAULT, 5),
	(6, 'new', DEFAULT, 5),
	(5, 'new', DEFAULT, 5);

INSERT INTO tally.by_shop__state VALUES
	(1, DEFAULT, 25, 25, 502.50, 0, 2, 50, 6),
	(2, DEFAULT, 26, 26, 515.00, 0, 2, 50, 6),
	(3, DEFAULT, 26, 26, 530.75, 0, 2, 50, 6),
	(4, DEFAULT, 26, 26, 546.50, 0, 2, 50, 6),
	(5, DEFAULT, 25, 25, 508.50, 0, 2, 50, 6),
	(6, DEFAULT, 26, 26, 523.75, 0, 2, 50, 6),
	(NULL, DEFAULT, 21, 21, 532.00, 0, 2, 9, 5);

INSERT INTO tally.layout VALUES
	(1);

INSERT INTO tally.totals__delta VALUES
	(1, 20, 20, 1210),
	(1, -48, -48, -1500);

INSERT INTO tally.totals__state VALUES
	(DEFAULT, 212, 212, 2313);

SELECT pg_catalog.setval('tally.epoch', 1, true);

ALTER TABLE ONLY public.sale
    ADD CONSTRAINT sale_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.shop
    ADD CONSTRAINT shop_pkey PRIMARY KEY (id);

ALTER TABLE ONLY tally.aggregate
    ADD CONSTRAINT aggregate_pkey PRIMARY KEY (name);

ALTER TABLE ONLY tally.reset
    ADD CONSTRAINT reset_pkey PRIMARY KEY (aggregate, epoch);

CREATE INDEX by_item__delta_k1_idx ON tally.by_item__delta USING btree (k1) WHERE narrow;

CREATE INDEX by_item__delta_narrow_idx ON tally.by_item__delta USING btree (narrow) WHERE (NOT narrow);

CREATE INDEX by_item__state_coalesce_k1_idx ON tally.by_item__state USING btree (COALESCE(n, (0)::bigint) DESC NULLS LAST, k1) WHERE narrow;

CREATE INDEX by_item__state_h_idx ON tally.by_item__state USING btree (h);

CREATE INDEX by_item__state_k1_idx ON tally.by_item__state USING btree (k1) WHERE narrow;

CREATE INDEX by_item__state_narrow_idx ON tally.by_item__state USING btree (narrow) WHERE (NOT narrow);

CREATE INDEX by_shop__delta_k1_idx ON tally.by_shop__delta USING btree (k1);

CREATE INDEX by_shop__facet1_h_idx ON tally.by_shop__facet1 USING btree (h);

CREATE INDEX by_shop__state_coalesce_k1_idx ON tally.by_shop__state USING btree (COALESCE(n, (0)::bigint) DESC NULLS LAST, k1);

CREATE INDEX by_shop__state_coalesce_k1_idx1 ON tally.by_shop__state USING btree (COALESCE(c1, (0)::bigint) DESC NULLS LAST, k1);

CREATE INDEX by_shop__state_h_idx ON tally.by_shop__state USING btree (h);

CREATE INDEX by_shop__state_k1_idx ON tally.by_shop__state USING btree (k1);

CREATE INDEX by_shop__state_m1_k1_idx ON tally.by_shop__state USING btree (m1 DESC NULLS LAST, k1);

CREATE INDEX by_shop__state_m2_k1_idx ON tally.by_shop__state USING btree (m2 DESC NULLS LAST, k1);

CREATE INDEX totals__state_h_idx ON tally.totals__state USING btree (h);

CREATE TRIGGER tally_by_item__delete AFTER DELETE ON public.sale REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT EXECUTE FUNCTION tally.by_item__delete();

CREATE TRIGGER tally_by_item__insert AFTER INSERT ON public.sale REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT EXECUTE FUNCTION tally.by_item__insert();

CREATE TRIGGER tally_by_item__truncate AFTER TRUNCATE ON public.sale FOR EACH STATEMENT EXECUTE FUNCTION tally.by_item__truncate();

CREATE TRIGGER tally_by_item__update AFTER UPDATE ON public.sale FOR EACH ROW WHEN (record_image_ne(ROW(old.item, old.price, old.rate), ROW(new.item, new.price, new.rate))) EXECUTE FUNCTION tally.by_item__update();

CREATE TRIGGER tally_by_shop__delete AFTER DELETE ON public.sale REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT EXECUTE FUNCTION tally.by_shop__delete();

CREATE TRIGGER tally_by_shop__insert AFTER INSERT ON public.sale REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT EXECUTE FUNCTION tally.by_shop__insert();

CREATE TRIGGER tally_by_shop__truncate AFTER TRUNCATE ON public.sale FOR EACH STATEMENT EXECUTE FUNCTION tally.by_shop__truncate();

CREATE TRIGGER tally_by_shop__update AFTER UPDATE ON public.sale FOR EACH ROW WHEN (record_image_ne(ROW(old.shop, old.item, old.size, old.price), ROW(new.shop, new.item, new.size, new.price))) EXECUTE FUNCTION tally.by_shop__update();

CREATE TRIGGER tally_totals__delete AFTER DELETE ON public.sale REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT EXECUTE FUNCTION tally.totals__delete();

CREATE TRIGGER tally_totals__insert AFTER INSERT ON public.sale REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT EXECUTE FUNCTION tally.totals__insert();

CREATE TRIGGER tally_totals__truncate AFTER TRUNCATE ON public.sale FOR EACH STATEMENT EXECUTE FUNCTION tally.totals__truncate();

CREATE TRIGGER tally_totals__update AFTER UPDATE ON public.sale FOR EACH ROW WHEN (record_image_ne(ROW(old.size), ROW(new.size))) EXECUTE FUNCTION tally.totals__update();

ALTER TABLE ONLY public.sale
    ADD CONSTRAINT sale_shop_fkey FOREIGN KEY (shop) REFERENCES public.shop(id);

REVOKE ALL ON FUNCTION tally.by_item__delete() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_item__fold(OUT deltas bigint, OUT groups bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_item__insert() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_item__rebuild() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_item__row(source_row public.sale) FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_item__source() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_item__truncate() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_item__update() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_shop__delete() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_shop__fold(OUT deltas bigint, OUT groups bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_shop__insert() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_shop__rebuild() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_shop__row(source_row public.sale) FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_shop__source() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_shop__truncate() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.by_shop__update() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.totals__delete() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.totals__fold(OUT deltas bigint, OUT groups bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.totals__insert() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.totals__rebuild() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.totals__row(source_row public.sale) FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.totals__source() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.totals__truncate() FROM PUBLIC;

REVOKE ALL ON FUNCTION tally.totals__update() FROM PUBLIC;
