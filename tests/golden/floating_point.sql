-- the declared query: what the kept answer must equal
CREATE VIEW "tally"."floating_point__direct" AS
SELECT chat_id AS "chat_id", "tally"."nearest_double"(trim_scale(sum("tally".shortest(rate))) / nullif(count("tally".shortest(rate)), 0)) AS "mean", "tally"."nearest_double"("tally"."deviation"(coalesce(count("tally".shortest(rate)), 0), sum("tally".shortest(rate)), sum("tally".shortest(rate) * "tally".shortest(rate)), NULL::integer, true)) AS "deviation"
FROM app.event AS "event" GROUP BY chat_id;

-- folded components of each group
CREATE TABLE "tally"."floating_point__state" (
    k1 integer,
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1), 0)) STORED,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric,
    a4 numeric
);

-- signed changes, appended by the writers and consumed by the fold
CREATE TABLE "tally"."floating_point__delta" (
    epoch bigint NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    k1 integer,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric,
    a4 numeric,
    p1 bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, vacuum_truncate = false);

-- finds a group when folding
CREATE INDEX ON "tally"."floating_point__state" (h);

-- finds a group's state when reading
CREATE INDEX ON "tally"."floating_point__state" (k1);

-- finds a group's delta when reading
CREATE INDEX ON "tally"."floating_point__delta" (k1, xact);

-- the table that may call the capture functions
CREATE FUNCTION "tally"."floating_point__source"() RETURNS regclass LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT 'app.event'::regclass; END;

-- group key, arguments and filters of one source row
CREATE FUNCTION "tally"."floating_point__row"(source_row app.event) RETURNS TABLE (k1 integer, x1 numeric) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT chat_id AS k1, ((rate)::text)::numeric AS x1 FROM (SELECT (source_row)."chat_id" AS "chat_id", (source_row)."rate" AS "rate") AS "event";
END;

-- counts what other triggers have put into the table since it was truncated
CREATE FUNCTION "tally"."floating_point__refill"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."floating_point__delta" (epoch, k1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a4 FROM (SELECT chat_id AS k1, ((rate)::text)::numeric AS x1 FROM app.event AS "event") AS r GROUP BY k1) AS g;
END;

