-- the declared query: what the kept answer must equal
CREATE VIEW "tally"."extremes__direct" AS
SELECT chat_id AS "chat_id", min(at) AS "first", max(size) FILTER (WHERE ok) AS "largest"
FROM app.event AS "event" GROUP BY chat_id;

-- folded components of each group
CREATE TABLE "tally"."extremes__state" (
    k1 integer,
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1), 0)) STORED,
    n bigint NOT NULL,
    m1 timestamp with time zone,
    m2 integer
);

-- signed changes, appended by the writers and consumed by the fold
CREATE TABLE "tally"."extremes__delta" (
    epoch bigint NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    k1 integer,
    n bigint NOT NULL,
    i1 timestamp with time zone,
    d1 timestamp with time zone,
    i2 integer,
    d2 integer,
    p1 bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, vacuum_truncate = false);

-- finds a group when folding
CREATE INDEX ON "tally"."extremes__state" (h);

-- finds a group's state when reading
CREATE INDEX ON "tally"."extremes__state" (k1);

-- finds a group's delta when reading
CREATE INDEX ON "tally"."extremes__delta" (k1, xact);

-- orders the groups by a measure
CREATE INDEX ON "tally"."extremes__state" (((m1)::timestamp with time zone) DESC NULLS LAST, k1);

-- orders the groups by a measure
CREATE INDEX ON "tally"."extremes__state" (((m2)::integer) DESC NULLS LAST, k1);

-- the table that may call the capture functions
CREATE FUNCTION "tally"."extremes__source"() RETURNS regclass LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT 'app.event'::regclass; END;

-- group key, arguments and filters of one source row
CREATE FUNCTION "tally"."extremes__row"(source_row app.event) RETURNS TABLE (k1 integer, x1 timestamp with time zone, x2 integer, f1 boolean) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT chat_id AS k1, (at)::timestamp with time zone AS x1, (size)::integer AS x2, ok AS f1 FROM (SELECT (source_row)."chat_id" AS "chat_id", (source_row)."at" AS "at", (source_row)."size" AS "size", (source_row)."ok" AS "ok") AS "event";
END;

