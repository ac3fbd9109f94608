-- the declared query: what the kept answer must equal
CREATE VIEW "tally"."Quoted ""names""__direct" AS
SELECT "group" AS "Group By", sum("Unit Price") AS "Total in ""€"" net"
FROM app."The ""Lines"" of orders" AS "The ""Lines"" of orders" GROUP BY "group";

-- folded components of each group
CREATE TABLE "tally"."Quoted ""names""__state" (
    narrow boolean NOT NULL,
    k1 text COLLATE pg_catalog."default",
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1), 0)) STORED,
    n bigint NOT NULL,
    a1 bigint,
    a2 bigint
);

-- signed changes, appended by the writers and consumed by the fold
CREATE TABLE "tally"."Quoted ""names""__delta" (
    epoch bigint NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    narrow boolean NOT NULL,
    k1 text COLLATE pg_catalog."default",
    n bigint NOT NULL,
    a1 bigint,
    a2 bigint,
    p1 bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, vacuum_truncate = false);

-- finds a group when folding
CREATE INDEX ON "tally"."Quoted ""names""__state" (h);

-- finds a group's state when reading
CREATE INDEX ON "tally"."Quoted ""names""__state" (k1) WHERE narrow;

-- lists the state of groups whose key is too wide for a B-tree
CREATE INDEX ON "tally"."Quoted ""names""__state" (narrow) WHERE NOT narrow;

-- finds a group's delta when reading
CREATE INDEX ON "tally"."Quoted ""names""__delta" (k1, xact) WHERE narrow;

-- lists the delta of groups whose key is too wide for a B-tree
CREATE INDEX ON "tally"."Quoted ""names""__delta" (xact) WHERE NOT narrow;

-- orders the groups by a measure
CREATE INDEX ON "tally"."Quoted ""names""__state" (((CASE WHEN a1 > 0 THEN a2 END)::bigint) DESC NULLS LAST, k1) WHERE narrow;

-- the table that may call the capture functions
CREATE FUNCTION "tally"."Quoted ""names""__source"() RETURNS regclass LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT 'app."The ""Lines"" of orders"'::regclass; END;

-- group key, arguments and filters of one source row
CREATE FUNCTION "tally"."Quoted ""names""__row"(source_row app."The ""Lines"" of orders") RETURNS TABLE (k1 text, x1 integer) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT "group" AS k1, ("Unit Price")::integer AS x1 FROM (SELECT (source_row)."group" AS "group", (source_row)."Unit Price" AS "Unit Price") AS "The ""Lines"" of orders";
END;

-- counts what other triggers have put into the table since it was truncated
CREATE FUNCTION "tally"."Quoted ""names""__refill"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."Quoted ""names""__delta" (epoch, narrow, k1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM (SELECT "group" AS k1, ("Unit Price")::integer AS x1 FROM app."The ""Lines"" of orders" AS "The ""Lines"" of orders") AS r GROUP BY k1) AS g;
END;

-- never called: while it is there, so is all that the triggers need
CREATE FUNCTION "tally"."Quoted ""names""__guard"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."Quoted ""names""__delta" (epoch, narrow, k1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE w > 0), 0) - coalesce(sum(x1) FILTER (WHERE w < 0), 0) AS a2 FROM (SELECT 1 AS w, o.* FROM "tally"."Quoted ""names""__row"(NULL::app."The ""Lines"" of orders") AS o WHERE "tally"."Quoted ""names""__source"() IS NOT NULL) AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0);
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('Quoted "names"', nextval('"tally"."epoch"'::regclass));
  SELECT "tally"."Quoted ""names""__refill"();
END;