-- never called: while it is there, so is all that the triggers need
CREATE FUNCTION "tally"."floating_point__guard"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."floating_point__delta" (epoch, k1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a3, coalesce(sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a4 FROM (SELECT 1 AS w, o.* FROM "tally"."floating_point__row"(NULL::app.event) AS o WHERE "tally"."floating_point__source"() IS NOT NULL) AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0 OR a4 <> 0);
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('floating_point', nextval('"tally"."epoch"'::regclass));
  SELECT "tally"."floating_point__refill"();
END;

-- captures each changed row
CREATE FUNCTION "tally"."floating_point__change"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."floating_point__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."floating_point__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "floating_point": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."floating_point__place"') IS NULL THEN
  INSERT INTO "tally"."floating_point__delta" (epoch, k1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a3, coalesce(sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a4 FROM (SELECT -1 AS w, o.* FROM "tally"."floating_point__row"(OLD) AS o WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.* FROM "tally"."floating_point__row"(NEW) AS o WHERE TG_OP <> 'DELETE') AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0 OR a4 <> 0);
  ELSE
  INSERT INTO "tally"."floating_point__delta" (epoch, k1, p1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, a1, a2, a3, a4
  FROM (SELECT k1, p1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a3, coalesce(sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a4 FROM (SELECT -1 AS w, o.*, q.* FROM "tally"."floating_point__row"(OLD) AS o, "tally"."floating_point__place"(OLD) AS q WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.*, q.* FROM "tally"."floating_point__row"(NEW) AS o, "tally"."floating_point__place"(NEW) AS q WHERE TG_OP <> 'DELETE') AS r GROUP BY k1, p1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0 OR a4 <> 0);
  END IF;
  RETURN NULL;
END
$tally$;

-- captures INSERT
CREATE FUNCTION "tally"."floating_point__insert"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."floating_point__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."floating_point__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "floating_point": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."floating_point__place"') IS NULL THEN
  INSERT INTO "tally"."floating_point__delta" (epoch, k1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a4 FROM (SELECT o.* FROM newtab AS t, "tally"."floating_point__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."floating_point__delta" (epoch, k1, p1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, a1, a2, a3, a4
  FROM (SELECT k1, p1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a4 FROM (SELECT o.*, q.* FROM newtab AS t, "tally"."floating_point__row"(t.*) AS o, "tally"."floating_point__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures DELETE
CREATE FUNCTION "tally"."floating_point__delete"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."floating_point__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."floating_point__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "floating_point": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."floating_point__place"') IS NULL THEN
  INSERT INTO "tally"."floating_point__delta" (epoch, k1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4
  FROM (SELECT k1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, - sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a4 FROM (SELECT o.* FROM oldtab AS t, "tally"."floating_point__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."floating_point__delta" (epoch, k1, p1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, a1, a2, a3, a4
  FROM (SELECT k1, p1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, - sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a4 FROM (SELECT o.*, q.* FROM oldtab AS t, "tally"."floating_point__row"(t.*) AS o, "tally"."floating_point__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures TRUNCATE
CREATE FUNCTION "tally"."floating_point__truncate"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."floating_point__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."floating_point__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "floating_point": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('floating_point', nextval('"tally"."epoch"'::regclass));
  IF pg_relation_size("tally"."floating_point__source"()) > 0 THEN
    PERFORM "tally"."floating_point__refill"();
  END IF;
  RETURN NULL;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."floating_point__source", "tally"."floating_point__row", "tally"."floating_point__guard", "tally"."floating_point__change", "tally"."floating_point__insert", "tally"."floating_point__delete", "tally"."floating_point__truncate", "tally"."floating_point__refill" FROM PUBLIC;

-- groups that their state alone answers
CREATE VIEW "tally"."floating_point__settled" AS
SELECT k1 AS "chat_id", (CASE WHEN a1 > 0 THEN "tally"."nearest_double"("tally".with_specials(trim_scale(a2) / a1, a3)) END)::double precision AS "mean", ("tally"."nearest_double"("tally"."deviation"(coalesce(a1, 0), "tally".with_specials(a2::numeric, a3), a4, NULL::integer, true)))::double precision AS "deviation" FROM "tally"."floating_point__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'floating_point' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."floating_point__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'floating_point'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1);

-- groups that have unfolded deltas: state and deltas added up
CREATE VIEW "tally"."floating_point__changed" AS
SELECT k1 AS "chat_id", (CASE WHEN a1 > 0 THEN "tally"."nearest_double"("tally".with_specials(trim_scale(a2) / a1, a3)) END)::double precision AS "mean", ("tally"."nearest_double"("tally"."deviation"(coalesce(a1, 0), "tally".with_specials(a2::numeric, a3), a4, NULL::integer, true)))::double precision AS "deviation" FROM (
  SELECT k1, n, a1, a2, a3, a4 FROM (
    SELECT k1, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::numeric AS a2, sum(a3)::numeric AS a3, sum(a4)::numeric AS a4 FROM (
    SELECT k1, n, a1, a2, a3, a4 FROM (SELECT * FROM "tally"."floating_point__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'floating_point' AND partition IS NULL) AND s.k1 IS NOT NULL AND EXISTS (SELECT FROM (SELECT * FROM "tally"."floating_point__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'floating_point'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1) UNION ALL SELECT * FROM "tally"."floating_point__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'floating_point' AND partition IS NULL) AND NOT (s.k1 IS NOT NULL)) AS s
    UNION ALL
    SELECT k1, n, a1, a2, a3, a4 FROM (SELECT * FROM "tally"."floating_point__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'floating_point'), '0') AND '18446744073709551615' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'floating_point' AND partition IS NULL), 0) AND pg_backend_pid() <> 0) AS d
    ) AS p GROUP BY k1
  ) AS g WHERE n > 0
) AS r;

-- the kept answer
CREATE VIEW "tally"."floating_point__kept" AS
SELECT "chat_id", "mean", "deviation" FROM "tally"."floating_point__settled"
UNION ALL
SELECT "chat_id", "mean", "deviation" FROM "tally"."floating_point__changed";

-- settled groups in the order of an index, for .top()
CREATE VIEW "tally"."floating_point__front" AS
SELECT k1 AS "chat_id", (CASE WHEN a1 > 0 THEN "tally"."nearest_double"("tally".with_specials(trim_scale(a2) / a1, a3)) END)::double precision AS "mean", ("tally"."nearest_double"("tally"."deviation"(coalesce(a1, 0), "tally".with_specials(a2::numeric, a3), a4, NULL::integer, true)))::double precision AS "deviation" FROM "tally"."floating_point__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'floating_point' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."floating_point__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'floating_point'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1 OFFSET 0) AND (SELECT serving FROM "tally"."aggregate" WHERE name = 'floating_point' AND version = 1) = 'kept' AND to_regprocedure('"tally"."floating_point__guard"()') = '"tally"."floating_point__guard"()'::regprocedure AND pg_backend_pid() <> 0;

-- all other groups, for .top()
CREATE VIEW "tally"."floating_point__rest" AS
SELECT "chat_id", "mean", "deviation" FROM "tally"."floating_point__changed" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'floating_point' AND version = 1) = 'kept' AND to_regprocedure('"tally"."floating_point__guard"()') = '"tally"."floating_point__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "mean", "deviation" FROM "tally"."floating_point__direct" WHERE ((SELECT serving FROM "tally"."aggregate" WHERE name = 'floating_point' AND version = 1) = 'kept' AND to_regprocedure('"tally"."floating_point__guard"()') = '"tally"."floating_point__guard"()'::regprocedure) IS NOT TRUE;

-- what readers use: the half that the switch names
CREATE VIEW "tally"."floating_point" AS
SELECT "chat_id", "mean", "deviation" FROM "tally"."floating_point__settled" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'floating_point' AND version = 1) = 'kept' AND to_regprocedure('"tally"."floating_point__guard"()') = '"tally"."floating_point__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "mean", "deviation" FROM "tally"."floating_point__rest";

-- adds all visible deltas to the state; returns deltas consumed and groups written
CREATE FUNCTION "tally"."floating_point__fold"(OUT deltas bigint, OUT groups bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.floating_point', 0));
  UPDATE "tally"."floating_point__state" SET k1 = k1 WHERE NOT (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'floating_point');
  WITH marker AS (SELECT max(epoch) AS epoch FROM "tally"."reset" WHERE aggregate = 'floating_point' AND partition IS NULL AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'floating_point') = 'kept'),
  void AS (DELETE FROM "tally"."floating_point__delta" WHERE epoch < (SELECT epoch FROM marker) RETURNING *),
  "void0" AS (DELETE FROM "tally"."floating_point__state" WHERE (SELECT epoch FROM marker) IS NOT NULL)
  DELETE FROM "tally"."reset" WHERE aggregate = 'floating_point' AND epoch <= (SELECT epoch FROM marker);
  WITH gone AS (DELETE FROM "tally"."floating_point__delta" WHERE (SELECT phase FROM "tally"."aggregate" WHERE name = 'floating_point') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'floating_point' AND partition IS NULL) RETURNING *),
  floor AS (UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'floating_point' AND ((NOT major = current_setting('server_version_num')::integer / 10000 AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'floating_point') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'floating_point' AND partition IS NULL)) OR EXISTS (SELECT FROM gone))),
  gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::numeric AS a2, sum(a3)::numeric AS a3, sum(a4)::numeric AS a4 FROM (SELECT k1, n, a1, a2, a3, a4 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
  met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2, coalesce(s.a3, 0) + coalesce(g.a3, 0) AS a3, coalesce(s.a4, 0) + coalesce(g.a4, 0) AS a4 FROM gathered AS g LEFT JOIN "tally"."floating_point__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
  next AS (SELECT * FROM met),
  "state_new" AS (INSERT INTO "tally"."floating_point__state" (k1, n, a1, a2, a3, a4) SELECT k1, n, a1, a2, a3, a4 FROM next WHERE place IS NULL AND n <> 0),
  "state_changed" AS (UPDATE "tally"."floating_point__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2, a3 = f.a3, a4 = f.a4 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
  "state_emptied" AS (DELETE FROM "tally"."floating_point__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
  SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM next);
END;

-- computes the state from the source anew; returns groups written. Needs a REPEATABLE READ transaction
CREATE FUNCTION "tally"."floating_point__rebuild"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."floating_point__state";
  DELETE FROM "tally"."floating_point__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'floating_point';
  UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'floating_point' AND true;
  INSERT INTO "tally"."floating_point__state" (k1, n, a1, a2, a3, a4) SELECT k1, count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), 0), coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)), 0), coalesce(sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), 0) FROM (SELECT chat_id AS k1, ((rate)::text)::numeric AS x1 FROM app.event AS "event") AS r GROUP BY k1 HAVING count(*) > 0;
  SELECT count(*) FROM "tally"."floating_point__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."floating_point__fold", "tally"."floating_point__rebuild" FROM PUBLIC;

-- computes groups that are not what the source says anew; returns how many. Needs what rebuild needs
CREATE FUNCTION "tally"."floating_point__repair"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  WITH odd AS MATERIALIZED (SELECT DISTINCT k1, hash_record_extended(ROW(k1), 0) AS h FROM (
    SELECT k1 FROM (SELECT 1 AS half, ("chat_id")::integer AS k1, "mean" AS y1, "deviation" AS y2 FROM "tally"."floating_point__kept" UNION ALL SELECT -1, ("chat_id")::integer AS k1, "mean" AS y1, "deviation" AS y2 FROM "tally"."floating_point__direct") AS b GROUP BY k1, y1, y2 HAVING sum(half) <> 0
    UNION ALL SELECT k1 FROM (SELECT k1, n, a1, a2, a3, a4 FROM "tally"."floating_point__state" UNION ALL SELECT k1, n, a1, a2, a3, a4 FROM "tally"."floating_point__delta" UNION ALL SELECT k1, - count(*), - count(*) FILTER (WHERE x1 IS NOT NULL), - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)), - sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) FROM (SELECT chat_id AS k1, ((rate)::text)::numeric AS x1 FROM app.event AS "event") AS r GROUP BY k1) AS b GROUP BY k1 HAVING coalesce(sum(n), 0) <> 0 OR coalesce(sum(a1), 0) <> 0 OR coalesce(sum(a2), 0) <> 0 OR coalesce(sum(a3), 0) <> 0 OR coalesce(sum(a4), 0) <> 0) AS f),
  "state_gone" AS (DELETE FROM "tally"."floating_point__state" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  "delta_gone" AS (DELETE FROM "tally"."floating_point__delta" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  state_counted AS (INSERT INTO "tally"."floating_point__state" (k1, n, a1, a2, a3, a4) SELECT k1, count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), 0), coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)), 0), coalesce(sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), 0) FROM (SELECT r.* FROM (SELECT chat_id AS k1, ((rate)::text)::numeric AS x1 FROM app.event AS "event") AS r WHERE EXISTS (SELECT FROM odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)))) AS r GROUP BY k1 HAVING count(*) > 0)
  SELECT count(*) FROM odd;
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."floating_point__repair" FROM PUBLIC;

