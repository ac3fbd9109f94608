-- the declared query: what the kept answer must equal
CREATE VIEW "tally"."mirrored__direct" AS
SELECT chat_id AS "chat_id", sum(amount) AS "size"
FROM app.event AS "event" GROUP BY chat_id;

-- folded components of each group
CREATE TABLE "tally"."mirrored__state" (
    k1 integer,
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1), 0)) STORED,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric
);

-- signed changes, appended by the writers and consumed by the fold
CREATE TABLE "tally"."mirrored__delta" (
    epoch bigint NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    k1 integer,
    n bigint NOT NULL,
    a1 bigint,
    a2 numeric,
    a3 numeric,
    p1 bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, vacuum_truncate = false);

-- finds a group when folding
CREATE INDEX ON "tally"."mirrored__state" (h);

-- keys of groups whose copies are out of date
CREATE TABLE "tally"."mirrored__mirror" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, k1 integer);

-- finds a group's state when reading
CREATE INDEX ON "tally"."mirrored__state" (k1);

-- finds a group's delta when reading
CREATE INDEX ON "tally"."mirrored__delta" (k1, xact);

-- the table that may call the capture functions
CREATE FUNCTION "tally"."mirrored__source"() RETURNS regclass LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT 'app.event'::regclass; END;

-- group key, arguments and filters of one source row
CREATE FUNCTION "tally"."mirrored__row"(source_row app.event) RETURNS TABLE (k1 integer, x1 numeric) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT chat_id AS k1, (amount)::numeric AS x1 FROM (SELECT (source_row)."chat_id" AS "chat_id", (source_row)."amount" AS "amount") AS "event";
END;

-- counts what other triggers have put into the table since it was truncated
CREATE FUNCTION "tally"."mirrored__refill"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."mirrored__delta" (epoch, k1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3 FROM (SELECT chat_id AS k1, (amount)::numeric AS x1 FROM app.event AS "event") AS r GROUP BY k1) AS g;
END;

-- never called: while it is there, so is all that the triggers need
CREATE FUNCTION "tally"."mirrored__guard"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."mirrored__delta" (epoch, k1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a3 FROM (SELECT 1 AS w, o.* FROM "tally"."mirrored__row"(NULL::app.event) AS o WHERE "tally"."mirrored__source"() IS NOT NULL) AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0);
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('mirrored', nextval('"tally"."epoch"'::regclass));
  SELECT "tally"."mirrored__refill"();
END;

-- captures each changed row
CREATE FUNCTION "tally"."mirrored__change"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."mirrored__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."mirrored__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "mirrored": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."mirrored__place"') IS NULL THEN
  INSERT INTO "tally"."mirrored__delta" (epoch, k1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a3 FROM (SELECT -1 AS w, o.* FROM "tally"."mirrored__row"(OLD) AS o WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.* FROM "tally"."mirrored__row"(NEW) AS o WHERE TG_OP <> 'DELETE') AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0);
  ELSE
  INSERT INTO "tally"."mirrored__delta" (epoch, k1, p1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, a1, a2, a3
  FROM (SELECT k1, p1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w > 0), 0) - coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric AND w < 0), 0) AS a2, coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w > 0), 0) - coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AND w < 0), 0) AS a3 FROM (SELECT -1 AS w, o.*, q.* FROM "tally"."mirrored__row"(OLD) AS o, "tally"."mirrored__place"(OLD) AS q WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.*, q.* FROM "tally"."mirrored__row"(NEW) AS o, "tally"."mirrored__place"(NEW) AS q WHERE TG_OP <> 'DELETE') AS r GROUP BY k1, p1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0 OR a3 <> 0);
  END IF;
  RETURN NULL;
END
$tally$;

