-- the declared query: what the kept answer must equal
CREATE VIEW "tally"."numeric__direct" AS
SELECT chat_id AS "chat_id", avg(amount) AS "mean", sum(amount) AS "total", avg(price) AS "price", var_pop(size) AS "variance"
FROM app.event AS "event" GROUP BY chat_id;

-- folded components of each group
CREATE TABLE "tally"."numeric__state" (
    k1 integer,
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1), 0)) STORED,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric,
    a4 numeric,
    a5 bigint,
    a6 numeric,
    a7 numeric,
    a8 bigint,
    a9 bigint,
    a10 numeric
);

-- signed changes, appended by the writers and consumed by the fold
CREATE TABLE "tally"."numeric__delta" (
    epoch bigint NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    k1 integer,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric,
    a4 numeric,
    a5 bigint,
    a6 numeric,
    a7 numeric,
    a8 bigint,
    a9 bigint,
    a10 numeric,
    p1 bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, vacuum_truncate = false);

-- finds a group when folding
CREATE INDEX ON "tally"."numeric__state" (h);

-- finds a group's state when reading
CREATE INDEX ON "tally"."numeric__state" (k1);

-- finds a group's delta when reading
CREATE INDEX ON "tally"."numeric__delta" (k1, xact);

-- orders the groups by a measure
CREATE INDEX ON "tally"."numeric__state" (((CASE WHEN a5 > 0 THEN "tally".with_specials(round(a6, 2) / a5, a7) END)::numeric) DESC NULLS LAST, k1);

-- orders the groups by a measure
CREATE INDEX ON "tally"."numeric__state" ((("tally"."variance"(coalesce(a8, 0), "tally".with_specials(a9::numeric, NULL::numeric), a10, 0, false))::numeric) DESC NULLS LAST, k1);

-- the table that may call the capture functions
CREATE FUNCTION "tally"."numeric__source"() RETURNS regclass LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT 'app.event'::regclass; END;

-- group key, arguments and filters of one source row
CREATE FUNCTION "tally"."numeric__row"(source_row app.event) RETURNS TABLE (k1 integer, x1 numeric, x2 numeric, x3 integer) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT chat_id AS k1, (amount)::numeric AS x1, (price)::numeric AS x2, (size)::integer AS x3 FROM (SELECT (source_row)."chat_id" AS "chat_id", (source_row)."size" AS "size", (source_row)."amount" AS "amount", (source_row)."price" AS "price") AS "event";
END;

-- counts what other triggers have put into the table since it was truncated
CREATE FUNCTION "tally"."numeric__refill"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."numeric__delta" (epoch, k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, true)) AS a3, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a4, count(*) FILTER (WHERE x2 IS NOT NULL) AS a5, sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a6, sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a7, count(*) FILTER (WHERE x3 IS NOT NULL) AS a8, sum(x3) AS a9, sum(x3::numeric * x3) AS a10 FROM (SELECT chat_id AS k1, (amount)::numeric AS x1, (price)::numeric AS x2, (size)::integer AS x3 FROM app.event AS "event") AS r GROUP BY k1) AS g;
END;

-- never called: while it is there, so is all that the triggers need
CREATE FUNCTION "tally"."numeric__guard"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."numeric__delta" (epoch, k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, true)) FILTER (WHERE w > 0), 0) - coalesce(sum("tally".census(x1, true)) FILTER (WHERE w < 0), 0) AS a3, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a4, coalesce(count(*) FILTER (WHERE x2 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x2 IS NOT NULL AND w < 0), 0) AS a5, coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric AND w < 0), 0) AS a6, coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AND w < 0), 0) AS a7, coalesce(count(*) FILTER (WHERE x3 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x3 IS NOT NULL AND w < 0), 0) AS a8, coalesce(sum(x3) FILTER (WHERE w > 0), 0) - coalesce(sum(x3) FILTER (WHERE w < 0), 0) AS a9, coalesce(sum(x3::numeric * x3) FILTER (WHERE w > 0), 0) - coalesce(sum(x3::numeric * x3) FILTER (WHERE w < 0), 0) AS a10 FROM (SELECT 1 AS w, o.* FROM "tally"."numeric__row"(NULL::app.event) AS o WHERE "tally"."numeric__source"() IS NOT NULL) AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0 OR a4 <> 0 OR a5 <> 0 OR a6 <> 0 OR a7 <> 0 OR a8 <> 0 OR a9 <> 0 OR a10 <> 0);
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('numeric', nextval('"tally"."epoch"'::regclass));
  SELECT "tally"."numeric__refill"();