-- where a row stands
CREATE FUNCTION "tally"."floating_point__place"(source_row app.event) RETURNS TABLE (p1 bigint) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT (source_row)."id" AS p1; END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."floating_point__place" FROM PUBLIC;

-- where there are rows
CREATE VIEW "tally"."floating_point__places" AS SELECT t."id" AS p1 FROM app.event AS t;

-- group key, arguments and filters of rows, and where they stand
CREATE VIEW "tally"."floating_point__rows" AS SELECT o.*, t."id" AS p1 FROM app.event AS t, "tally"."floating_point__row"(t.*) AS o;

-- chunks of a backfill; empty otherwise
CREATE TABLE "tally"."floating_point__chunk" (
    id integer PRIMARY KEY,
    p1 bigint,
    u1 bigint,
    size bigint,
    snapshot pg_snapshot,
    counter xid8 NOT NULL
);

-- finds the chunk of a place
CREATE INDEX ON "tally"."floating_point__chunk" (p1);

-- what the chunks of a backfill count to, as deltas; empty otherwise
CREATE TABLE "tally"."floating_point__counted" (LIKE "tally"."floating_point__delta" INCLUDING DEFAULTS);

-- clears what is kept, for a backfill to begin
CREATE FUNCTION "tally"."floating_point__begin"() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."floating_point__chunk";
  DELETE FROM "tally"."floating_point__counted";
  DELETE FROM "tally"."floating_point__state";
  DELETE FROM "tally"."floating_point__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'floating_point';
  SELECT;