-- captures INSERT
CREATE FUNCTION "tally"."mirrored__insert"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."mirrored__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."mirrored__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "mirrored": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."mirrored__place"') IS NULL THEN
  INSERT INTO "tally"."mirrored__delta" (epoch, k1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3 FROM (SELECT o.* FROM newtab AS t, "tally"."mirrored__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."mirrored__delta" (epoch, k1, p1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, a1, a2, a3
  FROM (SELECT k1, p1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3 FROM (SELECT o.*, q.* FROM newtab AS t, "tally"."mirrored__row"(t.*) AS o, "tally"."mirrored__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures DELETE
CREATE FUNCTION "tally"."mirrored__delete"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."mirrored__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."mirrored__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "mirrored": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."mirrored__place"') IS NULL THEN
  INSERT INTO "tally"."mirrored__delta" (epoch, k1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3
  FROM (SELECT k1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3 FROM (SELECT o.* FROM oldtab AS t, "tally"."mirrored__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."mirrored__delta" (epoch, k1, p1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, p1, n, a1, a2, a3
  FROM (SELECT k1, p1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3 FROM (SELECT o.*, q.* FROM oldtab AS t, "tally"."mirrored__row"(t.*) AS o, "tally"."mirrored__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures TRUNCATE
CREATE FUNCTION "tally"."mirrored__truncate"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."mirrored__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."mirrored__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "mirrored": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('mirrored', nextval('"tally"."epoch"'::regclass));
  IF pg_relation_size("tally"."mirrored__source"()) > 0 THEN
    PERFORM "tally"."mirrored__refill"();
  END IF;
  RETURN NULL;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."mirrored__source", "tally"."mirrored__row", "tally"."mirrored__guard", "tally"."mirrored__change", "tally"."mirrored__insert", "tally"."mirrored__delete", "tally"."mirrored__truncate", "tally"."mirrored__refill" FROM PUBLIC;

-- groups that their state alone answers
CREATE VIEW "tally"."mirrored__settled" AS
SELECT k1 AS "chat_id", (CASE WHEN a1 > 0 THEN "tally".with_specials(a2, a3) END)::numeric AS "size" FROM "tally"."mirrored__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'mirrored' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."mirrored__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'mirrored'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1);

-- groups that have unfolded deltas: state and deltas added up
CREATE VIEW "tally"."mirrored__changed" AS
SELECT k1 AS "chat_id", (CASE WHEN a1 > 0 THEN "tally".with_specials(a2, a3) END)::numeric AS "size" FROM (
  SELECT k1, n, a1, a2, a3 FROM (
    SELECT k1, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::numeric AS a2, sum(a3)::numeric AS a3 FROM (
    SELECT k1, n, a1, a2, a3 FROM (SELECT * FROM "tally"."mirrored__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'mirrored' AND partition IS NULL) AND s.k1 IS NOT NULL AND EXISTS (SELECT FROM (SELECT * FROM "tally"."mirrored__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'mirrored'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1) UNION ALL SELECT * FROM "tally"."mirrored__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'mirrored' AND partition IS NULL) AND NOT (s.k1 IS NOT NULL)) AS s
    UNION ALL
    SELECT k1, n, a1, a2, a3 FROM (SELECT * FROM "tally"."mirrored__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'mirrored'), '0') AND '18446744073709551615' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'mirrored' AND partition IS NULL), 0) AND pg_backend_pid() <> 0) AS d
    ) AS p GROUP BY k1
  ) AS g WHERE n > 0
) AS r;

-- the kept answer
CREATE VIEW "tally"."mirrored__kept" AS
SELECT "chat_id", "size" FROM "tally"."mirrored__settled"
UNION ALL
SELECT "chat_id", "size" FROM "tally"."mirrored__changed";

-- settled groups in the order of an index, for .top()
CREATE VIEW "tally"."mirrored__front" AS
SELECT k1 AS "chat_id", (CASE WHEN a1 > 0 THEN "tally".with_specials(a2, a3) END)::numeric AS "size" FROM "tally"."mirrored__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'mirrored' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."mirrored__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'mirrored'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1 OFFSET 0) AND (SELECT serving FROM "tally"."aggregate" WHERE name = 'mirrored' AND version = 1) = 'kept' AND to_regprocedure('"tally"."mirrored__guard"()') = '"tally"."mirrored__guard"()'::regprocedure AND pg_backend_pid() <> 0;

-- all other groups, for .top()
CREATE VIEW "tally"."mirrored__rest" AS
SELECT "chat_id", "size" FROM "tally"."mirrored__changed" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'mirrored' AND version = 1) = 'kept' AND to_regprocedure('"tally"."mirrored__guard"()') = '"tally"."mirrored__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "size" FROM "tally"."mirrored__direct" WHERE ((SELECT serving FROM "tally"."aggregate" WHERE name = 'mirrored' AND version = 1) = 'kept' AND to_regprocedure('"tally"."mirrored__guard"()') = '"tally"."mirrored__guard"()'::regprocedure) IS NOT TRUE;

-- what readers use: the half that the switch names
CREATE VIEW "tally"."mirrored" AS
SELECT "chat_id", "size" FROM "tally"."mirrored__settled" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'mirrored' AND version = 1) = 'kept' AND to_regprocedure('"tally"."mirrored__guard"()') = '"tally"."mirrored__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "size" FROM "tally"."mirrored__rest";

-- adds all visible deltas to the state; returns deltas consumed and groups written
CREATE FUNCTION "tally"."mirrored__fold"(OUT deltas bigint, OUT groups bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.mirrored', 0));
  UPDATE "tally"."mirrored__state" SET k1 = k1 WHERE NOT (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'mirrored');
  WITH marker AS (SELECT max(epoch) AS epoch FROM "tally"."reset" WHERE aggregate = 'mirrored' AND partition IS NULL AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'mirrored') = 'kept'),
  void AS (DELETE FROM "tally"."mirrored__delta" WHERE epoch < (SELECT epoch FROM marker) RETURNING *),
  "void0" AS (DELETE FROM "tally"."mirrored__state" WHERE (SELECT epoch FROM marker) IS NOT NULL),
  to_mirror AS (INSERT INTO "tally"."mirrored__mirror" (k1) SELECT k1 FROM "tally"."mirrored__state" WHERE (SELECT epoch FROM marker) IS NOT NULL UNION SELECT k1 FROM void)
  DELETE FROM "tally"."reset" WHERE aggregate = 'mirrored' AND epoch <= (SELECT epoch FROM marker);
  WITH gone AS (DELETE FROM "tally"."mirrored__delta" WHERE (SELECT phase FROM "tally"."aggregate" WHERE name = 'mirrored') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'mirrored' AND partition IS NULL) RETURNING *),
  floor AS (UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'mirrored' AND ((NOT major = current_setting('server_version_num')::integer / 10000 AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'mirrored') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'mirrored' AND partition IS NULL)) OR EXISTS (SELECT FROM gone))),
  gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::numeric AS a2, sum(a3)::numeric AS a3 FROM (SELECT k1, n, a1, a2, a3 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
  met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2, coalesce(s.a3, 0) + coalesce(g.a3, 0) AS a3 FROM gathered AS g LEFT JOIN "tally"."mirrored__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
  next AS (SELECT * FROM met),
  "state_new" AS (INSERT INTO "tally"."mirrored__state" (k1, n, a1, a2, a3) SELECT k1, n, a1, a2, a3 FROM next WHERE place IS NULL AND n <> 0),
  "state_changed" AS (UPDATE "tally"."mirrored__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2, a3 = f.a3 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
  "state_emptied" AS (DELETE FROM "tally"."mirrored__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0),
  to_mirror AS (INSERT INTO "tally"."mirrored__mirror" (k1) SELECT k1 FROM next)
  SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM next);
END;

-- computes the state from the source anew; returns groups written. Needs a REPEATABLE READ transaction
CREATE FUNCTION "tally"."mirrored__rebuild"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  INSERT INTO "tally"."mirrored__mirror" (k1) SELECT k1 FROM "tally"."mirrored__state" UNION SELECT k1 FROM "tally"."mirrored__delta";
  DELETE FROM "tally"."mirrored__state";
  DELETE FROM "tally"."mirrored__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'mirrored';
  UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'mirrored' AND true;
  INSERT INTO "tally"."mirrored__state" (k1, n, a1, a2, a3) SELECT k1, count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), 0), coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)), 0) FROM (SELECT chat_id AS k1, (amount)::numeric AS x1 FROM app.event AS "event") AS r GROUP BY k1 HAVING count(*) > 0;
  INSERT INTO "tally"."mirrored__mirror" (k1) SELECT k1 FROM "tally"."mirrored__state" WHERE (SELECT backfilled_at FROM "tally"."aggregate" WHERE name = 'mirrored') IS NOT NULL;
  SELECT count(*) FROM "tally"."mirrored__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."mirrored__fold", "tally"."mirrored__rebuild" FROM PUBLIC;