END;

-- captures each changed row
CREATE FUNCTION "tally"."numeric__change"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."numeric__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."numeric__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "numeric": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."numeric__place"') IS NULL THEN
  INSERT INTO "tally"."numeric__delta" (epoch, k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, true)) FILTER (WHERE w > 0), 0) - coalesce(sum("tally".census(x1, true)) FILTER (WHERE w < 0), 0) AS a3, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a4, coalesce(count(*) FILTER (WHERE x2 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x2 IS NOT NULL AND w < 0), 0) AS a5, coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric AND w < 0), 0) AS a6, coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AND w < 0), 0) AS a7, coalesce(count(*) FILTER (WHERE x3 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x3 IS NOT NULL AND w < 0), 0) AS a8, coalesce(sum(x3) FILTER (WHERE w > 0), 0) - coalesce(sum(x3) FILTER (WHERE w < 0), 0) AS a9, coalesce(sum(x3::numeric * x3) FILTER (WHERE w > 0), 0) - coalesce(sum(x3::numeric * x3) FILTER (WHERE w < 0), 0) AS a10 FROM (SELECT -1 AS w, o.* FROM "tally"."numeric__row"(OLD) AS o WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.* FROM "tally"."numeric__row"(NEW) AS o WHERE TG_OP <> 'DELETE') AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0 OR a4 <> 0 OR a5 <> 0 OR a6 <> 0 OR a7 <> 0 OR a8 <> 0 OR a9 <> 0 OR a10 <> 0);
  ELSE
  INSERT INTO "tally"."numeric__delta" (epoch, k1, p1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, p1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, true)) FILTER (WHERE w > 0), 0) - coalesce(sum("tally".census(x1, true)) FILTER (WHERE w < 0), 0) AS a3, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a4, coalesce(count(*) FILTER (WHERE x2 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x2 IS NOT NULL AND w < 0), 0) AS a5, coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric AND w < 0), 0) AS a6, coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AND w < 0), 0) AS a7, coalesce(count(*) FILTER (WHERE x3 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x3 IS NOT NULL AND w < 0), 0) AS a8, coalesce(sum(x3) FILTER (WHERE w > 0), 0) - coalesce(sum(x3) FILTER (WHERE w < 0), 0) AS a9, coalesce(sum(x3::numeric * x3) FILTER (WHERE w > 0), 0) - coalesce(sum(x3::numeric * x3) FILTER (WHERE w < 0), 0) AS a10 FROM (SELECT -1 AS w, o.*, q.* FROM "tally"."numeric__row"(OLD) AS o, "tally"."numeric__place"(OLD) AS q WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.*, q.* FROM "tally"."numeric__row"(NEW) AS o, "tally"."numeric__place"(NEW) AS q WHERE TG_OP <> 'DELETE') AS r GROUP BY k1, p1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0 OR a4 <> 0 OR a5 <> 0 OR a6 <> 0 OR a7 <> 0 OR a8 <> 0 OR a9 <> 0 OR a10 <> 0);
  END IF;
  RETURN NULL;
END
$tally$;