-- captures each changed row
CREATE FUNCTION "tally"."Quoted ""names""__change"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."Quoted ""names""__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."Quoted ""names""__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "Quoted "names"": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."Quoted ""names""__place"') IS NULL THEN
  INSERT INTO "tally"."Quoted ""names""__delta" (epoch, narrow, k1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE w > 0), 0) - coalesce(sum(x1) FILTER (WHERE w < 0), 0) AS a2 FROM (SELECT -1 AS w, o.* FROM "tally"."Quoted ""names""__row"(OLD) AS o WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.* FROM "tally"."Quoted ""names""__row"(NEW) AS o WHERE TG_OP <> 'DELETE') AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0);
  ELSE
  INSERT INTO "tally"."Quoted ""names""__delta" (epoch, narrow, k1, p1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, p1, n, a1, a2
  FROM (SELECT k1, p1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE w > 0), 0) - coalesce(sum(x1) FILTER (WHERE w < 0), 0) AS a2 FROM (SELECT -1 AS w, o.*, q.* FROM "tally"."Quoted ""names""__row"(OLD) AS o, "tally"."Quoted ""names""__place"(OLD) AS q WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.*, q.* FROM "tally"."Quoted ""names""__row"(NEW) AS o, "tally"."Quoted ""names""__place"(NEW) AS q WHERE TG_OP <> 'DELETE') AS r GROUP BY k1, p1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0);
  END IF;
  RETURN NULL;
END
$tally$;

-- captures INSERT
CREATE FUNCTION "tally"."Quoted ""names""__insert"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."Quoted ""names""__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."Quoted ""names""__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "Quoted "names"": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."Quoted ""names""__place"') IS NULL THEN
  INSERT INTO "tally"."Quoted ""names""__delta" (epoch, narrow, k1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM (SELECT o.* FROM newtab AS t, "tally"."Quoted ""names""__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."Quoted ""names""__delta" (epoch, narrow, k1, p1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, p1, n, a1, a2
  FROM (SELECT k1, p1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM (SELECT o.*, q.* FROM newtab AS t, "tally"."Quoted ""names""__row"(t.*) AS o, "tally"."Quoted ""names""__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures DELETE
CREATE FUNCTION "tally"."Quoted ""names""__delete"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."Quoted ""names""__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."Quoted ""names""__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "Quoted "names"": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."Quoted ""names""__place"') IS NULL THEN
  INSERT INTO "tally"."Quoted ""names""__delta" (epoch, narrow, k1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2
  FROM (SELECT k1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) AS a2 FROM (SELECT o.* FROM oldtab AS t, "tally"."Quoted ""names""__row"(t.*) AS o) AS r GROUP BY k1) AS g;
  ELSE
  INSERT INTO "tally"."Quoted ""names""__delta" (epoch, narrow, k1, p1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, p1, n, a1, a2
  FROM (SELECT k1, p1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) AS a2 FROM (SELECT o.*, q.* FROM oldtab AS t, "tally"."Quoted ""names""__row"(t.*) AS o, "tally"."Quoted ""names""__place"(t.*) AS q) AS r GROUP BY k1, p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures TRUNCATE
CREATE FUNCTION "tally"."Quoted ""names""__truncate"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."Quoted ""names""__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."Quoted ""names""__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "Quoted "names"": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('Quoted "names"', nextval('"tally"."epoch"'::regclass));
  IF pg_relation_size("tally"."Quoted ""names""__source"()) > 0 THEN
    PERFORM "tally"."Quoted ""names""__refill"();
  END IF;
  RETURN NULL;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."Quoted ""names""__source", "tally"."Quoted ""names""__row", "tally"."Quoted ""names""__guard", "tally"."Quoted ""names""__change", "tally"."Quoted ""names""__insert", "tally"."Quoted ""names""__delete", "tally"."Quoted ""names""__truncate", "tally"."Quoted ""names""__refill" FROM PUBLIC;

-- groups that their state alone answers
CREATE VIEW "tally"."Quoted ""names""__settled" AS
SELECT k1 AS "Group By", (CASE WHEN a1 > 0 THEN a2 END)::bigint AS "Total in ""€"" net" FROM "tally"."Quoted ""names""__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL) AND s.narrow AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."Quoted ""names""__delta" WHERE narrow AND xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'Quoted "names"'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0 UNION ALL SELECT * FROM "tally"."Quoted ""names""__delta" WHERE NOT narrow AND xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'Quoted "names"'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1);

-- groups that have unfolded deltas: state and deltas added up
CREATE VIEW "tally"."Quoted ""names""__changed" AS
SELECT k1 AS "Group By", (CASE WHEN a1 > 0 THEN a2 END)::bigint AS "Total in ""€"" net" FROM (
  SELECT k1, n, a1, a2 FROM (
    SELECT k1, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::bigint AS a2 FROM (
    SELECT k1, n, a1, a2 FROM (SELECT * FROM "tally"."Quoted ""names""__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL) AND s.narrow AND s.k1 IS NOT NULL AND EXISTS (SELECT FROM (SELECT * FROM "tally"."Quoted ""names""__delta" WHERE narrow AND xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'Quoted "names"'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0 UNION ALL SELECT * FROM "tally"."Quoted ""names""__delta" WHERE NOT narrow AND xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'Quoted "names"'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1) UNION ALL SELECT * FROM "tally"."Quoted ""names""__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL) AND s.narrow AND NOT (s.k1 IS NOT NULL) UNION ALL SELECT * FROM "tally"."Quoted ""names""__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL) AND NOT s.narrow) AS s
    UNION ALL
    SELECT k1, n, a1, a2 FROM (SELECT * FROM "tally"."Quoted ""names""__delta" WHERE narrow AND xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'Quoted "names"'), '0') AND '18446744073709551615' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL), 0) AND pg_backend_pid() <> 0 UNION ALL SELECT * FROM "tally"."Quoted ""names""__delta" WHERE NOT narrow AND xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'Quoted "names"'), '0') AND '18446744073709551615' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL), 0) AND pg_backend_pid() <> 0) AS d
    ) AS p GROUP BY k1
  ) AS g WHERE n > 0
) AS r;