END;

-- plans one more chunk of so many rows; false if there are no more rows
CREATE FUNCTION "tally"."floating_point__extend"(bigint) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
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
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "floating_point": a chunk is planned in a READ COMMITTED transaction only.';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tallystick chunks tally.floating_point', 0));
  LOCK TABLE "tally"."floating_point__chunk" IN ROW EXCLUSIVE MODE;
  IF (SELECT phase FROM "tally"."aggregate" WHERE name = 'floating_point') = 'kept' THEN
    RETURN false;
  END IF;
  SELECT p1 INTO final FROM "tally"."floating_point__chunk" WHERE id = 0;
  IF NOT FOUND THEN
    INSERT INTO "tally"."floating_point__chunk" (id, p1, size, counter)
      SELECT 0, t.p1, CASE WHEN t.p1 IS NOT NULL THEN 0 END, pg_current_xact_id()
      FROM (SELECT) AS one LEFT JOIN (SELECT p1 FROM "tally"."floating_point__places" WHERE true ORDER BY p1 DESC LIMIT 1) AS t ON true;
    RETURN true;
  END IF;
  SELECT * INTO last FROM "tally"."floating_point__chunk" WHERE id > 0 ORDER BY id DESC LIMIT 1;
  IF final.p1 IS NULL OR last.id > 0 AND last.size IS NULL THEN
    RETURN false;
  ELSIF last.id IS NULL THEN
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."floating_point__places" WHERE ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  ELSE
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."floating_point__places" WHERE ROW(p1) >= ROW(last.u1) AND ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  END IF;
  IF NOT FOUND THEN
    ahead := final;
    size := NULL;
  END IF;
  INSERT INTO "tally"."floating_point__chunk" (id, p1, u1, size, counter)
    VALUES (coalesce(last.id, 0) + 1, last.u1, ahead.p1, size, pg_current_xact_id());
  RETURN true;