-- captures INSERT
CREATE FUNCTION "tally"."numeric__insert"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."numeric__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."numeric__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "numeric": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."numeric__place"') IS NULL THEN
  INSERT INTO "tally"."numeric__delta" (epoch, k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, true)) AS a3, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a4, count(*) FILTER (WHERE x2 IS NOT NULL) AS a5, sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a6, sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a7, count(*) FILTER (WHERE x3 IS NOT NULL) AS a8, sum(x3) AS a9, sum(x3::numeric * x3) AS a10 FROM (SELECT o.* FROM newtab AS t, "tally"."numeric__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."numeric__delta" (epoch, k1, p1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, p1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, true)) AS a3, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a4, count(*) FILTER (WHERE x2 IS NOT NULL) AS a5, sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a6, sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a7, count(*) FILTER (WHERE x3 IS NOT NULL) AS a8, sum(x3) AS a9, sum(x3::numeric * x3) AS a10 FROM (SELECT o.*, q.* FROM newtab AS t, "tally"."numeric__row"(t.*) AS o, "tally"."numeric__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures DELETE
CREATE FUNCTION "tally"."numeric__delete"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."numeric__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."numeric__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "numeric": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."numeric__place"') IS NULL THEN
  INSERT INTO "tally"."numeric__delta" (epoch, k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, - sum("tally".census(x1, true)) AS a3, - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a4, - count(*) FILTER (WHERE x2 IS NOT NULL) AS a5, - sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a6, - sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a7, - count(*) FILTER (WHERE x3 IS NOT NULL) AS a8, - sum(x3) AS a9, - sum(x3::numeric * x3) AS a10 FROM (SELECT o.* FROM oldtab AS t, "tally"."numeric__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."numeric__delta" (epoch, k1, p1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, p1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, - sum("tally".census(x1, true)) AS a3, - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a4, - count(*) FILTER (WHERE x2 IS NOT NULL) AS a5, - sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a6, - sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a7, - count(*) FILTER (WHERE x3 IS NOT NULL) AS a8, - sum(x3) AS a9, - sum(x3::numeric * x3) AS a10 FROM (SELECT o.*, q.* FROM oldtab AS t, "tally"."numeric__row"(t.*) AS o, "tally"."numeric__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures TRUNCATE
CREATE FUNCTION "tally"."numeric__truncate"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."numeric__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."numeric__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "numeric": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('numeric', nextval('"tally"."epoch"'::regclass));
  IF pg_relation_size("tally"."numeric__source"()) > 0 THEN
    PERFORM "tally"."numeric__refill"();
  END IF;
  RETURN NULL;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."numeric__source", "tally"."numeric__row", "tally"."numeric__guard", "tally"."numeric__change", "tally"."numeric__insert", "tally"."numeric__delete", "tally"."numeric__truncate", "tally"."numeric__refill" FROM PUBLIC;

-- groups that their state alone answers
CREATE VIEW "tally"."numeric__settled" AS
SELECT k1 AS "chat_id", (CASE WHEN a1 > 0 THEN "tally".with_specials(round(a2, "tally".widest_scale(a3)) / a1, a3) END)::numeric AS "mean", (CASE WHEN a1 > 0 THEN "tally".with_specials(a2, a4) END)::numeric AS "total", (CASE WHEN a5 > 0 THEN "tally".with_specials(round(a6, 2) / a5, a7) END)::numeric AS "price", ("tally"."variance"(coalesce(a8, 0), "tally".with_specials(a9::numeric, NULL::numeric), a10, 0, false))::numeric AS "variance" FROM "tally"."numeric__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'numeric' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."numeric__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'numeric'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1);

-- groups that have unfolded deltas: state and deltas added up
CREATE VIEW "tally"."numeric__changed" AS
SELECT k1 AS "chat_id", (CASE WHEN a1 > 0 THEN "tally".with_specials(round(a2, "tally".widest_scale(a3)) / a1, a3) END)::numeric AS "mean", (CASE WHEN a1 > 0 THEN "tally".with_specials(a2, a4) END)::numeric AS "total", (CASE WHEN a5 > 0 THEN "tally".with_specials(round(a6, 2) / a5, a7) END)::numeric AS "price", ("tally"."variance"(coalesce(a8, 0), "tally".with_specials(a9::numeric, NULL::numeric), a10, 0, false))::numeric AS "variance" FROM (
  SELECT k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 FROM (
    SELECT k1, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::numeric AS a2, sum(a3)::numeric AS a3, sum(a4)::numeric AS a4, sum(a5)::bigint AS a5, sum(a6)::numeric AS a6, sum(a7)::numeric AS a7, sum(a8)::bigint AS a8, sum(a9)::bigint AS a9, sum(a10)::numeric AS a10 FROM (
    SELECT k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 FROM (SELECT * FROM "tally"."numeric__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'numeric' AND partition IS NULL) AND s.k1 IS NOT NULL AND EXISTS (SELECT FROM (SELECT * FROM "tally"."numeric__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'numeric'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1) UNION ALL SELECT * FROM "tally"."numeric__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'numeric' AND partition IS NULL) AND NOT (s.k1 IS NOT NULL)) AS s
    UNION ALL
    SELECT k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 FROM (SELECT * FROM "tally"."numeric__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'numeric'), '0') AND '18446744073709551615' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'numeric' AND partition IS NULL), 0) AND pg_backend_pid() <> 0) AS d
    ) AS p GROUP BY k1
  ) AS g WHERE n > 0
) AS r;

-- the kept answer
CREATE VIEW "tally"."numeric__kept" AS
SELECT "chat_id", "mean", "total", "price", "variance" FROM "tally"."numeric__settled"
UNION ALL
SELECT "chat_id", "mean", "total", "price", "variance" FROM "tally"."numeric__changed";

-- settled groups in the order of an index, for .top()
CREATE VIEW "tally"."numeric__front" AS
SELECT k1 AS "chat_id", (CASE WHEN a1 > 0 THEN "tally".with_specials(round(a2, "tally".widest_scale(a3)) / a1, a3) END)::numeric AS "mean", (CASE WHEN a1 > 0 THEN "tally".with_specials(a2, a4) END)::numeric AS "total", (CASE WHEN a5 > 0 THEN "tally".with_specials(round(a6, 2) / a5, a7) END)::numeric AS "price", ("tally"."variance"(coalesce(a8, 0), "tally".with_specials(a9::numeric, NULL::numeric), a10, 0, false))::numeric AS "variance" FROM "tally"."numeric__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'numeric' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."numeric__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'numeric'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1 OFFSET 0) AND (SELECT serving FROM "tally"."aggregate" WHERE name = 'numeric' AND version = 1) = 'kept' AND to_regprocedure('"tally"."numeric__guard"()') = '"tally"."numeric__guard"()'::regprocedure AND pg_backend_pid() <> 0;

-- all other groups, for .top()
CREATE VIEW "tally"."numeric__rest" AS
SELECT "chat_id", "mean", "total", "price", "variance" FROM "tally"."numeric__changed" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'numeric' AND version = 1) = 'kept' AND to_regprocedure('"tally"."numeric__guard"()') = '"tally"."numeric__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "mean", "total", "price", "variance" FROM "tally"."numeric__direct" WHERE ((SELECT serving FROM "tally"."aggregate" WHERE name = 'numeric' AND version = 1) = 'kept' AND to_regprocedure('"tally"."numeric__guard"()') = '"tally"."numeric__guard"()'::regprocedure) IS NOT TRUE;

-- what readers use: the half that the switch names
CREATE VIEW "tally"."numeric" AS
SELECT "chat_id", "mean", "total", "price", "variance" FROM "tally"."numeric__settled" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'numeric' AND version = 1) = 'kept' AND to_regprocedure('"tally"."numeric__guard"()') = '"tally"."numeric__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "mean", "total", "price", "variance" FROM "tally"."numeric__rest";