-- the kept answer
CREATE VIEW "tally"."Quoted ""names""__kept" AS
SELECT "Group By", "Total in ""€"" net" FROM "tally"."Quoted ""names""__settled"
UNION ALL
SELECT "Group By", "Total in ""€"" net" FROM "tally"."Quoted ""names""__changed";

-- settled groups in the order of an index, for .top()
CREATE VIEW "tally"."Quoted ""names""__front" AS
SELECT k1 AS "Group By", (CASE WHEN a1 > 0 THEN a2 END)::bigint AS "Total in ""€"" net" FROM "tally"."Quoted ""names""__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL) AND s.narrow AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."Quoted ""names""__delta" WHERE narrow AND xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'Quoted "names"'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0 UNION ALL SELECT * FROM "tally"."Quoted ""names""__delta" WHERE NOT narrow AND xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'Quoted "names"'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1 OFFSET 0) AND (SELECT serving FROM "tally"."aggregate" WHERE name = 'Quoted "names"' AND version = 1) = 'kept' AND to_regprocedure('"tally"."Quoted ""names""__guard"()') = '"tally"."Quoted ""names""__guard"()'::regprocedure AND pg_backend_pid() <> 0;

-- all other groups, for .top()
CREATE VIEW "tally"."Quoted ""names""__rest" AS
SELECT "Group By", "Total in ""€"" net" FROM "tally"."Quoted ""names""__changed" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'Quoted "names"' AND version = 1) = 'kept' AND to_regprocedure('"tally"."Quoted ""names""__guard"()') = '"tally"."Quoted ""names""__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "Group By", "Total in ""€"" net" FROM "tally"."Quoted ""names""__direct" WHERE ((SELECT serving FROM "tally"."aggregate" WHERE name = 'Quoted "names"' AND version = 1) = 'kept' AND to_regprocedure('"tally"."Quoted ""names""__guard"()') = '"tally"."Quoted ""names""__guard"()'::regprocedure) IS NOT TRUE;

