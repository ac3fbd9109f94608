-- the declared query: what the kept answer must equal
CREATE VIEW "tally"."distinct__direct" AS
SELECT chat_id AS "chat_id", count(DISTINCT kind) FILTER (WHERE (size > 0)) AS "kinds", count(*) AS "events"
FROM app.event AS "event" GROUP BY chat_id;

-- folded components of each group
CREATE TABLE "tally"."distinct__state" (
    k1 integer,
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1), 0)) STORED,
    n bigint NOT NULL,
    c1 bigint
);

-- signed changes, appended by the writers and consumed by the fold
CREATE TABLE "tally"."distinct__delta" (
    epoch bigint NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    facet smallint NOT NULL,
    k1 integer,
    n bigint NOT NULL,
    v1 text COLLATE pg_catalog."default",
    p1 bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, vacuum_truncate = false);

-- rows per distinct value of each group
CREATE TABLE "tally"."distinct__facet1" (
    k1 integer,
    v1 text COLLATE pg_catalog."default",
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1, v1), 0)) STORED,
    n bigint NOT NULL
);

-- finds a value
CREATE INDEX ON "tally"."distinct__facet1" (h);

-- finds a group when folding
CREATE INDEX ON "tally"."distinct__state" (h);

-- finds a group's state when reading
CREATE INDEX ON "tally"."distinct__state" (k1);

-- finds a group's delta when reading
CREATE INDEX ON "tally"."distinct__delta" (k1, xact);

-- orders the groups by a measure
CREATE INDEX ON "tally"."distinct__state" (((coalesce(c1, 0))::bigint) DESC NULLS LAST, k1);

-- orders the groups by a measure
CREATE INDEX ON "tally"."distinct__state" (((coalesce(n, 0))::bigint) DESC NULLS LAST, k1);

-- the table that may call the capture functions
CREATE FUNCTION "tally"."distinct__source"() RETURNS regclass LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT 'app.event'::regclass; END;

-- group key, arguments and filters of one source row
CREATE FUNCTION "tally"."distinct__row"(source_row app.event) RETURNS TABLE (k1 integer, x1 text, f1 boolean) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT chat_id AS k1, (kind)::text AS x1, (size > 0) AS f1 FROM (SELECT (source_row)."chat_id" AS "chat_id", (source_row)."kind" AS "kind", (source_row)."size" AS "size") AS "event";
END;