-- adds all visible deltas to the state; returns deltas consumed and groups written
CREATE FUNCTION "tally"."numeric__fold"(OUT deltas bigint, OUT groups bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.numeric', 0));
  UPDATE "tally"."numeric__state" SET k1 = k1 WHERE NOT (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'numeric');
  WITH marker AS (SELECT max(epoch) AS epoch FROM "tally"."reset" WHERE aggregate = 'numeric' AND partition IS NULL AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'numeric') = 'kept'),
  void AS (DELETE FROM "tally"."numeric__delta" WHERE epoch < (SELECT epoch FROM marker) RETURNING *),
  "void0" AS (DELETE FROM "tally"."numeric__state" WHERE (SELECT epoch FROM marker) IS NOT NULL)
  DELETE FROM "tally"."reset" WHERE aggregate = 'numeric' AND epoch <= (SELECT epoch FROM marker);
  WITH gone AS (DELETE FROM "tally"."numeric__delta" WHERE (SELECT phase FROM "tally"."aggregate" WHERE name = 'numeric') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'numeric' AND partition IS NULL) RETURNING *),
  floor AS (UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'numeric' AND ((NOT major = current_setting('server_version_num')::integer / 10000 AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'numeric') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'numeric' AND partition IS NULL)) OR EXISTS (SELECT FROM gone))),
  gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::numeric AS a2, sum(a3)::numeric AS a3, sum(a4)::numeric AS a4, sum(a5)::bigint AS a5, sum(a6)::numeric AS a6, sum(a7)::numeric AS a7, sum(a8)::bigint AS a8, sum(a9)::bigint AS a9, sum(a10)::numeric AS a10 FROM (SELECT k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
  met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2, coalesce(s.a3, 0) + coalesce(g.a3, 0) AS a3, coalesce(s.a4, 0) + coalesce(g.a4, 0) AS a4, coalesce(s.a5, 0) + coalesce(g.a5, 0) AS a5, coalesce(s.a6, 0) + coalesce(g.a6, 0) AS a6, coalesce(s.a7, 0) + coalesce(g.a7, 0) AS a7, coalesce(s.a8, 0) + coalesce(g.a8, 0) AS a8, coalesce(s.a9, 0) + coalesce(g.a9, 0) AS a9, coalesce(s.a10, 0) + coalesce(g.a10, 0) AS a10 FROM gathered AS g LEFT JOIN "tally"."numeric__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
  next AS (SELECT * FROM met),
  "state_new" AS (INSERT INTO "tally"."numeric__state" (k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10) SELECT k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 FROM next WHERE place IS NULL AND n <> 0),
  "state_changed" AS (UPDATE "tally"."numeric__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2, a3 = f.a3, a4 = f.a4, a5 = f.a5, a6 = f.a6, a7 = f.a7, a8 = f.a8, a9 = f.a9, a10 = f.a10 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
  "state_emptied" AS (DELETE FROM "tally"."numeric__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
  SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM next);
END;

-- computes the state from the source anew; returns groups written. Needs a REPEATABLE READ transaction
CREATE FUNCTION "tally"."numeric__rebuild"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."numeric__state";
  DELETE FROM "tally"."numeric__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'numeric';
  UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'numeric' AND true;
  INSERT INTO "tally"."numeric__state" (k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10) SELECT k1, count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), 0), coalesce(sum("tally".census(x1, true)), 0), coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)), 0), coalesce(count(*) FILTER (WHERE x2 IS NOT NULL), 0), coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric), 0), coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)), 0), coalesce(count(*) FILTER (WHERE x3 IS NOT NULL), 0), coalesce(sum(x3), 0), coalesce(sum(x3::numeric * x3), 0) FROM (SELECT chat_id AS k1, (amount)::numeric AS x1, (price)::numeric AS x2, (size)::integer AS x3 FROM app.event AS "event") AS r GROUP BY k1 HAVING count(*) > 0;
  SELECT count(*) FROM "tally"."numeric__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."numeric__fold", "tally"."numeric__rebuild" FROM PUBLIC;