-- what readers use: the half that the switch names
CREATE VIEW "tally"."Quoted ""names""" AS
SELECT "Group By", "Total in ""€"" net" FROM "tally"."Quoted ""names""__settled" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'Quoted "names"' AND version = 1) = 'kept' AND to_regprocedure('"tally"."Quoted ""names""__guard"()') = '"tally"."Quoted ""names""__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "Group By", "Total in ""€"" net" FROM "tally"."Quoted ""names""__rest";

-- adds all visible deltas to the state; returns deltas consumed and groups written
CREATE FUNCTION "tally"."Quoted ""names""__fold"(OUT deltas bigint, OUT groups bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.Quoted "names"', 0));
  UPDATE "tally"."Quoted ""names""__state" SET k1 = k1 WHERE NOT (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'Quoted "names"');
  WITH marker AS (SELECT max(epoch) AS epoch FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'Quoted "names"') = 'kept'),
  void AS (DELETE FROM "tally"."Quoted ""names""__delta" WHERE epoch < (SELECT epoch FROM marker) RETURNING *),
  "void0" AS (DELETE FROM "tally"."Quoted ""names""__state" WHERE (SELECT epoch FROM marker) IS NOT NULL)
  DELETE FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND epoch <= (SELECT epoch FROM marker);
  WITH gone AS (DELETE FROM "tally"."Quoted ""names""__delta" WHERE (SELECT phase FROM "tally"."aggregate" WHERE name = 'Quoted "names"') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL) RETURNING *),
  floor AS (UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'Quoted "names"' AND ((NOT major = current_setting('server_version_num')::integer / 10000 AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'Quoted "names"') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'Quoted "names"' AND partition IS NULL)) OR EXISTS (SELECT FROM gone))),
  gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, bool_or(narrow) AS narrow, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::bigint AS a2 FROM (SELECT k1, narrow, n, a1, a2 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
  met AS (SELECT s.ctid AS place, g.h, g.k1, g.narrow, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2 FROM gathered AS g LEFT JOIN "tally"."Quoted ""names""__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
  next AS (SELECT * FROM met),
  "state_new" AS (INSERT INTO "tally"."Quoted ""names""__state" (narrow, k1, n, a1, a2) SELECT narrow, k1, n, a1, a2 FROM next WHERE place IS NULL AND n <> 0),
  "state_changed" AS (UPDATE "tally"."Quoted ""names""__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
  "state_emptied" AS (DELETE FROM "tally"."Quoted ""names""__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
  SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM next);
END;

-- computes the state from the source anew; returns groups written. Needs a REPEATABLE READ transaction
CREATE FUNCTION "tally"."Quoted ""names""__rebuild"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."Quoted ""names""__state";
  DELETE FROM "tally"."Quoted ""names""__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'Quoted "names"';
  UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'Quoted "names"' AND true;
  INSERT INTO "tally"."Quoted ""names""__state" (narrow, k1, n, a1, a2) SELECT pg_column_size(ROW(k1)) < 2000, k1, count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1), 0) FROM (SELECT "group" AS k1, ("Unit Price")::integer AS x1 FROM app."The ""Lines"" of orders" AS "The ""Lines"" of orders") AS r GROUP BY k1 HAVING count(*) > 0;
  SELECT count(*) FROM "tally"."Quoted ""names""__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."Quoted ""names""__fold", "tally"."Quoted ""names""__rebuild" FROM PUBLIC;

-- computes groups that are not what the source says anew; returns how many. Needs what rebuild needs
CREATE FUNCTION "tally"."Quoted ""names""__repair"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  WITH odd AS MATERIALIZED (SELECT DISTINCT k1, hash_record_extended(ROW(k1), 0) AS h FROM (
    SELECT k1 FROM (SELECT 1 AS half, ("Group By")::text AS k1, "Total in ""€"" net" AS y1 FROM "tally"."Quoted ""names""__kept" UNION ALL SELECT -1, ("Group By")::text AS k1, "Total in ""€"" net" AS y1 FROM "tally"."Quoted ""names""__direct") AS b GROUP BY k1, y1 HAVING sum(half) <> 0
    UNION ALL SELECT k1 FROM (SELECT k1, n, a1, a2 FROM "tally"."Quoted ""names""__state" UNION ALL SELECT k1, n, a1, a2 FROM "tally"."Quoted ""names""__delta" UNION ALL SELECT k1, - count(*), - count(*) FILTER (WHERE x1 IS NOT NULL), - sum(x1) FROM (SELECT "group" AS k1, ("Unit Price")::integer AS x1 FROM app."The ""Lines"" of orders" AS "The ""Lines"" of orders") AS r GROUP BY k1) AS b GROUP BY k1 HAVING coalesce(sum(n), 0) <> 0 OR coalesce(sum(a1), 0) <> 0 OR coalesce(sum(a2), 0) <> 0) AS f),
  "state_gone" AS (DELETE FROM "tally"."Quoted ""names""__state" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  "delta_gone" AS (DELETE FROM "tally"."Quoted ""names""__delta" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  state_counted AS (INSERT INTO "tally"."Quoted ""names""__state" (narrow, k1, n, a1, a2) SELECT pg_column_size(ROW(k1)) < 2000, k1, count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1), 0) FROM (SELECT r.* FROM (SELECT "group" AS k1, ("Unit Price")::integer AS x1 FROM app."The ""Lines"" of orders" AS "The ""Lines"" of orders") AS r WHERE EXISTS (SELECT FROM odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)))) AS r GROUP BY k1 HAVING count(*) > 0)
  SELECT count(*) FROM odd;
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."Quoted ""names""__repair" FROM PUBLIC;