-- counts what other triggers have put into the table since it was truncated
CREATE FUNCTION "tally"."distinct__refill"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."distinct__delta" (epoch, facet, k1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, v1
  FROM (SELECT k1, count(*) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM (SELECT chat_id AS k1, (kind)::text AS x1, (size > 0) AS f1 FROM app.event AS "event") AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
END;

-- never called: while it is there, so is all that the triggers need
CREATE FUNCTION "tally"."distinct__guard"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."distinct__delta" (epoch, facet, k1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, v1
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM (SELECT 1 AS w, o.* FROM "tally"."distinct__row"(NULL::app.event) AS o WHERE "tally"."distinct__source"() IS NOT NULL) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL) AND (n <> 0);
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('distinct', nextval('"tally"."epoch"'::regclass));
  SELECT "tally"."distinct__refill"();
END;

-- captures each changed row
CREATE FUNCTION "tally"."distinct__change"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."distinct__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."distinct__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "distinct": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."distinct__place"') IS NULL THEN
  INSERT INTO "tally"."distinct__delta" (epoch, facet, k1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, v1
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM (SELECT -1 AS w, o.* FROM "tally"."distinct__row"(OLD) AS o WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.* FROM "tally"."distinct__row"(NEW) AS o WHERE TG_OP <> 'DELETE') AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL) AND (n <> 0);
  ELSE
  INSERT INTO "tally"."distinct__delta" (epoch, facet, k1, p1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, p1, n, v1
  FROM (SELECT k1, p1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM (SELECT -1 AS w, o.*, q.* FROM "tally"."distinct__row"(OLD) AS o, "tally"."distinct__place"(OLD) AS q WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.*, q.* FROM "tally"."distinct__row"(NEW) AS o, "tally"."distinct__place"(NEW) AS q WHERE TG_OP <> 'DELETE') AS o) AS r GROUP BY GROUPING SETS ((k1, p1), (k1, p1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL) AND (n <> 0);
  END IF;
  RETURN NULL;
END
$tally$;

-- captures INSERT
CREATE FUNCTION "tally"."distinct__insert"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."distinct__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."distinct__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "distinct": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."distinct__place"') IS NULL THEN
  INSERT INTO "tally"."distinct__delta" (epoch, facet, k1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, v1
  FROM (SELECT k1, count(*) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM (SELECT o.* FROM newtab AS t, "tally"."distinct__row"(t.*) AS o) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  ELSE
  INSERT INTO "tally"."distinct__delta" (epoch, facet, k1, p1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, p1, n, v1
  FROM (SELECT k1, p1, count(*) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM (SELECT o.*, q.* FROM newtab AS t, "tally"."distinct__row"(t.*) AS o, "tally"."distinct__place"(t.*) AS q) AS o) AS r GROUP BY GROUPING SETS ((k1, p1), (k1, p1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  END IF;
  RETURN NULL;
END
$tally$;

-- captures DELETE
CREATE FUNCTION "tally"."distinct__delete"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."distinct__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."distinct__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "distinct": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."distinct__place"') IS NULL THEN
  INSERT INTO "tally"."distinct__delta" (epoch, facet, k1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, v1
  FROM (SELECT k1, - count(*) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM (SELECT o.* FROM oldtab AS t, "tally"."distinct__row"(t.*) AS o) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  ELSE
  INSERT INTO "tally"."distinct__delta" (epoch, facet, k1, p1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, p1, n, v1
  FROM (SELECT k1, p1, - count(*) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM (SELECT o.*, q.* FROM oldtab AS t, "tally"."distinct__row"(t.*) AS o, "tally"."distinct__place"(t.*) AS q) AS o) AS r GROUP BY GROUPING SETS ((k1, p1), (k1, p1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  END IF;
  RETURN NULL;
END
$tally$;

-- captures TRUNCATE
CREATE FUNCTION "tally"."distinct__truncate"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."distinct__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."distinct__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "distinct": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('distinct', nextval('"tally"."epoch"'::regclass));
  IF pg_relation_size("tally"."distinct__source"()) > 0 THEN
    PERFORM "tally"."distinct__refill"();
  END IF;
  RETURN NULL;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."distinct__source", "tally"."distinct__row", "tally"."distinct__guard", "tally"."distinct__change", "tally"."distinct__insert", "tally"."distinct__delete", "tally"."distinct__truncate", "tally"."distinct__refill" FROM PUBLIC;

-- groups that their state alone answers
CREATE VIEW "tally"."distinct__settled" AS
SELECT k1 AS "chat_id", (coalesce(c1, 0))::bigint AS "kinds", (coalesce(n, 0))::bigint AS "events" FROM "tally"."distinct__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."distinct__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'distinct'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1);

-- groups that have unfolded deltas: state and deltas added up
CREATE VIEW "tally"."distinct__changed" AS
SELECT k1 AS "chat_id", (coalesce(c1, 0))::bigint AS "kinds", (coalesce(n, 0))::bigint AS "events" FROM (
  SELECT k1, n, c1 FROM (
    SELECT k1, sum(n)::bigint AS n, sum(c1)::bigint AS c1 FROM (
    SELECT k1, n, c1 FROM (SELECT * FROM "tally"."distinct__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL) AND s.k1 IS NOT NULL AND EXISTS (SELECT FROM (SELECT * FROM "tally"."distinct__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'distinct'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1) UNION ALL SELECT * FROM "tally"."distinct__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL) AND NOT (s.k1 IS NOT NULL)) AS s
    UNION ALL
    SELECT k1, n, NULL::bigint FROM (SELECT * FROM "tally"."distinct__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'distinct'), '0') AND '18446744073709551615' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL), 0) AND facet = 0 AND pg_backend_pid() <> 0) AS d
    UNION ALL
    SELECT t.k1, 0, (coalesce(f.n, 0) + t.n > 0)::integer::bigint - (coalesce(f.n, 0) > 0)::integer FROM (SELECT k1, v1, sum(n)::bigint AS n FROM (SELECT * FROM "tally"."distinct__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'distinct'), '0') AND '18446744073709551615' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL), 0) AND facet = 1 AND pg_backend_pid() <> 0) AS d GROUP BY k1, v1) AS t
    LEFT JOIN "tally"."distinct__facet1" AS f ON f.h = hash_record_extended(ROW(t.k1, t.v1), 0) AND record_eq(ROW(f.k1, f.v1), ROW(t.k1, t.v1)) AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL)
    ) AS p GROUP BY k1
  ) AS g WHERE n > 0
) AS r;

-- the kept answer
CREATE VIEW "tally"."distinct__kept" AS
SELECT "chat_id", "kinds", "events" FROM "tally"."distinct__settled"
UNION ALL
SELECT "chat_id", "kinds", "events" FROM "tally"."distinct__changed";

-- settled groups in the order of an index, for .top()
CREATE VIEW "tally"."distinct__front" AS
SELECT k1 AS "chat_id", (coalesce(c1, 0))::bigint AS "kinds", (coalesce(n, 0))::bigint AS "events" FROM "tally"."distinct__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."distinct__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'distinct'), '0') AND '18446744073709551615' AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1 OFFSET 0) AND (SELECT serving FROM "tally"."aggregate" WHERE name = 'distinct' AND version = 1) = 'kept' AND to_regprocedure('"tally"."distinct__guard"()') = '"tally"."distinct__guard"()'::regprocedure AND (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'distinct') AND pg_backend_pid() <> 0;

-- all other groups, for .top()
CREATE VIEW "tally"."distinct__rest" AS
SELECT "chat_id", "kinds", "events" FROM "tally"."distinct__changed" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'distinct' AND version = 1) = 'kept' AND to_regprocedure('"tally"."distinct__guard"()') = '"tally"."distinct__guard"()'::regprocedure AND (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'distinct') AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "kinds", "events" FROM "tally"."distinct__direct" WHERE ((SELECT serving FROM "tally"."aggregate" WHERE name = 'distinct' AND version = 1) = 'kept' AND to_regprocedure('"tally"."distinct__guard"()') = '"tally"."distinct__guard"()'::regprocedure AND (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'distinct')) IS NOT TRUE;

-- what readers use: the half that the switch names
CREATE VIEW "tally"."distinct" AS
SELECT "chat_id", "kinds", "events" FROM "tally"."distinct__settled" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'distinct' AND version = 1) = 'kept' AND to_regprocedure('"tally"."distinct__guard"()') = '"tally"."distinct__guard"()'::regprocedure AND (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'distinct') AND pg_backend_pid() <> 0
UNION ALL
SELECT "chat_id", "kinds", "events" FROM "tally"."distinct__rest";

-- adds all visible deltas to the state; returns deltas consumed and groups written
CREATE FUNCTION "tally"."distinct__fold"(OUT deltas bigint, OUT groups bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.distinct', 0));
  UPDATE "tally"."distinct__state" SET k1 = k1 WHERE NOT (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'distinct');
  UPDATE "tally"."distinct__facet1" SET k1 = k1 WHERE NOT (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'distinct');
  WITH marker AS (SELECT max(epoch) AS epoch FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'distinct') = 'kept'),
  void AS (DELETE FROM "tally"."distinct__delta" WHERE epoch < (SELECT epoch FROM marker) RETURNING *),
  "void0" AS (DELETE FROM "tally"."distinct__state" WHERE (SELECT epoch FROM marker) IS NOT NULL),
  "void1" AS (DELETE FROM "tally"."distinct__facet1" WHERE (SELECT epoch FROM marker) IS NOT NULL)
  DELETE FROM "tally"."reset" WHERE aggregate = 'distinct' AND epoch <= (SELECT epoch FROM marker);
  WITH gone AS (DELETE FROM "tally"."distinct__delta" WHERE (SELECT phase FROM "tally"."aggregate" WHERE name = 'distinct') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL) RETURNING *),
  floor AS (UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'distinct' AND ((NOT major = current_setting('server_version_num')::integer / 10000 AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'distinct') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'distinct' AND partition IS NULL)) OR EXISTS (SELECT FROM gone))),
  "facet1_gone" AS (SELECT k1, v1, hash_record_extended(ROW(k1, v1), 0) AS h, sum(n)::bigint AS n FROM gone WHERE facet = 1 GROUP BY k1, v1),
  "facet1_next" AS (SELECT s.ctid AS place, g.k1, g.v1, g.h, coalesce(s.n, 0) AS was, coalesce(s.n, 0) + g.n AS n FROM "facet1_gone" AS g LEFT JOIN "tally"."distinct__facet1" AS s ON s.h = g.h AND record_eq(ROW(s.k1, s.v1), ROW(g.k1, g.v1))),
  "facet1_new" AS (INSERT INTO "tally"."distinct__facet1" (k1, v1, n) SELECT k1, v1, n FROM "facet1_next" WHERE place IS NULL AND n <> 0),
  "facet1_changed" AS (UPDATE "tally"."distinct__facet1" AS s SET n = f.n FROM "facet1_next" AS f WHERE s.ctid = f.place AND f.n <> 0),
  "facet1_emptied" AS (DELETE FROM "tally"."distinct__facet1" AS s USING "facet1_next" AS f WHERE s.ctid = f.place AND f.n = 0),
  gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, sum(c1)::bigint AS c1 FROM (SELECT k1, n, NULL::bigint AS c1 FROM gone WHERE facet = 0 UNION ALL SELECT k1, 0, ((n > 0)::integer - (was > 0)::integer)::bigint FROM "facet1_next") AS p GROUP BY k1 HAVING count(*) > 0),
  met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.c1, 0) + coalesce(g.c1, 0) AS c1 FROM gathered AS g LEFT JOIN "tally"."distinct__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
  next AS (SELECT * FROM met),
  "state_new" AS (INSERT INTO "tally"."distinct__state" (k1, n, c1) SELECT k1, n, c1 FROM next WHERE place IS NULL AND n <> 0),
  "state_changed" AS (UPDATE "tally"."distinct__state" AS s SET n = f.n, c1 = f.c1 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
  "state_emptied" AS (DELETE FROM "tally"."distinct__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
  SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM next);
END;

-- computes the state from the source anew; returns groups written. Needs a REPEATABLE READ transaction
CREATE FUNCTION "tally"."distinct__rebuild"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."distinct__state";
  DELETE FROM "tally"."distinct__facet1";
  DELETE FROM "tally"."distinct__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'distinct';
  UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'distinct' AND true;
  INSERT INTO "tally"."distinct__facet1" (k1, v1, n) SELECT k1, x1, count(*) FROM (SELECT chat_id AS k1, (kind)::text AS x1, (size > 0) AS f1 FROM app.event AS "event") AS r WHERE f1 AND x1 IS NOT NULL GROUP BY k1, x1;
  INSERT INTO "tally"."distinct__state" (k1, n, c1) SELECT k1, count(*), count(DISTINCT x1) FILTER (WHERE f1) FROM (SELECT chat_id AS k1, (kind)::text AS x1, (size > 0) AS f1 FROM app.event AS "event") AS r GROUP BY k1 HAVING count(*) > 0;
  SELECT count(*) FROM "tally"."distinct__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."distinct__fold", "tally"."distinct__rebuild" FROM PUBLIC;

-- computes groups that are not what the source says anew; returns how many. Needs what rebuild needs
CREATE FUNCTION "tally"."distinct__repair"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  WITH odd AS MATERIALIZED (SELECT DISTINCT k1, hash_record_extended(ROW(k1), 0) AS h FROM (
    SELECT k1 FROM (SELECT 1 AS half, ("chat_id")::integer AS k1, "kinds" AS y1, "events" AS y2 FROM "tally"."distinct__kept" UNION ALL SELECT -1, ("chat_id")::integer AS k1, "kinds" AS y1, "events" AS y2 FROM "tally"."distinct__direct") AS b GROUP BY k1, y1, y2 HAVING sum(half) <> 0
    UNION ALL SELECT k1 FROM (SELECT k1, n FROM "tally"."distinct__state" UNION ALL SELECT k1, n FROM "tally"."distinct__delta" WHERE facet = 0 UNION ALL SELECT k1, - count(*) FROM (SELECT chat_id AS k1, (kind)::text AS x1, (size > 0) AS f1 FROM app.event AS "event") AS r GROUP BY k1) AS b GROUP BY k1 HAVING coalesce(sum(n), 0) <> 0
    UNION ALL SELECT k1 FROM (SELECT k1, v1, n FROM "tally"."distinct__facet1" UNION ALL SELECT k1, v1, n FROM "tally"."distinct__delta" WHERE facet = 1 UNION ALL SELECT k1, x1, -1 FROM (SELECT chat_id AS k1, (kind)::text AS x1, (size > 0) AS f1 FROM app.event AS "event") AS r WHERE f1 AND x1 IS NOT NULL) AS b GROUP BY k1, v1 HAVING sum(n) <> 0) AS f),
  "state_gone" AS (DELETE FROM "tally"."distinct__state" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  "delta_gone" AS (DELETE FROM "tally"."distinct__delta" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  "facet1_gone" AS (DELETE FROM "tally"."distinct__facet1" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  "facet1_counted" AS (INSERT INTO "tally"."distinct__facet1" (k1, v1, n) SELECT k1, x1, count(*) FROM (SELECT r.* FROM (SELECT chat_id AS k1, (kind)::text AS x1, (size > 0) AS f1 FROM app.event AS "event") AS r WHERE EXISTS (SELECT FROM odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)))) AS r WHERE f1 AND x1 IS NOT NULL GROUP BY k1, x1),
  state_counted AS (INSERT INTO "tally"."distinct__state" (k1, n, c1) SELECT k1, count(*), count(DISTINCT x1) FILTER (WHERE f1) FROM (SELECT r.* FROM (SELECT chat_id AS k1, (kind)::text AS x1, (size > 0) AS f1 FROM app.event AS "event") AS r WHERE EXISTS (SELECT FROM odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)))) AS r GROUP BY k1 HAVING count(*) > 0)
  SELECT count(*) FROM odd;
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."distinct__repair" FROM PUBLIC;

-- where a row stands
CREATE FUNCTION "tally"."distinct__place"(source_row app.event) RETURNS TABLE (p1 bigint) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT (source_row)."id" AS p1; END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."distinct__place" FROM PUBLIC;

-- where there are rows
CREATE VIEW "tally"."distinct__places" AS SELECT t."id" AS p1 FROM app.event AS t;

-- group key, arguments and filters of rows, and where they stand
CREATE VIEW "tally"."distinct__rows" AS SELECT o.*, t."id" AS p1 FROM app.event AS t, "tally"."distinct__row"(t.*) AS o;

-- chunks of a backfill; empty otherwise
CREATE TABLE "tally"."distinct__chunk" (
    id integer PRIMARY KEY,
    p1 bigint,
    u1 bigint,
    size bigint,
    snapshot pg_snapshot,
    counter xid8 NOT NULL
);

-- finds the chunk of a place
CREATE INDEX ON "tally"."distinct__chunk" (p1);

-- what the chunks of a backfill count to, as deltas; empty otherwise
CREATE TABLE "tally"."distinct__counted" (LIKE "tally"."distinct__delta" INCLUDING DEFAULTS);

-- clears what is kept, for a backfill to begin
CREATE FUNCTION "tally"."distinct__begin"() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."distinct__chunk";
  DELETE FROM "tally"."distinct__counted";
  DELETE FROM "tally"."distinct__state";
  DELETE FROM "tally"."distinct__facet1";
  DELETE FROM "tally"."distinct__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'distinct';
  SELECT;
END;

-- plans one more chunk of so many rows; false if there are no more rows
CREATE FUNCTION "tally"."distinct__extend"(bigint) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
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
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "distinct": a chunk is planned in a READ COMMITTED transaction only.';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tallystick chunks tally.distinct', 0));
  LOCK TABLE "tally"."distinct__chunk" IN ROW EXCLUSIVE MODE;
  IF (SELECT phase FROM "tally"."aggregate" WHERE name = 'distinct') = 'kept' THEN
    RETURN false;
  END IF;
  SELECT p1 INTO final FROM "tally"."distinct__chunk" WHERE id = 0;
  IF NOT FOUND THEN
    INSERT INTO "tally"."distinct__chunk" (id, p1, size, counter)
      SELECT 0, t.p1, CASE WHEN t.p1 IS NOT NULL THEN 0 END, pg_current_xact_id()
      FROM (SELECT) AS one LEFT JOIN (SELECT p1 FROM "tally"."distinct__places" WHERE true ORDER BY p1 DESC LIMIT 1) AS t ON true;
    RETURN true;
  END IF;
  SELECT * INTO last FROM "tally"."distinct__chunk" WHERE id > 0 ORDER BY id DESC LIMIT 1;
  IF final.p1 IS NULL OR last.id > 0 AND last.size IS NULL THEN
    RETURN false;
  ELSIF last.id IS NULL THEN
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."distinct__places" WHERE ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  ELSE
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."distinct__places" WHERE ROW(p1) >= ROW(last.u1) AND ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  END IF;
  IF NOT FOUND THEN
    ahead := final;
    size := NULL;
  END IF;
  INSERT INTO "tally"."distinct__chunk" (id, p1, u1, size, counter)
    VALUES (coalesce(last.id, 0) + 1, last.u1, ahead.p1, size, pg_current_xact_id());
  RETURN true;
END
$tally$;

-- counts a chunk that nobody counts; returns its number and size, or NULL if there is none
CREATE FUNCTION "tally"."distinct__count"(OUT id integer, OUT size bigint) RETURNS record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
SET plan_cache_mode = force_custom_plan
AS $tally$
#variable_conflict use_column
DECLARE
  c record;
BEGIN
  IF current_setting('transaction_isolation') = 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "distinct": a chunk is counted in a REPEATABLE READ transaction only.';
  END IF;
  SELECT * INTO c FROM "tally"."distinct__chunk" AS o WHERE o.snapshot IS NULL AND NOT (SELECT phase FROM "tally"."aggregate" WHERE name = 'distinct') = 'kept'
    ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF c.p1 IS NULL AND c.u1 IS NULL THEN
    INSERT INTO "tally"."distinct__counted" (epoch, facet, k1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, v1
  FROM (SELECT k1, count(*) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM ((SELECT k1, x1, f1 FROM "tally"."distinct__rows" WHERE true)) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  ELSIF c.p1 IS NULL THEN
    INSERT INTO "tally"."distinct__counted" (epoch, facet, k1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, v1
  FROM (SELECT k1, count(*) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM ((SELECT k1, x1, f1 FROM "tally"."distinct__rows" WHERE ROW(p1) < ROW(c.u1))) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  ELSIF c.u1 IS NULL THEN
    INSERT INTO "tally"."distinct__counted" (epoch, facet, k1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, v1
  FROM (SELECT k1, count(*) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM ((SELECT k1, x1, f1 FROM "tally"."distinct__rows" WHERE ROW(p1) >= ROW(c.p1))) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  ELSE
    INSERT INTO "tally"."distinct__counted" (epoch, facet, k1, n, v1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), facet, k1, n, v1
  FROM (SELECT k1, count(*) AS n, v1, CASE WHEN GROUPING(v1) = 0 THEN 1 ELSE 0 END AS facet FROM (SELECT *, CASE WHEN f1 THEN x1 END AS v1 FROM ((SELECT k1, x1, f1 FROM "tally"."distinct__rows" WHERE ROW(p1) >= ROW(c.p1) AND ROW(p1) < ROW(c.u1))) AS o) AS r GROUP BY GROUPING SETS ((k1), (k1, v1))) AS g
  WHERE (facet <> 1 OR v1 IS NOT NULL);
  END IF;
  UPDATE "tally"."distinct__chunk" AS o SET snapshot = pg_current_snapshot(), counter = pg_current_xact_id() WHERE o.id = c.id;
  id := c.id;
  size := c.size;
END
$tally$;

-- makes what is kept of what was counted, and drops the changes that were counted; returns the number of groups
CREATE FUNCTION "tally"."distinct__settle"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."distinct__delta" AS d WHERE pg_visible_in_snapshot(d.xact, coalesce((SELECT snapshot FROM "tally"."distinct__chunk" WHERE ROW(p1) <= ROW(d.p1) ORDER BY p1 DESC LIMIT 1), (SELECT snapshot FROM "tally"."distinct__chunk" WHERE p1 IS NULL)));
  WITH gone AS (SELECT * FROM "tally"."distinct__counted"),
    "facet1_gone" AS (SELECT k1, v1, hash_record_extended(ROW(k1, v1), 0) AS h, sum(n)::bigint AS n FROM gone WHERE facet = 1 GROUP BY k1, v1),
    "facet1_next" AS (SELECT s.ctid AS place, g.k1, g.v1, g.h, coalesce(s.n, 0) AS was, coalesce(s.n, 0) + g.n AS n FROM "facet1_gone" AS g LEFT JOIN "tally"."distinct__facet1" AS s ON s.h = g.h AND record_eq(ROW(s.k1, s.v1), ROW(g.k1, g.v1))),
    "facet1_new" AS (INSERT INTO "tally"."distinct__facet1" (k1, v1, n) SELECT k1, v1, n FROM "facet1_next" WHERE place IS NULL AND n <> 0),
    "facet1_changed" AS (UPDATE "tally"."distinct__facet1" AS s SET n = f.n FROM "facet1_next" AS f WHERE s.ctid = f.place AND f.n <> 0),
    "facet1_emptied" AS (DELETE FROM "tally"."distinct__facet1" AS s USING "facet1_next" AS f WHERE s.ctid = f.place AND f.n = 0),
    gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, sum(c1)::bigint AS c1 FROM (SELECT k1, n, NULL::bigint AS c1 FROM gone WHERE facet = 0 UNION ALL SELECT k1, 0, ((n > 0)::integer - (was > 0)::integer)::bigint FROM "facet1_next") AS p GROUP BY k1 HAVING count(*) > 0),
    met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.c1, 0) + coalesce(g.c1, 0) AS c1 FROM gathered AS g LEFT JOIN "tally"."distinct__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
    next AS (SELECT * FROM met),
    "state_new" AS (INSERT INTO "tally"."distinct__state" (k1, n, c1) SELECT k1, n, c1 FROM next WHERE place IS NULL AND n <> 0),
    "state_changed" AS (UPDATE "tally"."distinct__state" AS s SET n = f.n, c1 = f.c1 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
    "state_emptied" AS (DELETE FROM "tally"."distinct__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
    SELECT count(*) FROM next;
  DELETE FROM "tally"."distinct__counted";
  UPDATE "tally"."watermark" SET floor = '0', folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'distinct';
  DELETE FROM "tally"."distinct__chunk";
  SELECT count(*) FROM "tally"."distinct__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."distinct__begin", "tally"."distinct__extend", "tally"."distinct__count", "tally"."distinct__settle" FROM PUBLIC;

-- on INSERT
CREATE TRIGGER "tally_distinct__insert" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."distinct__insert"();

-- on INSERT
CREATE TRIGGER "tally_distinct__insert_row" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."distinct__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_distinct__insert_row";

-- on DELETE
CREATE TRIGGER "tally_distinct__delete" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."distinct__delete"();

-- on DELETE
CREATE TRIGGER "tally_distinct__delete_row" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."distinct__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_distinct__delete_row";

-- on UPDATE
CREATE TRIGGER "tally_distinct__update" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."chat_id", OLD."kind", OLD."size"), ROW(NEW."chat_id", NEW."kind", NEW."size")))
EXECUTE FUNCTION "tally"."distinct__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_distinct__update";

-- on UPDATE
CREATE TRIGGER "tally_distinct__move" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."id"), ROW(NEW."id")) AND NOT record_image_ne(ROW(OLD."chat_id", OLD."kind", OLD."size"), ROW(NEW."chat_id", NEW."kind", NEW."size")))
EXECUTE FUNCTION "tally"."distinct__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_distinct__move";

-- on TRUNCATE
CREATE TRIGGER "tally_distinct__truncate" AFTER TRUNCATE ON app.event FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."distinct__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_distinct__truncate";