-- computes groups that are not what the source says anew; returns how many. Needs what rebuild needs
CREATE FUNCTION "tally"."numeric__repair"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  WITH odd AS MATERIALIZED (SELECT DISTINCT k1, hash_record_extended(ROW(k1), 0) AS h FROM (
    SELECT k1 FROM (SELECT 1 AS half, ("chat_id")::integer AS k1, "mean" AS y1, "total" AS y2, "price" AS y3, "variance" AS y4 FROM "tally"."numeric__kept" UNION ALL SELECT -1, ("chat_id")::integer AS k1, "mean" AS y1, "total" AS y2, "price" AS y3, "variance" AS y4 FROM "tally"."numeric__direct") AS b GROUP BY k1, y1, y2, y3, y4 HAVING sum(half) <> 0
    UNION ALL SELECT k1 FROM (SELECT k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 FROM "tally"."numeric__state" UNION ALL SELECT k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 FROM "tally"."numeric__delta" UNION ALL SELECT k1, - count(*), - count(*) FILTER (WHERE x1 IS NOT NULL), - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), - sum("tally".census(x1, true)), - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)), - count(*) FILTER (WHERE x2 IS NOT NULL), - sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric), - sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)), - count(*) FILTER (WHERE x3 IS NOT NULL), - sum(x3), - sum(x3::numeric * x3) FROM (SELECT chat_id AS k1, (amount)::numeric AS x1, (price)::numeric AS x2, (size)::integer AS x3 FROM app.event AS "event") AS r GROUP BY k1) AS b GROUP BY k1 HAVING coalesce(sum(n), 0) <> 0 OR coalesce(sum(a1), 0) <> 0 OR coalesce(sum(a2), 0) <> 0 OR coalesce(sum(a3), 0) <> 0 OR coalesce(sum(a4), 0) <> 0 OR coalesce(sum(a5), 0) <> 0 OR coalesce(sum(a6), 0) <> 0 OR coalesce(sum(a7), 0) <> 0 OR coalesce(sum(a8), 0) <> 0 OR coalesce(sum(a9), 0) <> 0 OR coalesce(sum(a10), 0) <> 0) AS f),
  "state_gone" AS (DELETE FROM "tally"."numeric__state" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  "delta_gone" AS (DELETE FROM "tally"."numeric__delta" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  state_counted AS (INSERT INTO "tally"."numeric__state" (k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10) SELECT k1, count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), 0), coalesce(sum("tally".census(x1, true)), 0), coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)), 0), coalesce(count(*) FILTER (WHERE x2 IS NOT NULL), 0), coalesce(sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric), 0), coalesce(sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)), 0), coalesce(count(*) FILTER (WHERE x3 IS NOT NULL), 0), coalesce(sum(x3), 0), coalesce(sum(x3::numeric * x3), 0) FROM (SELECT r.* FROM (SELECT chat_id AS k1, (amount)::numeric AS x1, (price)::numeric AS x2, (size)::integer AS x3 FROM app.event AS "event") AS r WHERE EXISTS (SELECT FROM odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)))) AS r GROUP BY k1 HAVING count(*) > 0)
  SELECT count(*) FROM odd;
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."numeric__repair" FROM PUBLIC;