-- where a row stands
CREATE FUNCTION "tally"."Quoted ""names""__place"(source_row app."The ""Lines"" of orders") RETURNS TABLE (p1 bigint) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT (source_row)."Id" AS p1; END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."Quoted ""names""__place" FROM PUBLIC;

-- where there are rows
CREATE VIEW "tally"."Quoted ""names""__places" AS SELECT t."Id" AS p1 FROM app."The ""Lines"" of orders" AS t;

-- group key, arguments and filters of rows, and where they stand
CREATE VIEW "tally"."Quoted ""names""__rows" AS SELECT o.*, t."Id" AS p1 FROM app."The ""Lines"" of orders" AS t, "tally"."Quoted ""names""__row"(t.*) AS o;

-- chunks of a backfill; empty otherwise
CREATE TABLE "tally"."Quoted ""names""__chunk" (
    id integer PRIMARY KEY,
    p1 bigint,
    u1 bigint,
    size bigint,
    snapshot pg_snapshot,
    counter xid8 NOT NULL
);

-- finds the chunk of a place
CREATE INDEX ON "tally"."Quoted ""names""__chunk" (p1);

-- what the chunks of a backfill count to, as deltas; empty otherwise
CREATE TABLE "tally"."Quoted ""names""__counted" (LIKE "tally"."Quoted ""names""__delta" INCLUDING DEFAULTS);

-- clears what is kept, for a backfill to begin
CREATE FUNCTION "tally"."Quoted ""names""__begin"() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."Quoted ""names""__chunk";
  DELETE FROM "tally"."Quoted ""names""__counted";
  DELETE FROM "tally"."Quoted ""names""__state";
  DELETE FROM "tally"."Quoted ""names""__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'Quoted "names"';
  SELECT;
END;