-- computes groups that are not what the source says anew; returns how many. Needs what rebuild needs
CREATE FUNCTION "tally"."mirrored__repair"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  WITH odd AS MATERIALIZED (SELECT DISTINCT k1, hash_record_extended(ROW(k1), 0) AS h FROM (
    SELECT k1 FROM (SELECT 1 AS half, ("chat_id")::integer AS k1, "size" AS y1 FROM "tally"."mirrored__kept" UNION ALL SELECT -1, ("chat_id")::integer AS k1, "size" AS y1 FROM "tally"."mirrored__direct") AS b GROUP BY k1, y1 HAVING sum(half) <> 0
    UNION ALL SELECT k1 FROM (SELECT k1, n, a1, a2, a3 FROM "tally"."mirrored__state" UNION ALL SELECT k1, n, a1, a2, a3 FROM "tally"."mirrored__delta" UNION ALL SELECT k1, - count(*), - count(*) FILTER (WHERE x1 IS NOT NULL), - sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), - sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) FROM (SELECT chat_id AS k1, (amount)::numeric AS x1 FROM app.event AS "event") AS r GROUP BY k1) AS b GROUP BY k1 HAVING coalesce(sum(n), 0) <> 0 OR coalesce(sum(a1), 0) <> 0 OR coalesce(sum(a2), 0) <> 0 OR coalesce(sum(a3), 0) <> 0) AS f),
  "state_gone" AS (DELETE FROM "tally"."mirrored__state" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  "delta_gone" AS (DELETE FROM "tally"."mirrored__delta" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  state_counted AS (INSERT INTO "tally"."mirrored__state" (k1, n, a1, a2, a3) SELECT k1, count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric), 0), coalesce(sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)), 0) FROM (SELECT r.* FROM (SELECT chat_id AS k1, (amount)::numeric AS x1 FROM app.event AS "event") AS r WHERE EXISTS (SELECT FROM odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)))) AS r GROUP BY k1 HAVING count(*) > 0),
  to_mirror AS (INSERT INTO "tally"."mirrored__mirror" (k1) SELECT k1 FROM odd)
  SELECT count(*) FROM odd;
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."mirrored__repair" FROM PUBLIC;