-- where a row stands
CREATE FUNCTION "tally"."numeric__place"(source_row app.event) RETURNS TABLE (p1 bigint) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT (source_row)."id" AS p1; END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."numeric__place" FROM PUBLIC;

-- where there are rows
CREATE VIEW "tally"."numeric__places" AS SELECT t."id" AS p1 FROM app.event AS t;

-- group key, arguments and filters of rows, and where they stand
CREATE VIEW "tally"."numeric__rows" AS SELECT o.*, t."id" AS p1 FROM app.event AS t, "tally"."numeric__row"(t.*) AS o;

-- chunks of a backfill; empty otherwise
CREATE TABLE "tally"."numeric__chunk" (
    id integer PRIMARY KEY,
    p1 bigint,
    u1 bigint,
    size bigint,
    snapshot pg_snapshot,
    counter xid8 NOT NULL
);

-- finds the chunk of a place
CREATE INDEX ON "tally"."numeric__chunk" (p1);

-- what the chunks of a backfill count to, as deltas; empty otherwise
CREATE TABLE "tally"."numeric__counted" (LIKE "tally"."numeric__delta" INCLUDING DEFAULTS);

-- clears what is kept, for a backfill to begin
CREATE FUNCTION "tally"."numeric__begin"() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."numeric__chunk";
  DELETE FROM "tally"."numeric__counted";
  DELETE FROM "tally"."numeric__state";
  DELETE FROM "tally"."numeric__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'numeric';
  SELECT;
END;