-- plans one more chunk of so many rows; false if there are no more rows
CREATE FUNCTION "tally"."Quoted ""names""__extend"(bigint) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
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
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "Quoted "names"": a chunk is planned in a READ COMMITTED transaction only.';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tallystick chunks tally.Quoted "names"', 0));
  LOCK TABLE "tally"."Quoted ""names""__chunk" IN ROW EXCLUSIVE MODE;
  IF (SELECT phase FROM "tally"."aggregate" WHERE name = 'Quoted "names"') = 'kept' THEN
    RETURN false;
  END IF;
  SELECT p1 INTO final FROM "tally"."Quoted ""names""__chunk" WHERE id = 0;
  IF NOT FOUND THEN
    INSERT INTO "tally"."Quoted ""names""__chunk" (id, p1, size, counter)
      SELECT 0, t.p1, CASE WHEN t.p1 IS NOT NULL THEN 0 END, pg_current_xact_id()
      FROM (SELECT) AS one LEFT JOIN (SELECT p1 FROM "tally"."Quoted ""names""__places" WHERE true ORDER BY p1 DESC LIMIT 1) AS t ON true;
    RETURN true;
  END IF;
  SELECT * INTO last FROM "tally"."Quoted ""names""__chunk" WHERE id > 0 ORDER BY id DESC LIMIT 1;
  IF final.p1 IS NULL OR last.id > 0 AND last.size IS NULL THEN
    RETURN false;
  ELSIF last.id IS NULL THEN
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."Quoted ""names""__places" WHERE ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  ELSE
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."Quoted ""names""__places" WHERE ROW(p1) >= ROW(last.u1) AND ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  END IF;
  IF NOT FOUND THEN
    ahead := final;
    size := NULL;
  END IF;
  INSERT INTO "tally"."Quoted ""names""__chunk" (id, p1, u1, size, counter)
    VALUES (coalesce(last.id, 0) + 1, last.u1, ahead.p1, size, pg_current_xact_id());
  RETURN true;
END
$tally$;

-- counts a chunk that nobody counts; returns its number and size, or NULL if there is none
CREATE FUNCTION "tally"."Quoted ""names""__count"(OUT id integer, OUT size bigint) RETURNS record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
SET plan_cache_mode = force_custom_plan
AS $tally$
#variable_conflict use_column
DECLARE
  c record;