END
$tally$;

-- counts a chunk that nobody counts; returns its number and size, or NULL if there is none
CREATE FUNCTION "tally"."floating_point__count"(OUT id integer, OUT size bigint) RETURNS record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
SET plan_cache_mode = force_custom_plan
AS $tally$
#variable_conflict use_column
DECLARE
  c record;
BEGIN
  IF current_setting('transaction_isolation') = 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "floating_point": a chunk is counted in a REPEATABLE READ transaction only.';
  END IF;
  SELECT * INTO c FROM "tally"."floating_point__chunk" AS o WHERE o.snapshot IS NULL AND NOT (SELECT phase FROM "tally"."aggregate" WHERE name = 'floating_point') = 'kept'
    ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF c.p1 IS NULL AND c.u1 IS NULL THEN
    INSERT INTO "tally"."floating_point__counted" (epoch, k1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a4 FROM ((SELECT k1, x1 FROM "tally"."floating_point__rows" WHERE true)) AS r GROUP BY k1) AS g;
  ELSIF c.p1 IS NULL THEN
    INSERT INTO "tally"."floating_point__counted" (epoch, k1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a4 FROM ((SELECT k1, x1 FROM "tally"."floating_point__rows" WHERE ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  ELSIF c.u1 IS NULL THEN
    INSERT INTO "tally"."floating_point__counted" (epoch, k1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a4 FROM ((SELECT k1, x1 FROM "tally"."floating_point__rows" WHERE ROW(p1) >= ROW(c.p1))) AS r GROUP BY k1) AS g;
  ELSE
    INSERT INTO "tally"."floating_point__counted" (epoch, k1, n, a1, a2, a3, a4)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3, a4
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3, sum(x1::numeric * x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a4 FROM ((SELECT k1, x1 FROM "tally"."floating_point__rows" WHERE ROW(p1) >= ROW(c.p1) AND ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  END IF;
  UPDATE "tally"."floating_point__chunk" AS o SET snapshot = pg_current_snapshot(), counter = pg_current_xact_id() WHERE o.id = c.id;
  id := c.id;
  size := c.size;
END
$tally$;

-- makes what is kept of what was counted, and drops the changes that were counted; returns the number of groups
CREATE FUNCTION "tally"."floating_point__settle"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."floating_point__delta" AS d WHERE pg_visible_in_snapshot(d.xact, coalesce((SELECT snapshot FROM "tally"."floating_point__chunk" WHERE ROW(p1) <= ROW(d.p1) ORDER BY p1 DESC LIMIT 1), (SELECT snapshot FROM "tally"."floating_point__chunk" WHERE p1 IS NULL)));
  WITH gone AS (SELECT * FROM "tally"."floating_point__counted"),
    gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::numeric AS a2, sum(a3)::numeric AS a3, sum(a4)::numeric AS a4 FROM (SELECT k1, n, a1, a2, a3, a4 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
    met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2, coalesce(s.a3, 0) + coalesce(g.a3, 0) AS a3, coalesce(s.a4, 0) + coalesce(g.a4, 0) AS a4 FROM gathered AS g LEFT JOIN "tally"."floating_point__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
    next AS (SELECT * FROM met),
    "state_new" AS (INSERT INTO "tally"."floating_point__state" (k1, n, a1, a2, a3, a4) SELECT k1, n, a1, a2, a3, a4 FROM next WHERE place IS NULL AND n <> 0),
    "state_changed" AS (UPDATE "tally"."floating_point__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2, a3 = f.a3, a4 = f.a4 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
    "state_emptied" AS (DELETE FROM "tally"."floating_point__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
    SELECT count(*) FROM next;
  DELETE FROM "tally"."floating_point__counted";
  UPDATE "tally"."watermark" SET floor = '0', folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'floating_point';
  DELETE FROM "tally"."floating_point__chunk";
  SELECT count(*) FROM "tally"."floating_point__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."floating_point__begin", "tally"."floating_point__extend", "tally"."floating_point__count", "tally"."floating_point__settle" FROM PUBLIC;

-- on INSERT
CREATE TRIGGER "tally_floating_point__insert" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."floating_point__insert"();

-- on INSERT
CREATE TRIGGER "tally_floating_point__insert_row" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."floating_point__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_floating_point__insert_row";

-- on DELETE
CREATE TRIGGER "tally_floating_point__delete" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."floating_point__delete"();

-- on DELETE
CREATE TRIGGER "tally_floating_point__delete_row" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."floating_point__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_floating_point__delete_row";

-- on UPDATE
CREATE TRIGGER "tally_floating_point__update" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."chat_id", OLD."rate"), ROW(NEW."chat_id", NEW."rate")))
EXECUTE FUNCTION "tally"."floating_point__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_floating_point__update";

-- on UPDATE
CREATE TRIGGER "tally_floating_point__move" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."id"), ROW(NEW."id")) AND NOT record_image_ne(ROW(OLD."chat_id", OLD."rate"), ROW(NEW."chat_id", NEW."rate")))
EXECUTE FUNCTION "tally"."floating_point__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_floating_point__move";

-- on TRUNCATE
CREATE TRIGGER "tally_floating_point__truncate" AFTER TRUNCATE ON app.event FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."floating_point__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_floating_point__truncate";