-- plans one more chunk of so many rows; false if there are no more rows
CREATE FUNCTION "tally"."numeric__extend"(bigint) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
SET plan_cache_mode = force_custom_plan
AS $tally$
#variable_conflict use_column
DECLARE
  size bigint := $1;
  final record;
  last record;
  ahead record;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "numeric": a chunk is planned in a READ COMMITTED transaction only.';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tallystick chunks tally.numeric', 0));
  LOCK TABLE "tally"."numeric__chunk" IN ROW EXCLUSIVE MODE;
  IF (SELECT phase FROM "tally"."aggregate" WHERE name = 'numeric') = 'kept' THEN
    RETURN false;
  END IF;
  SELECT p1 INTO final FROM "tally"."numeric__chunk" WHERE id = 0;
  IF NOT FOUND THEN
    INSERT INTO "tally"."numeric__chunk" (id, p1, size, counter)
      SELECT 0, t.p1, CASE WHEN t.p1 IS NOT NULL THEN 0 END, pg_current_xact_id()
      FROM (SELECT) AS one LEFT JOIN (SELECT p1 FROM "tally"."numeric__places" WHERE true ORDER BY p1 DESC LIMIT 1) AS t ON true;
    RETURN true;
  END IF;
  SELECT * INTO last FROM "tally"."numeric__chunk" WHERE id > 0 ORDER BY id DESC LIMIT 1;
  IF final.p1 IS NULL OR last.id > 0 AND last.size IS NULL THEN
    RETURN false;
  ELSIF last.id IS NULL THEN
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."numeric__places" WHERE ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  ELSE
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."numeric__places" WHERE ROW(p1) >= ROW(last.u1) AND ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  END IF;
  IF NOT FOUND THEN
    ahead := final;
    size := NULL;
  END IF;
  INSERT INTO "tally"."numeric__chunk" (id, p1, u1, size, counter)
    VALUES (coalesce(last.id, 0) + 1, last.u1, ahead.p1, size, pg_current_xact_id());
  RETURN true;
END
$tally$;

-- counts a chunk that nobody counts; returns its number and size, or NULL if there is none
CREATE FUNCTION "tally"."numeric__count"(OUT id integer, OUT size bigint) RETURNS record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
SET plan_cache_mode = force_custom_plan
AS $tally$
#variable_conflict use_column
DECLARE
  c record;