-- where a row stands
CREATE FUNCTION "tally"."mirrored__place"(source_row app.event) RETURNS TABLE (p1 bigint) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT (source_row)."id" AS p1; END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."mirrored__place" FROM PUBLIC;

-- where there are rows
CREATE VIEW "tally"."mirrored__places" AS SELECT t."id" AS p1 FROM app.event AS t;

-- group key, arguments and filters of rows, and where they stand
CREATE VIEW "tally"."mirrored__rows" AS SELECT o.*, t."id" AS p1 FROM app.event AS t, "tally"."mirrored__row"(t.*) AS o;

-- chunks of a backfill; empty otherwise
CREATE TABLE "tally"."mirrored__chunk" (
    id integer PRIMARY KEY,
    p1 bigint,
    u1 bigint,
    size bigint,
    snapshot pg_snapshot,
    counter xid8 NOT NULL
);

-- finds the chunk of a place
CREATE INDEX ON "tally"."mirrored__chunk" (p1);

-- what the chunks of a backfill count to, as deltas; empty otherwise
CREATE TABLE "tally"."mirrored__counted" (LIKE "tally"."mirrored__delta" INCLUDING DEFAULTS);

-- clears what is kept, for a backfill to begin
CREATE FUNCTION "tally"."mirrored__begin"() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."mirrored__chunk";
  DELETE FROM "tally"."mirrored__counted";
  INSERT INTO "tally"."mirrored__mirror" (k1) SELECT k1 FROM "tally"."mirrored__state" UNION SELECT k1 FROM "tally"."mirrored__delta";
  DELETE FROM "tally"."mirrored__state";
  DELETE FROM "tally"."mirrored__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'mirrored';
  SELECT;
END;