BEGIN
  IF current_setting('transaction_isolation') = 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "Quoted "names"": a chunk is counted in a REPEATABLE READ transaction only.';
  END IF;
  SELECT * INTO c FROM "tally"."Quoted ""names""__chunk" AS o WHERE o.snapshot IS NULL AND NOT (SELECT phase FROM "tally"."aggregate" WHERE name = 'Quoted "names"') = 'kept'
    ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF c.p1 IS NULL AND c.u1 IS NULL THEN
    INSERT INTO "tally"."Quoted ""names""__counted" (epoch, narrow, k1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM ((SELECT k1, x1 FROM "tally"."Quoted ""names""__rows" WHERE true)) AS r GROUP BY k1) AS g;
  ELSIF c.p1 IS NULL THEN
    INSERT INTO "tally"."Quoted ""names""__counted" (epoch, narrow, k1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM ((SELECT k1, x1 FROM "tally"."Quoted ""names""__rows" WHERE ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  ELSIF c.u1 IS NULL THEN
    INSERT INTO "tally"."Quoted ""names""__counted" (epoch, narrow, k1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM ((SELECT k1, x1 FROM "tally"."Quoted ""names""__rows" WHERE ROW(p1) >= ROW(c.p1))) AS r GROUP BY k1) AS g;
  ELSE
    INSERT INTO "tally"."Quoted ""names""__counted" (epoch, narrow, k1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), pg_column_size(ROW(k1)) < 2000, k1, n, a1, a2
  FROM (SELECT k1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM ((SELECT k1, x1 FROM "tally"."Quoted ""names""__rows" WHERE ROW(p1) >= ROW(c.p1) AND ROW(p1) < ROW(c.u1))) AS r GROUP BY k1) AS g;
  END IF;
  UPDATE "tally"."Quoted ""names""__chunk" AS o SET snapshot = pg_current_snapshot(), counter = pg_current_xact_id() WHERE o.id = c.id;
  id := c.id;
  size := c.size;
END
$tally$;

-- makes what is kept of what was counted, and drops the changes that were counted; returns the number of groups
CREATE FUNCTION "tally"."Quoted ""names""__settle"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."Quoted ""names""__delta" AS d WHERE pg_visible_in_snapshot(d.xact, coalesce((SELECT snapshot FROM "tally"."Quoted ""names""__chunk" WHERE ROW(p1) <= ROW(d.p1) ORDER BY p1 DESC LIMIT 1), (SELECT snapshot FROM "tally"."Quoted ""names""__chunk" WHERE p1 IS NULL)));
  WITH gone AS (SELECT * FROM "tally"."Quoted ""names""__counted"),
    gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, bool_or(narrow) AS narrow, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::bigint AS a2 FROM (SELECT k1, narrow, n, a1, a2 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
    met AS (SELECT s.ctid AS place, g.h, g.k1, g.narrow, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2 FROM gathered AS g LEFT JOIN "tally"."Quoted ""names""__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
    next AS (SELECT * FROM met),
    "state_new" AS (INSERT INTO "tally"."Quoted ""names""__state" (narrow, k1, n, a1, a2) SELECT narrow, k1, n, a1, a2 FROM next WHERE place IS NULL AND n <> 0),
    "state_changed" AS (UPDATE "tally"."Quoted ""names""__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
    "state_emptied" AS (DELETE FROM "tally"."Quoted ""names""__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
    SELECT count(*) FROM next;
  DELETE FROM "tally"."Quoted ""names""__counted";
  UPDATE "tally"."watermark" SET floor = '0', folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'Quoted "names"';
  DELETE FROM "tally"."Quoted ""names""__chunk";
  SELECT count(*) FROM "tally"."Quoted ""names""__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."Quoted ""names""__begin", "tally"."Quoted ""names""__extend", "tally"."Quoted ""names""__count", "tally"."Quoted ""names""__settle" FROM PUBLIC;

-- on INSERT
CREATE TRIGGER "tally_Quoted ""names""__insert" AFTER INSERT ON app."The ""Lines"" of orders" REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."Quoted ""names""__insert"();

-- on INSERT
CREATE TRIGGER "tally_Quoted ""names""__insert_row" AFTER INSERT ON app."The ""Lines"" of orders" REFERENCING NEW TABLE AS newtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."Quoted ""names""__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app."The ""Lines"" of orders" ENABLE REPLICA TRIGGER "tally_Quoted ""names""__insert_row";

-- on DELETE
CREATE TRIGGER "tally_Quoted ""names""__delete" AFTER DELETE ON app."The ""Lines"" of orders" REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."Quoted ""names""__delete"();

-- on DELETE
CREATE TRIGGER "tally_Quoted ""names""__delete_row" AFTER DELETE ON app."The ""Lines"" of orders" REFERENCING OLD TABLE AS oldtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."Quoted ""names""__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app."The ""Lines"" of orders" ENABLE REPLICA TRIGGER "tally_Quoted ""names""__delete_row";

-- on UPDATE
CREATE TRIGGER "tally_Quoted ""names""__update" AFTER UPDATE ON app."The ""Lines"" of orders" FOR EACH ROW WHEN (record_image_ne(ROW(OLD."group", OLD."Unit Price"), ROW(NEW."group", NEW."Unit Price")))
EXECUTE FUNCTION "tally"."Quoted ""names""__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app."The ""Lines"" of orders" ENABLE ALWAYS TRIGGER "tally_Quoted ""names""__update";

-- on UPDATE
CREATE TRIGGER "tally_Quoted ""names""__move" AFTER UPDATE ON app."The ""Lines"" of orders" FOR EACH ROW WHEN (record_image_ne(ROW(OLD."Id"), ROW(NEW."Id")) AND NOT record_image_ne(ROW(OLD."group", OLD."Unit Price"), ROW(NEW."group", NEW."Unit Price")))
EXECUTE FUNCTION "tally"."Quoted ""names""__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app."The ""Lines"" of orders" ENABLE ALWAYS TRIGGER "tally_Quoted ""names""__move";

-- on TRUNCATE
CREATE TRIGGER "tally_Quoted ""names""__truncate" AFTER TRUNCATE ON app."The ""Lines"" of orders" FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."Quoted ""names""__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app."The ""Lines"" of orders" ENABLE ALWAYS TRIGGER "tally_Quoted ""names""__truncate";