BEGIN
  IF current_setting('transaction_isolation') = 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "numeric": a chunk is counted in a REPEATABLE READ transaction only.';
  END IF;
  SELECT * INTO c FROM "tally"."numeric__chunk" AS o WHERE o.snapshot IS NULL AND NOT (SELECT phase FROM "tally"."aggregate" WHERE name = 'numeric') = 'kept'
    ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF c.p1 IS NULL AND c.u1 IS NULL THEN
    INSERT INTO "tally"."numeric__counted" (epoch, k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, true)) AS a3, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a4, count(*) FILTER (WHERE x2 IS NOT NULL) AS a5, sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a6, sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a7, count(*) FILTER (WHERE x3 IS NOT NULL) AS a8, sum(x3) AS a9, sum(x3::numeric * x3) AS a10 FROM ((SELECT k1, x1, x2, x3 FROM "tally"."numeric__rows" WHERE true)) AS r GROUP BY k1) AS g;
  ELSIF c.p1 IS NULL THEN
    INSERT INTO "tally"."numeric__counted" (epoch, k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, true)) AS a3, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a4, count(*) FILTER (WHERE x2 IS NOT NULL) AS a5, sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a6, sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a7, count(*) FILTER (WHERE x3 IS NOT NULL) AS a8, sum(x3) AS a9, sum(x3::numeric * x3) AS a10 FROM ((SELECT k1, x1, x2, x3 FROM "tally"."numeric__rows" WHERE ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  ELSIF c.u1 IS NULL THEN
    INSERT INTO "tally"."numeric__counted" (epoch, k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, true)) AS a3, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a4, count(*) FILTER (WHERE x2 IS NOT NULL) AS a5, sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a6, sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a7, count(*) FILTER (WHERE x3 IS NOT NULL) AS a8, sum(x3) AS a9, sum(x3::numeric * x3) AS a10 FROM ((SELECT k1, x1, x2, x3 FROM "tally"."numeric__rows" WHERE ROW(p1) >= ROW(c.p1))) AS r GROUP BY k1) AS g;
  ELSE
    INSERT INTO "tally"."numeric__counted" (epoch, k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, true)) AS a3, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a4, count(*) FILTER (WHERE x2 IS NOT NULL) AS a5, sum(x2) FILTER (WHERE x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric) AS a6, sum("tally".census(x2, false)) FILTER (WHERE NOT (x2 > '-Infinity'::numeric AND x2 < 'Infinity'::numeric)) AS a7, count(*) FILTER (WHERE x3 IS NOT NULL) AS a8, sum(x3) AS a9, sum(x3::numeric * x3) AS a10 FROM ((SELECT k1, x1, x2, x3 FROM "tally"."numeric__rows" WHERE ROW(p1) >= ROW(c.p1) AND ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  END IF;
  UPDATE "tally"."numeric__chunk" AS o SET snapshot = pg_current_snapshot(), counter = pg_current_xact_id() WHERE o.id = c.id;
  id := c.id;
  size := c.size;
END
$tally$;

-- makes what is kept of what was counted, and drops the changes that were counted; returns the number of groups
CREATE FUNCTION "tally"."numeric__settle"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."numeric__delta" AS d WHERE pg_visible_in_snapshot(d.xact, coalesce((SELECT snapshot FROM "tally"."numeric__chunk" WHERE ROW(p1) <= ROW(d.p1) ORDER BY p1 DESC LIMIT 1), (SELECT snapshot FROM "tally"."numeric__chunk" WHERE p1 IS NULL)));
  WITH gone AS (SELECT * FROM "tally"."numeric__counted"),
    gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::numeric AS a2, sum(a3)::numeric AS a3, sum(a4)::numeric AS a4, sum(a5)::bigint AS a5, sum(a6)::numeric AS a6, sum(a7)::numeric AS a7, sum(a8)::bigint AS a8, sum(a9)::bigint AS a9, sum(a10)::numeric AS a10 FROM (SELECT k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
    met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2, coalesce(s.a3, 0) + coalesce(g.a3, 0) AS a3, coalesce(s.a4, 0) + coalesce(g.a4, 0) AS a4, coalesce(s.a5, 0) + coalesce(g.a5, 0) AS a5, coalesce(s.a6, 0) + coalesce(g.a6, 0) AS a6, coalesce(s.a7, 0) + coalesce(g.a7, 0) AS a7, coalesce(s.a8, 0) + coalesce(g.a8, 0) AS a8, coalesce(s.a9, 0) + coalesce(g.a9, 0) AS a9, coalesce(s.a10, 0) + coalesce(g.a10, 0) AS a10 FROM gathered AS g LEFT JOIN "tally"."numeric__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
    next AS (SELECT * FROM met),
    "state_new" AS (INSERT INTO "tally"."numeric__state" (k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10) SELECT k1, n, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10 FROM next WHERE place IS NULL AND n <> 0),
    "state_changed" AS (UPDATE "tally"."numeric__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2, a3 = f.a3, a4 = f.a4, a5 = f.a5, a6 = f.a6, a7 = f.a7, a8 = f.a8, a9 = f.a9, a10 = f.a10 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
    "state_emptied" AS (DELETE FROM "tally"."numeric__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
    SELECT count(*) FROM next;
  DELETE FROM "tally"."numeric__counted";
  UPDATE "tally"."watermark" SET floor = '0', folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'numeric';
  DELETE FROM "tally"."numeric__chunk";
  SELECT count(*) FROM "tally"."numeric__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."numeric__begin", "tally"."numeric__extend", "tally"."numeric__count", "tally"."numeric__settle" FROM PUBLIC;

-- on INSERT
CREATE TRIGGER "tally_numeric__insert" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."numeric__insert"();

-- on INSERT
CREATE TRIGGER "tally_numeric__insert_row" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."numeric__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_numeric__insert_row";

-- on DELETE
CREATE TRIGGER "tally_numeric__delete" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."numeric__delete"();

-- on DELETE
CREATE TRIGGER "tally_numeric__delete_row" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."numeric__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_numeric__delete_row";

-- on UPDATE
CREATE TRIGGER "tally_numeric__update" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."chat_id", OLD."size", OLD."amount", OLD."price"), ROW(NEW."chat_id", NEW."size", NEW."amount", NEW."price")))
EXECUTE FUNCTION "tally"."numeric__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_numeric__update";

-- on UPDATE
CREATE TRIGGER "tally_numeric__move" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."id"), ROW(NEW."id")) AND NOT record_image_ne(ROW(OLD."chat_id", OLD."size", OLD."amount", OLD."price"), ROW(NEW."chat_id", NEW."size", NEW."amount", NEW."price")))
EXECUTE FUNCTION "tally"."numeric__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_numeric__move";

-- on TRUNCATE
CREATE TRIGGER "tally_numeric__truncate" AFTER TRUNCATE ON app.event FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."numeric__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_numeric__truncate";