-- plans one more chunk of so many rows; false if there are no more rows
CREATE FUNCTION "tally"."mirrored__extend"(bigint) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
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
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "mirrored": a chunk is planned in a READ COMMITTED transaction only.';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tallystick chunks tally.mirrored', 0));
  LOCK TABLE "tally"."mirrored__chunk" IN ROW EXCLUSIVE MODE;
  IF (SELECT phase FROM "tally"."aggregate" WHERE name = 'mirrored') = 'kept' THEN
    RETURN false;
  END IF;
  SELECT p1 INTO final FROM "tally"."mirrored__chunk" WHERE id = 0;
  IF NOT FOUND THEN
    INSERT INTO "tally"."mirrored__chunk" (id, p1, size, counter)
      SELECT 0, t.p1, CASE WHEN t.p1 IS NOT NULL THEN 0 END, pg_current_xact_id()
      FROM (SELECT) AS one LEFT JOIN (SELECT p1 FROM "tally"."mirrored__places" WHERE true ORDER BY p1 DESC LIMIT 1) AS t ON true;
    RETURN true;
  END IF;
  SELECT * INTO last FROM "tally"."mirrored__chunk" WHERE id > 0 ORDER BY id DESC LIMIT 1;
  IF final.p1 IS NULL OR last.id > 0 AND last.size IS NULL THEN
    RETURN false;
  ELSIF last.id IS NULL THEN
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."mirrored__places" WHERE ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  ELSE
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."mirrored__places" WHERE ROW(p1) >= ROW(last.u1) AND ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  END IF;
  IF NOT FOUND THEN
    ahead := final;
    size := NULL;
  END IF;
  INSERT INTO "tally"."mirrored__chunk" (id, p1, u1, size, counter)
    VALUES (coalesce(last.id, 0) + 1, last.u1, ahead.p1, size, pg_current_xact_id());
  RETURN true;
END
$tally$;

-- counts a chunk that nobody counts; returns its number and size, or NULL if there is none
CREATE FUNCTION "tally"."mirrored__count"(OUT id integer, OUT size bigint) RETURNS record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
SET plan_cache_mode = force_custom_plan
AS $tally$
#variable_conflict use_column
DECLARE
  c record;