-- counts what other triggers have put into the table since it was truncated
CREATE FUNCTION "tally"."extremes__refill"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."extremes__delta" (epoch, k1, n, i1, i2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, i1, i2
  FROM (SELECT k1, count(*) AS n, min(x1) AS i1, max(x2) FILTER (WHERE f1) AS i2 FROM (SELECT chat_id AS k1, (at)::timestamp with time zone AS x1, (size)::integer AS x2, ok AS f1 FROM app.event AS "event") AS r GROUP BY k1) AS g;
END;

-- never called: while it is there, so is all that the triggers need
CREATE FUNCTION "tally"."extremes__guard"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."extremes__delta" (epoch, k1, n, i1, d1, i2, d2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, CASE WHEN NOT record_eq(ROW(i1), ROW(d1)) THEN i1 END, CASE WHEN NOT record_eq(ROW(d1), ROW(i1)) THEN d1 END, CASE WHEN NOT record_eq(ROW(i2), ROW(d2)) THEN i2 END, CASE WHEN NOT record_eq(ROW(d2), ROW(i2)) THEN d2 END
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, min(x1) FILTER (WHERE w > 0) AS i1, min(x1) FILTER (WHERE w < 0) AS d1, max(x2) FILTER (WHERE f1 AND w > 0) AS i2, max(x2) FILTER (WHERE f1 AND w < 0) AS d2 FROM (SELECT 1 AS w, o.* FROM "tally"."extremes__row"(NULL::app.event) AS o WHERE "tally"."extremes__source"() IS NOT NULL) AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR NOT record_eq(ROW(i1), ROW(d1)) OR NOT record_eq(ROW(i2), ROW(d2)));
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('extremes', nextval('"tally"."epoch"'::regclass));
  SELECT "tally"."extremes__refill"();
END;

-- captures each changed row
CREATE FUNCTION "tally"."extremes__change"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."extremes__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."extremes__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "extremes": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."extremes__place"') IS NULL THEN
  INSERT INTO "tally"."extremes__delta" (epoch, k1, n, i1, d1, i2, d2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, CASE WHEN NOT record_eq(ROW(i1), ROW(d1)) THEN i1 END, CASE WHEN NOT record_eq(ROW(d1), ROW(i1)) THEN d1 END, CASE WHEN NOT record_eq(ROW(i2), ROW(d2)) THEN i2 END, CASE WHEN NOT record_eq(ROW(d2), ROW(i2)) THEN d2 END
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, min(x1) FILTER (WHERE w > 0) AS i1, min(x1) FILTER (WHERE w < 0) AS d1, max(x2) FILTER (WHERE f1 AND w > 0) AS i2, max(x2) FILTER (WHERE f1 AND w < 0) AS d2 FROM (SELECT -1 AS w, o.* FROM "tally"."extremes__row"(OLD) AS o WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.* FROM "tally"."extremes__row"(NEW) AS o WHERE TG_OP <> 'DELETE') AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR NOT record_eq(ROW(i1), ROW(d1)) OR NOT record_eq(ROW(i2), ROW(d2)));
  ELSE
  INSERT INTO "tally"."extremes__delta" (epoch, k1, p1, n, i1, d1, i2, d2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, CASE WHEN NOT record_eq(ROW(i1), ROW(d1)) THEN i1 END, CASE WHEN NOT record_eq(ROW(d1), ROW(i1)) THEN d1 END, CASE WHEN NOT record_eq(ROW(i2), ROW(d2)) THEN i2 END, CASE WHEN NOT record_eq(ROW(d2), ROW(i2)) THEN d2 END
  FROM (SELECT k1, p1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, min(x1) FILTER (WHERE w > 0) AS i1, min(x1) FILTER (WHERE w < 0) AS d1, max(x2) FILTER (WHERE f1 AND w > 0) AS i2, max(x2) FILTER (WHERE f1 AND w < 0) AS d2 FROM (SELECT -1 AS w, o.*, q.* FROM "tally"."extremes__row"(OLD) AS o, "tally"."extremes__place"(OLD) AS q WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.*, q.* FROM "tally"."extremes__row"(NEW) AS o, "tally"."extremes__place"(NEW) AS q WHERE TG_OP <> 'DELETE') AS r GROUP BY k1, p1) AS g
  WHERE (n <> 0 OR NOT record_eq(ROW(i1), ROW(d1)) OR NOT record_eq(ROW(i2), ROW(d2)));
  END IF;
  RETURN NULL;
END
$tally$;

-- captures INSERT
CREATE FUNCTION "tally"."extremes__insert"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."extremes__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."extremes__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "extremes": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."extremes__place"') IS NULL THEN
  INSERT INTO "tally"."extremes__delta" (epoch, k1, n, i1, i2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, i1, i2
  FROM (SELECT k1, count(*) AS n, min(x1) AS i1, max(x2) FILTER (WHERE f1) AS i2 FROM (SELECT o.* FROM newtab AS t, "tally"."extremes__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."extremes__delta" (epoch, k1, p1, n, i1, i2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, i1, i2
  FROM (SELECT k1, p1, count(*) AS n, min(x1) AS i1, max(x2) FILTER (WHERE f1) AS i2 FROM (SELECT o.*, q.* FROM newtab AS t, "tally"."extremes__row"(t.*) AS o, "tally"."extremes__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures DELETE
CREATE FUNCTION "tally"."extremes__delete"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."extremes__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."extremes__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "extremes": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."extremes__place"') IS NULL THEN
  INSERT INTO "tally"."extremes__delta" (epoch, k1, n, d1, d2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, d1, d2
  FROM (SELECT k1, - count(*) AS n, min(x1) AS d1, max(x2) FILTER (WHERE f1) AS d2 FROM (SELECT o.* FROM oldtab AS t, "tally"."extremes__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."extremes__delta" (epoch, k1, p1, n, d1, d2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, d1, d2
  FROM (SELECT k1, p1, - count(*) AS n, min(x1) AS d1, max(x2) FILTER (WHERE f1) AS d2 FROM (SELECT o.*, q.* FROM oldtab AS t, "tally"."extremes__row"(t.*) AS o, "tally"."extremes__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures TRUNCATE
CREATE FUNCTION "tally"."extremes__truncate"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."extremes__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."extremes__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "extremes": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('extremes', nextval('"tally"."epoch"'::regclass));
  IF pg_relation_size("tally"."extremes__source"()) > 0 THEN
    PERFORM "tally"."extremes__refill"();
  END IF;
  RETURN NULL;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."extremes__source", "tally"."extremes__row", "tally"."extremes__guard", "tally"."extremes__change", "tally"."extremes__insert", "tally"."extremes__delete", "tally"."extremes__truncate", "tally"."extremes__refill" FROM PUBLIC;

-- groups that their state alone answers
CREATE VIEW "tally"."extremes__settled" AS
SELECT k1 AS "chat_id", (m1)::timestamp with time zone AS "first", (m2)::integer AS "largest" FROM "tally"."extremes__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'extremes' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."extremes__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'extremes'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1);

-- groups that have unfolded deltas: state and deltas added up
CREATE VIEW "tally"."extremes__changed" AS
SELECT k1 AS "chat_id", (m1)::timestamp with time zone AS "first", (m2)::integer AS "largest" FROM (
  SELECT k1, n, CASE WHEN (d1 IS NULL OR (i1 IS NOT NULL AND record_lt(ROW(i1), ROW(d1)))) THEN i1 ELSE (SELECT min(x1) FROM (SELECT chat_id AS k1, (at)::timestamp with time zone AS x1, (size)::integer AS x2, ok AS f1 FROM app.event AS "event") AS s WHERE (s.k1 OPERATOR("pg_catalog".=) g.k1 OR (s.k1 IS NULL AND g.k1 IS NULL))) END AS m1, CASE WHEN (d2 IS NULL OR (i2 IS NOT NULL AND record_gt(ROW(i2), ROW(d2)))) THEN i2 ELSE (SELECT max(x2) FILTER (WHERE f1) FROM (SELECT chat_id AS k1, (at)::timestamp with time zone AS x1, (size)::integer AS x2, ok AS f1 FROM app.event AS "event") AS s WHERE (s.k1 OPERATOR("pg_catalog".=) g.k1 OR (s.k1 IS NULL AND g.k1 IS NULL))) END AS m2 FROM (
    SELECT k1, sum(n)::bigint AS n, min(i1) AS i1, min(d1) AS d1, max(i2) AS i2, max(d2) AS d2 FROM (
    SELECT k1, n, m1 AS i1, NULL::timestamp with time zone AS d1, m2 AS i2, NULL::integer AS d2 FROM (SELECT * FROM "tally"."extremes__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'extremes' AND partition IS NULL) AND s.k1 IS NOT NULL AND EXISTS (SELECT FROM (SELECT * FROM "tally"."extremes__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'extremes'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1) UNION ALL SELECT * FROM "tally"."extremes__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'extremes' AND partition IS NULL) AND NOT (s.k1 IS NOT NULL)) AS s
    UNION ALL
    SELECT k1, n, i1, d1, i2, d2 FROM (SELECT * FROM "tally"."extremes__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'extremes'), '0') AND '18446744073709551615' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'extremes' AND partition IS NULL), 0) AND pg_backend_pid() <> 0) AS d
    ) AS p GROUP BY k1
  ) AS g WHERE n > 0
) AS r;

-- the kept answer
CREATE VIEW "tally"."extremes__kept" AS
SELECT "chat_id", "first", "largest" FROM "tally"."extremes__settled"
UNION ALL
SELECT "chat_id", "first", "largest" FROM "tally"."extremes__changed";

-- settled groups in the order of an index, for .top()
CREATE VIEW "tally"."extremes__front" AS
SELECT k1 AS "chat_id", (m1)::timestamp with time zone AS "first", (m2)::integer AS "largest" FROM "tally"."extremes__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'extremes' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."extremes__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'extremes'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1 OFFSET 0) AND (SELECT serving FROM "tally"."aggregate" WHERE name = 'extremes' AND version = 1) = 'kept' AND to_regprocedure('"tally"."extremes__guard"()') = '"tally"."extremes__guard"()'::regprocedure AND pg_backend_pid() <> 0;

-- all other groups, for .top()
CREATE VIEW "tally"."extremes__rest" AS
SELECT "chat_id", "first", "largest" FROM "tally"."extremes__changed" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'extremes' AND version = 1) = 'kept' AND to_regprocedure('"tally"."extremes__guard"()') = '"tally"."extremes__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "first", "largest" FROM "tally"."extremes__direct" WHERE ((SELECT serving FROM "tally"."aggregate" WHERE name = 'extremes' AND version = 1) = 'kept' AND to_regprocedure('"tally"."extremes__guard"()') = '"tally"."extremes__guard"()'::regprocedure) IS NOT TRUE;

-- what readers use: the half that the switch names
CREATE VIEW "tally"."extremes" AS
SELECT "chat_id", "first", "largest" FROM "tally"."extremes__settled" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'extremes' AND version = 1) = 'kept' AND to_regprocedure('"tally"."extremes__guard"()') = '"tally"."extremes__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "first", "largest" FROM "tally"."extremes__rest";

-- adds all visible deltas to the state; returns deltas consumed and groups written
CREATE FUNCTION "tally"."extremes__fold"(OUT deltas bigint, OUT groups bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.extremes', 0));
  UPDATE "tally"."extremes__state" SET k1 = k1 WHERE NOT (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'extremes');
  WITH marker AS (SELECT max(epoch) AS epoch FROM "tally"."reset" WHERE aggregate = 'extremes' AND partition IS NULL AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'extremes') = 'kept'),
  void AS (DELETE FROM "tally"."extremes__delta" WHERE epoch < (SELECT epoch FROM marker) RETURNING *),
  "void0" AS (DELETE FROM "tally"."extremes__state" WHERE (SELECT epoch FROM marker) IS NOT NULL)
  DELETE FROM "tally"."reset" WHERE aggregate = 'extremes' AND epoch <= (SELECT epoch FROM marker);
  WITH gone AS (DELETE FROM "tally"."extremes__delta" WHERE (SELECT phase FROM "tally"."aggregate" WHERE name = 'extremes') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'extremes' AND partition IS NULL) RETURNING *),
  floor AS (UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'extremes' AND ((NOT major = current_setting('server_version_num')::integer / 10000 AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'extremes') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'extremes' AND partition IS NULL)) OR EXISTS (SELECT FROM gone))),
  gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, min(i1) AS i1, min(d1) AS d1, max(i2) AS i2, max(d2) AS d2 FROM (SELECT k1, n, i1, d1, i2, d2 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
  met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, least(s.m1, g.i1) AS i1, g.d1, greatest(s.m2, g.i2) AS i2, g.d2 FROM gathered AS g LEFT JOIN "tally"."extremes__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
  open AS (SELECT h, k1 FROM met WHERE n <> 0 AND NOT ((d1 IS NULL OR (i1 IS NOT NULL AND record_lt(ROW(i1), ROW(d1)))) AND (d2 IS NULL OR (i2 IS NOT NULL AND record_gt(ROW(i2), ROW(d2)))))),
  again AS (SELECT o.h, o.k1, min(x1) AS m1, max(x2) FILTER (WHERE f1) AS m2 FROM open AS o JOIN (SELECT chat_id AS k1, (at)::timestamp with time zone AS x1, (size)::integer AS x2, ok AS f1 FROM app.event AS "event") AS r ON r.k1 OPERATOR("pg_catalog".=) o.k1 WHERE (o.k1 IS NOT NULL) GROUP BY o.h, o.k1 UNION ALL SELECT o.h, o.k1, min(x1) AS m1, max(x2) FILTER (WHERE f1) AS m2 FROM open AS o JOIN (SELECT chat_id AS k1, (at)::timestamp with time zone AS x1, (size)::integer AS x2, ok AS f1 FROM app.event AS "event") AS r ON hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)) WHERE NOT (o.k1 IS NOT NULL) GROUP BY o.h, o.k1),
  next AS (SELECT met.*, CASE WHEN (d1 IS NULL OR (i1 IS NOT NULL AND record_lt(ROW(i1), ROW(d1)))) AND (d2 IS NULL OR (i2 IS NOT NULL AND record_gt(ROW(i2), ROW(d2)))) THEN i1 ELSE a.m1 END AS m1, CASE WHEN (d1 IS NULL OR (i1 IS NOT NULL AND record_lt(ROW(i1), ROW(d1)))) AND (d2 IS NULL OR (i2 IS NOT NULL AND record_gt(ROW(i2), ROW(d2)))) THEN i2 ELSE a.m2 END AS m2 FROM met LEFT JOIN again AS a ON a.h = met.h AND record_eq(ROW(a.k1), ROW(met.k1))),
  "state_new" AS (INSERT INTO "tally"."extremes__state" (k1, n, m1, m2) SELECT k1, n, m1, m2 FROM next WHERE place IS NULL AND n <> 0),
  "state_changed" AS (UPDATE "tally"."extremes__state" AS s SET n = f.n, m1 = f.m1, m2 = f.m2 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
  "state_emptied" AS (DELETE FROM "tally"."extremes__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
  SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM next);
END;

-- computes the state from the source anew; returns groups written. Needs a REPEATABLE READ transaction
CREATE FUNCTION "tally"."extremes__rebuild"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."extremes__state";
  DELETE FROM "tally"."extremes__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'extremes';
  UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'extremes' AND true;
  INSERT INTO "tally"."extremes__state" (k1, n, m1, m2) SELECT k1, count(*), min(x1), max(x2) FILTER (WHERE f1) FROM (SELECT chat_id AS k1, (at)::timestamp with time zone AS x1, (size)::integer AS x2, ok AS f1 FROM app.event AS "event") AS r GROUP BY k1 HAVING count(*) > 0;
  SELECT count(*) FROM "tally"."extremes__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."extremes__fold", "tally"."extremes__rebuild" FROM PUBLIC;

-- computes groups that are not what the source says anew; returns how many. Needs what rebuild needs
CREATE FUNCTION "tally"."extremes__repair"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  WITH odd AS MATERIALIZED (SELECT DISTINCT k1, hash_record_extended(ROW(k1), 0) AS h FROM (
    SELECT k1 FROM (SELECT 1 AS half, ("chat_id")::integer AS k1, "first" AS y1, "largest" AS y2 FROM "tally"."extremes__kept" UNION ALL SELECT -1, ("chat_id")::integer AS k1, "first" AS y1, "largest" AS y2 FROM "tally"."extremes__direct") AS b GROUP BY k1, y1, y2 HAVING sum(half) <> 0
    UNION ALL SELECT k1 FROM (SELECT k1, n FROM "tally"."extremes__state" UNION ALL SELECT k1, n FROM "tally"."extremes__delta" UNION ALL SELECT k1, - count(*) FROM (SELECT chat_id AS k1, (at)::timestamp with time zone AS x1, (size)::integer AS x2, ok AS f1 FROM app.event AS "event") AS r GROUP BY k1) AS b GROUP BY k1 HAVING coalesce(sum(n), 0) <> 0) AS f),
  "state_gone" AS (DELETE FROM "tally"."extremes__state" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  "delta_gone" AS (DELETE FROM "tally"."extremes__delta" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  state_counted AS (INSERT INTO "tally"."extremes__state" (k1, n, m1, m2) SELECT k1, count(*), min(x1), max(x2) FILTER (WHERE f1) FROM (SELECT r.* FROM (SELECT chat_id AS k1, (at)::timestamp with time zone AS x1, (size)::integer AS x2, ok AS f1 FROM app.event AS "event") AS r WHERE EXISTS (SELECT FROM odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)))) AS r GROUP BY k1 HAVING count(*) > 0)
  SELECT count(*) FROM odd;
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."extremes__repair" FROM PUBLIC;

-- where a row stands
CREATE FUNCTION "tally"."extremes__place"(source_row app.event) RETURNS TABLE (p1 bigint) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT (source_row)."id" AS p1; END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."extremes__place" FROM PUBLIC;

-- where there are rows
CREATE VIEW "tally"."extremes__places" AS SELECT t."id" AS p1 FROM app.event AS t;

-- group key, arguments and filters of rows, and where they stand
CREATE VIEW "tally"."extremes__rows" AS SELECT o.*, t."id" AS p1 FROM app.event AS t, "tally"."extremes__row"(t.*) AS o;

-- chunks of a backfill; empty otherwise
CREATE TABLE "tally"."extremes__chunk" (
    id integer PRIMARY KEY,
    p1 bigint,
    u1 bigint,
    size bigint,
    snapshot pg_snapshot,
    counter xid8 NOT NULL
);

-- finds the chunk of a place
CREATE INDEX ON "tally"."extremes__chunk" (p1);

-- what the chunks of a backfill count to, as deltas; empty otherwise
CREATE TABLE "tally"."extremes__counted" (LIKE "tally"."extremes__delta" INCLUDING DEFAULTS);

-- clears what is kept, for a backfill to begin
CREATE FUNCTION "tally"."extremes__begin"() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."extremes__chunk";
  DELETE FROM "tally"."extremes__counted";
  DELETE FROM "tally"."extremes__state";
  DELETE FROM "tally"."extremes__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'extremes';
  SELECT;
END;

-- plans one more chunk of so many rows; false if there are no more rows
CREATE FUNCTION "tally"."extremes__extend"(bigint) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
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
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "extremes": a chunk is planned in a READ COMMITTED transaction only.';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tallystick chunks tally.extremes', 0));
  LOCK TABLE "tally"."extremes__chunk" IN ROW EXCLUSIVE MODE;
  IF (SELECT phase FROM "tally"."aggregate" WHERE name = 'extremes') = 'kept' THEN
    RETURN false;
  END IF;
  SELECT p1 INTO final FROM "tally"."extremes__chunk" WHERE id = 0;
  IF NOT FOUND THEN
    INSERT INTO "tally"."extremes__chunk" (id, p1, size, counter)
      SELECT 0, t.p1, CASE WHEN t.p1 IS NOT NULL THEN 0 END, pg_current_xact_id()
      FROM (SELECT) AS one LEFT JOIN (SELECT p1 FROM "tally"."extremes__places" WHERE true ORDER BY p1 DESC LIMIT 1) AS t ON true;
    RETURN true;
  END IF;
  SELECT * INTO last FROM "tally"."extremes__chunk" WHERE id > 0 ORDER BY id DESC LIMIT 1;
  IF final.p1 IS NULL OR last.id > 0 AND last.size IS NULL THEN
    RETURN false;
  ELSIF last.id IS NULL THEN
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."extremes__places" WHERE ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  ELSE
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."extremes__places" WHERE ROW(p1) >= ROW(last.u1) AND ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  END IF;
  IF NOT FOUND THEN
    ahead := final;
    size := NULL;
  END IF;
  INSERT INTO "tally"."extremes__chunk" (id, p1, u1, size, counter)
    VALUES (coalesce(last.id, 0) + 1, last.u1, ahead.p1, size, pg_current_xact_id());
  RETURN true;
END
$tally$;

-- counts a chunk that nobody counts; returns its number and size, or NULL if there is none
CREATE FUNCTION "tally"."extremes__count"(OUT id integer, OUT size bigint) RETURNS record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
SET plan_cache_mode = force_custom_plan
AS $tally$
#variable_conflict use_column
DECLARE
  c record;
BEGIN
  IF current_setting('transaction_isolation') = 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "extremes": a chunk is counted in a REPEATABLE READ transaction only.';
  END IF;
  SELECT * INTO c FROM "tally"."extremes__chunk" AS o WHERE o.snapshot IS NULL AND NOT (SELECT phase FROM "tally"."aggregate" WHERE name = 'extremes') = 'kept'
    ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF c.p1 IS NULL AND c.u1 IS NULL THEN
    INSERT INTO "tally"."extremes__counted" (epoch, k1, n, i1, i2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, i1, i2
  FROM (SELECT k1, count(*) AS n, min(x1) AS i1, max(x2) FILTER (WHERE f1) AS i2 FROM ((SELECT k1, x1, x2, f1 FROM "tally"."extremes__rows" WHERE true)) AS r GROUP BY k1) AS g;
  ELSIF c.p1 IS NULL THEN
    INSERT INTO "tally"."extremes__counted" (epoch, k1, n, i1, i2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, i1, i2
  FROM (SELECT k1, count(*) AS n, min(x1) AS i1, max(x2) FILTER (WHERE f1) AS i2 FROM ((SELECT k1, x1, x2, f1 FROM "tally"."extremes__rows" WHERE ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  ELSIF c.u1 IS NULL THEN
    INSERT INTO "tally"."extremes__counted" (epoch, k1, n, i1, i2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, i1, i2
  FROM (SELECT k1, count(*) AS n, min(x1) AS i1, max(x2) FILTER (WHERE f1) AS i2 FROM ((SELECT k1, x1, x2, f1 FROM "tally"."extremes__rows" WHERE ROW(p1) >= ROW(c.p1))) AS r GROUP BY k1) AS g;
  ELSE
    INSERT INTO "tally"."extremes__counted" (epoch, k1, n, i1, i2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, i1, i2
  FROM (SELECT k1, count(*) AS n, min(x1) AS i1, max(x2) FILTER (WHERE f1) AS i2 FROM ((SELECT k1, x1, x2, f1 FROM "tally"."extremes__rows" WHERE ROW(p1) >= ROW(c.p1) AND ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  END IF;
  UPDATE "tally"."extremes__chunk" AS o SET snapshot = pg_current_snapshot(), counter = pg_current_xact_id() WHERE o.id = c.id;
  id := c.id;
  size := c.size;
END
$tally$;

-- makes what is kept of what was counted, and drops the changes that were counted; returns the number of groups
CREATE FUNCTION "tally"."extremes__settle"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."extremes__delta" AS d WHERE pg_visible_in_snapshot(d.xact, coalesce((SELECT snapshot FROM "tally"."extremes__chunk" WHERE ROW(p1) <= ROW(d.p1) ORDER BY p1 DESC LIMIT 1), (SELECT snapshot FROM "tally"."extremes__chunk" WHERE p1 IS NULL)));
  WITH gone AS (SELECT * FROM "tally"."extremes__counted"),
    gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, min(i1) AS i1, min(d1) AS d1, max(i2) AS i2, max(d2) AS d2 FROM (SELECT k1, n, i1, d1, i2, d2 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
    met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, least(s.m1, g.i1) AS i1, g.d1, greatest(s.m2, g.i2) AS i2, g.d2 FROM gathered AS g LEFT JOIN "tally"."extremes__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
    next AS (SELECT *, i1 AS m1, i2 AS m2 FROM met),
    "state_new" AS (INSERT INTO "tally"."extremes__state" (k1, n, m1, m2) SELECT k1, n, m1, m2 FROM next WHERE place IS NULL AND n <> 0),
    "state_changed" AS (UPDATE "tally"."extremes__state" AS s SET n = f.n, m1 = f.m1, m2 = f.m2 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
    "state_emptied" AS (DELETE FROM "tally"."extremes__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
    SELECT count(*) FROM next;
  DELETE FROM "tally"."extremes__counted";
  UPDATE "tally"."watermark" SET floor = '0', folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'extremes';
  DELETE FROM "tally"."extremes__chunk";
  SELECT count(*) FROM "tally"."extremes__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."extremes__begin", "tally"."extremes__extend", "tally"."extremes__count", "tally"."extremes__settle" FROM PUBLIC;

-- on INSERT
CREATE TRIGGER "tally_extremes__insert" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."extremes__insert"();

-- on INSERT
CREATE TRIGGER "tally_extremes__insert_row" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."extremes__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_extremes__insert_row";

-- on DELETE
CREATE TRIGGER "tally_extremes__delete" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."extremes__delete"();

-- on DELETE
CREATE TRIGGER "tally_extremes__delete_row" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."extremes__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_extremes__delete_row";

-- on UPDATE
CREATE TRIGGER "tally_extremes__update" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."chat_id", OLD."at", OLD."size", OLD."ok"), ROW(NEW."chat_id", NEW."at", NEW."size", NEW."ok")))
EXECUTE FUNCTION "tally"."extremes__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_extremes__update";

-- on UPDATE
CREATE TRIGGER "tally_extremes__move" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."id"), ROW(NEW."id")) AND NOT record_image_ne(ROW(OLD."chat_id", OLD."at", OLD."size", OLD."ok"), ROW(NEW."chat_id", NEW."at", NEW."size", NEW."ok")))
EXECUTE FUNCTION "tally"."extremes__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_extremes__move";

-- on TRUNCATE
CREATE TRIGGER "tally_extremes__truncate" AFTER TRUNCATE ON app.event FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."extremes__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_extremes__truncate";