BEGIN
  IF current_setting('transaction_isolation') = 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "mirrored": a chunk is counted in a REPEATABLE READ transaction only.';
  END IF;
  SELECT * INTO c FROM "tally"."mirrored__chunk" AS o WHERE o.snapshot IS NULL AND NOT (SELECT phase FROM "tally"."aggregate" WHERE name = 'mirrored') = 'kept'
    ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF c.p1 IS NULL AND c.u1 IS NULL THEN
    INSERT INTO "tally"."mirrored__counted" (epoch, k1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3 FROM ((SELECT k1, x1 FROM "tally"."mirrored__rows" WHERE true)) AS r GROUP BY k1) AS g;
  ELSIF c.p1 IS NULL THEN
    INSERT INTO "tally"."mirrored__counted" (epoch, k1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3 FROM ((SELECT k1, x1 FROM "tally"."mirrored__rows" WHERE ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  ELSIF c.u1 IS NULL THEN
    INSERT INTO "tally"."mirrored__counted" (epoch, k1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3 FROM ((SELECT k1, x1 FROM "tally"."mirrored__rows" WHERE ROW(p1) >= ROW(c.p1))) AS r GROUP BY k1) AS g;
  ELSE
    INSERT INTO "tally"."mirrored__counted" (epoch, k1, n, a1, a2, a3)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), k1, n, a1, a2, a3
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) FILTER (WHERE x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric) AS a2, sum("tally".census(x1, false)) FILTER (WHERE NOT (x1 > '-Infinity'::numeric AND x1 < 'Infinity'::numeric)) AS a3 FROM ((SELECT k1, x1 FROM "tally"."mirrored__rows" WHERE ROW(p1) >= ROW(c.p1) AND ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  END IF;
  UPDATE "tally"."mirrored__chunk" AS o SET snapshot = pg_current_snapshot(), counter = pg_current_xact_id() WHERE o.id = c.id;
  id := c.id;
  size := c.size;
END
$tally$;

-- makes what is kept of what was counted, and drops the changes that were counted; returns the number of groups
CREATE FUNCTION "tally"."mirrored__settle"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  INSERT INTO "tally"."mirrored__mirror" (k1) SELECT k1 FROM "tally"."mirrored__delta";
  DELETE FROM "tally"."mirrored__delta" AS d WHERE pg_visible_in_snapshot(d.xact, coalesce((SELECT snapshot FROM "tally"."mirrored__chunk" WHERE ROW(p1) <= ROW(d.p1) ORDER BY p1 DESC LIMIT 1), (SELECT snapshot FROM "tally"."mirrored__chunk" WHERE p1 IS NULL)));
  WITH gone AS (SELECT * FROM "tally"."mirrored__counted"),
    gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::numeric AS a2, sum(a3)::numeric AS a3 FROM (SELECT k1, n, a1, a2, a3 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
    met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2, coalesce(s.a3, 0) + coalesce(g.a3, 0) AS a3 FROM gathered AS g LEFT JOIN "tally"."mirrored__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
    next AS (SELECT * FROM met),
    "state_new" AS (INSERT INTO "tally"."mirrored__state" (k1, n, a1, a2, a3) SELECT k1, n, a1, a2, a3 FROM next WHERE place IS NULL AND n <> 0),
    "state_changed" AS (UPDATE "tally"."mirrored__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2, a3 = f.a3 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
    "state_emptied" AS (DELETE FROM "tally"."mirrored__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
    SELECT count(*) FROM next;
  INSERT INTO "tally"."mirrored__mirror" (k1) SELECT k1 FROM "tally"."mirrored__state" WHERE (SELECT backfilled_at FROM "tally"."aggregate" WHERE name = 'mirrored') IS NOT NULL;
  DELETE FROM "tally"."mirrored__counted";
  UPDATE "tally"."watermark" SET floor = '0', folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'mirrored';
  DELETE FROM "tally"."mirrored__chunk";
  SELECT count(*) FROM "tally"."mirrored__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."mirrored__begin", "tally"."mirrored__extend", "tally"."mirrored__count", "tally"."mirrored__settle" FROM PUBLIC;

-- notes all parents, or those that have no value yet; returns how many
CREATE FUNCTION "tally"."mirrored__note"(skip_existing boolean) RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  WITH noted AS (INSERT INTO "tally"."mirrored__mirror" (k1) SELECT p."id" FROM app.chat AS p WHERE NOT skip_existing OR p."size" IS NULL RETURNING 1)
  SELECT count(*) FROM noted;
END;

-- brings the parents of some notes up to date; returns the last note seen, notes done, and notes left
CREATE FUNCTION "tally"."mirrored__copy"(after bigint, most integer, OUT last bigint, OUT done bigint, OUT locked bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.mirrored', 0));
  WITH due AS (SELECT * FROM "tally"."mirrored__mirror" WHERE id > after ORDER BY id LIMIT most),
  free AS (SELECT p.* FROM app.chat AS p WHERE EXISTS (SELECT FROM due AS m WHERE p."id" OPERATOR("pg_catalog".=) m.k1) FOR NO KEY UPDATE SKIP LOCKED),
  written AS (UPDATE app.chat AS p SET "size" = coalesce(v."size", 0) FROM free AS f LEFT JOIN LATERAL (SELECT "chat_id", "size" FROM "tally"."mirrored" AS v WHERE f."id" OPERATOR("pg_catalog".=) v."chat_id" OFFSET 0) AS v ON true WHERE p."id" OPERATOR("pg_catalog".=) f."id" AND ROW(p."size") IS DISTINCT FROM ROW(coalesce(v."size", 0))),
  held AS (SELECT m.id FROM due AS m JOIN app.chat AS p ON p."id" OPERATOR("pg_catalog".=) m.k1 WHERE NOT EXISTS (SELECT FROM free AS f WHERE f."id" OPERATOR("pg_catalog".=) m.k1)),
  gone AS (DELETE FROM "tally"."mirrored__mirror" WHERE id IN (SELECT id FROM due EXCEPT SELECT id FROM held))
  SELECT max(id), count(*) - (SELECT count(*) FROM held), (SELECT count(*) FROM held) FROM due;
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."mirrored__note", "tally"."mirrored__copy" FROM PUBLIC;

-- on INSERT
CREATE TRIGGER "tally_mirrored__insert" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."mirrored__insert"();

-- on INSERT
CREATE TRIGGER "tally_mirrored__insert_row" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."mirrored__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_mirrored__insert_row";

-- on DELETE
CREATE TRIGGER "tally_mirrored__delete" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."mirrored__delete"();

-- on DELETE
CREATE TRIGGER "tally_mirrored__delete_row" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."mirrored__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_mirrored__delete_row";

-- on UPDATE
CREATE TRIGGER "tally_mirrored__update" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."chat_id", OLD."amount"), ROW(NEW."chat_id", NEW."amount")))
EXECUTE FUNCTION "tally"."mirrored__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_mirrored__update";

-- on UPDATE
CREATE TRIGGER "tally_mirrored__move" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."id"), ROW(NEW."id")) AND NOT record_image_ne(ROW(OLD."chat_id", OLD."amount"), ROW(NEW."chat_id", NEW."amount")))
EXECUTE FUNCTION "tally"."mirrored__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_mirrored__move";

-- on TRUNCATE
CREATE TRIGGER "tally_mirrored__truncate" AFTER TRUNCATE ON app.event FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."mirrored__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_mirrored__truncate";
