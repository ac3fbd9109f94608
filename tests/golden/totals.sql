-- the declared query: what the kept answer must equal
CREATE VIEW "tally"."totals__direct" AS
SELECT count(*) AS "events", sum(size) AS "bytes"
FROM app.event AS "event";

-- folded components of each group
CREATE TABLE "tally"."totals__state" (
    h bigint GENERATED ALWAYS AS (0::bigint) STORED,
    n bigint NOT NULL,
    a1 bigint,
    a2 bigint
);

-- signed changes, appended by the writers and consumed by the fold
CREATE TABLE "tally"."totals__delta" (
    epoch bigint NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    n bigint NOT NULL,
    a1 bigint,
    a2 bigint,
    p1 bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, vacuum_truncate = false);

-- finds a group when folding
CREATE INDEX ON "tally"."totals__state" (h);

-- finds the unfolded
CREATE INDEX ON "tally"."totals__delta" (xact);

-- the table that may call the capture functions
CREATE FUNCTION "tally"."totals__source"() RETURNS regclass LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT 'app.event'::regclass; END;

-- group key, arguments and filters of one source row
CREATE FUNCTION "tally"."totals__row"(source_row app.event) RETURNS TABLE (x1 integer) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT (size)::integer AS x1 FROM (SELECT (source_row)."size" AS "size") AS "event";
END;

-- counts what other triggers have put into the table since it was truncated
CREATE FUNCTION "tally"."totals__refill"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM (SELECT (size)::integer AS x1 FROM app.event AS "event") AS r HAVING count(*) > 0) AS g;
END;

-- never called: while it is there, so is all that the triggers need
CREATE FUNCTION "tally"."totals__guard"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE w > 0), 0) - coalesce(sum(x1) FILTER (WHERE w < 0), 0) AS a2 FROM (SELECT 1 AS w, o.* FROM "tally"."totals__row"(NULL::app.event) AS o WHERE "tally"."totals__source"() IS NOT NULL) AS r HAVING count(*) > 0) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0);
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('totals', nextval('"tally"."epoch"'::regclass));
  SELECT "tally"."totals__refill"();
END;

-- captures each changed row
CREATE FUNCTION "tally"."totals__change"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."totals__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."totals__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "totals": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."totals__place"') IS NULL THEN
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE w > 0), 0) - coalesce(sum(x1) FILTER (WHERE w < 0), 0) AS a2 FROM (SELECT -1 AS w, o.* FROM "tally"."totals__row"(OLD) AS o WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.* FROM "tally"."totals__row"(NEW) AS o WHERE TG_OP <> 'DELETE') AS r HAVING count(*) > 0) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0);
  ELSE
  INSERT INTO "tally"."totals__delta" (epoch, p1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), p1, n, a1, a2
  FROM (SELECT p1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE w > 0), 0) - coalesce(sum(x1) FILTER (WHERE w < 0), 0) AS a2 FROM (SELECT -1 AS w, o.*, q.* FROM "tally"."totals__row"(OLD) AS o, "tally"."totals__place"(OLD) AS q WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.*, q.* FROM "tally"."totals__row"(NEW) AS o, "tally"."totals__place"(NEW) AS q WHERE TG_OP <> 'DELETE') AS r GROUP BY p1) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0);
  END IF;
  RETURN NULL;
END
$tally$;

-- captures INSERT
CREATE FUNCTION "tally"."totals__insert"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."totals__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."totals__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "totals": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."totals__place"') IS NULL THEN
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM (SELECT o.* FROM newtab AS t, "tally"."totals__row"(t.*) AS o) AS r HAVING count(*) > 0) AS g;
  ELSE
  INSERT INTO "tally"."totals__delta" (epoch, p1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), p1, n, a1, a2
  FROM (SELECT p1, count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM (SELECT o.*, q.* FROM newtab AS t, "tally"."totals__row"(t.*) AS o, "tally"."totals__place"(t.*) AS q) AS r GROUP BY p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures DELETE
CREATE FUNCTION "tally"."totals__delete"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."totals__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."totals__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "totals": its capture functions serve its own source table only';
  END IF;
  IF to_regproc('"tally"."totals__place"') IS NULL THEN
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) AS a2 FROM (SELECT o.* FROM oldtab AS t, "tally"."totals__row"(t.*) AS o) AS r HAVING count(*) > 0) AS g;
  ELSE
  INSERT INTO "tally"."totals__delta" (epoch, p1, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), p1, n, a1, a2
  FROM (SELECT p1, - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) AS a2 FROM (SELECT o.*, q.* FROM oldtab AS t, "tally"."totals__row"(t.*) AS o, "tally"."totals__place"(t.*) AS q) AS r GROUP BY p1) AS g;
  END IF;
  RETURN NULL;
END
$tally$;

-- captures TRUNCATE
CREATE FUNCTION "tally"."totals__truncate"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."totals__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID <> "tally"."totals__source"() THEN
    RAISE insufficient_privilege USING MESSAGE = 'aggregate "totals": its capture functions serve its own source table only';
  END IF;
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('totals', nextval('"tally"."epoch"'::regclass));
  IF pg_relation_size("tally"."totals__source"()) > 0 THEN
    PERFORM "tally"."totals__refill"();
  END IF;
  RETURN NULL;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."totals__source", "tally"."totals__row", "tally"."totals__guard", "tally"."totals__change", "tally"."totals__insert", "tally"."totals__delete", "tally"."totals__truncate", "tally"."totals__refill" FROM PUBLIC;

-- the kept answer: state and unfolded deltas in one snapshot
CREATE VIEW "tally"."totals__kept" AS
SELECT (coalesce(n, 0))::bigint AS "events", (CASE WHEN a1 > 0 THEN a2 END)::bigint AS "bytes" FROM (
  SELECT n, a1, a2 FROM (
    SELECT sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::bigint AS a2 FROM (
    SELECT n, a1, a2 FROM (SELECT * FROM "tally"."totals__state" WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'totals' AND partition IS NULL)) AS s
    UNION ALL
    SELECT n, a1, a2 FROM (SELECT * FROM "tally"."totals__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'totals'), '0') AND '18446744073709551615' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'totals' AND partition IS NULL), 0) AND pg_backend_pid() <> 0) AS d
    ) AS p
  ) AS g
) AS r;

-- what readers use: the half that the switch names
CREATE VIEW "tally"."totals" AS
SELECT "events", "bytes" FROM "tally"."totals__kept" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'totals' AND version = 1) = 'kept' AND to_regprocedure('"tally"."totals__guard"()') = '"tally"."totals__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "events", "bytes" FROM "tally"."totals__direct" WHERE ((SELECT serving FROM "tally"."aggregate" WHERE name = 'totals' AND version = 1) = 'kept' AND to_regprocedure('"tally"."totals__guard"()') = '"tally"."totals__guard"()'::regprocedure) IS NOT TRUE;

-- adds all visible deltas to the state; returns deltas consumed and groups written
CREATE FUNCTION "tally"."totals__fold"(OUT deltas bigint, OUT groups bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.totals', 0));
  WITH marker AS (SELECT max(epoch) AS epoch FROM "tally"."reset" WHERE aggregate = 'totals' AND partition IS NULL AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'totals') = 'kept'),
  void AS (DELETE FROM "tally"."totals__delta" WHERE epoch < (SELECT epoch FROM marker) RETURNING *),
  "void0" AS (DELETE FROM "tally"."totals__state" WHERE (SELECT epoch FROM marker) IS NOT NULL)
  DELETE FROM "tally"."reset" WHERE aggregate = 'totals' AND epoch <= (SELECT epoch FROM marker);
  WITH gone AS (DELETE FROM "tally"."totals__delta" WHERE (SELECT phase FROM "tally"."aggregate" WHERE name = 'totals') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'totals' AND partition IS NULL) RETURNING *),
  floor AS (UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'totals' AND ((NOT major = current_setting('server_version_num')::integer / 10000 AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'totals') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'totals' AND partition IS NULL)) OR EXISTS (SELECT FROM gone))),
  gathered AS (SELECT 0::bigint AS h, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::bigint AS a2 FROM (SELECT n, a1, a2 FROM gone) AS p HAVING count(*) > 0),
  met AS (SELECT s.ctid AS place, g.h, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2 FROM gathered AS g LEFT JOIN "tally"."totals__state" AS s ON s.h = g.h AND true),
  next AS (SELECT * FROM met),
  "state_new" AS (INSERT INTO "tally"."totals__state" (n, a1, a2) SELECT n, a1, a2 FROM next WHERE place IS NULL AND n <> 0),
  "state_changed" AS (UPDATE "tally"."totals__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
  "state_emptied" AS (DELETE FROM "tally"."totals__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
  SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM next);
END;

-- computes the state from the source anew; returns groups written. Needs a REPEATABLE READ transaction
CREATE FUNCTION "tally"."totals__rebuild"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."totals__state";
  DELETE FROM "tally"."totals__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'totals';
  UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'totals' AND true;
  INSERT INTO "tally"."totals__state" (n, a1, a2) SELECT count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1), 0) FROM (SELECT (size)::integer AS x1 FROM app.event AS "event") AS r HAVING count(*) > 0;
  SELECT count(*) FROM "tally"."totals__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."totals__fold", "tally"."totals__rebuild" FROM PUBLIC;

-- computes groups that are not what the source says anew; returns how many. Needs what rebuild needs
CREATE FUNCTION "tally"."totals__repair"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  WITH odd AS MATERIALIZED (SELECT DISTINCT 0::bigint AS h FROM (
    SELECT  FROM (SELECT 1 AS half, "events" AS y1, "bytes" AS y2 FROM "tally"."totals__kept" UNION ALL SELECT -1, "events" AS y1, "bytes" AS y2 FROM "tally"."totals__direct") AS b GROUP BY y1, y2 HAVING sum(half) <> 0
    UNION ALL SELECT  FROM (SELECT n, a1, a2 FROM "tally"."totals__state" UNION ALL SELECT n, a1, a2 FROM "tally"."totals__delta" UNION ALL SELECT - count(*), - count(*) FILTER (WHERE x1 IS NOT NULL), - sum(x1) FROM (SELECT (size)::integer AS x1 FROM app.event AS "event") AS r) AS b HAVING coalesce(sum(n), 0) <> 0 OR coalesce(sum(a1), 0) <> 0 OR coalesce(sum(a2), 0) <> 0) AS f),
  "state_gone" AS (DELETE FROM "tally"."totals__state" AS r USING odd AS o WHERE 0::bigint = o.h AND true),
  "delta_gone" AS (DELETE FROM "tally"."totals__delta" AS r USING odd AS o WHERE 0::bigint = o.h AND true),
  state_counted AS (INSERT INTO "tally"."totals__state" (n, a1, a2) SELECT count(*), coalesce(count(*) FILTER (WHERE x1 IS NOT NULL), 0), coalesce(sum(x1), 0) FROM (SELECT r.* FROM (SELECT (size)::integer AS x1 FROM app.event AS "event") AS r WHERE EXISTS (SELECT FROM odd AS o WHERE 0::bigint = o.h AND true)) AS r HAVING count(*) > 0)
  SELECT count(*) FROM odd;
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."totals__repair" FROM PUBLIC;

-- where a row stands
CREATE FUNCTION "tally"."totals__place"(source_row app.event) RETURNS TABLE (p1 bigint) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT (source_row)."id" AS p1; END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."totals__place" FROM PUBLIC;

-- where there are rows
CREATE VIEW "tally"."totals__places" AS SELECT t."id" AS p1 FROM app.event AS t;

-- group key, arguments and filters of rows, and where they stand
CREATE VIEW "tally"."totals__rows" AS SELECT o.*, t."id" AS p1 FROM app.event AS t, "tally"."totals__row"(t.*) AS o;

-- chunks of a backfill; empty otherwise
CREATE TABLE "tally"."totals__chunk" (
    id integer PRIMARY KEY,
    p1 bigint,
    u1 bigint,
    size bigint,
    snapshot pg_snapshot,
    counter xid8 NOT NULL
);

-- finds the chunk of a place
CREATE INDEX ON "tally"."totals__chunk" (p1);

-- what the chunks of a backfill count to, as deltas; empty otherwise
CREATE TABLE "tally"."totals__counted" (LIKE "tally"."totals__delta" INCLUDING DEFAULTS);

-- clears what is kept, for a backfill to begin
CREATE FUNCTION "tally"."totals__begin"() RETURNS void LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."totals__chunk";
  DELETE FROM "tally"."totals__counted";
  DELETE FROM "tally"."totals__state";
  DELETE FROM "tally"."totals__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'totals';
  SELECT;
END;

-- plans one more chunk of so many rows; false if there are no more rows
CREATE FUNCTION "tally"."totals__extend"(bigint) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
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
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "totals": a chunk is planned in a READ COMMITTED transaction only.';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('tallystick chunks tally.totals', 0));
  LOCK TABLE "tally"."totals__chunk" IN ROW EXCLUSIVE MODE;
  IF (SELECT phase FROM "tally"."aggregate" WHERE name = 'totals') = 'kept' THEN
    RETURN false;
  END IF;
  SELECT p1 INTO final FROM "tally"."totals__chunk" WHERE id = 0;
  IF NOT FOUND THEN
    INSERT INTO "tally"."totals__chunk" (id, p1, size, counter)
      SELECT 0, t.p1, CASE WHEN t.p1 IS NOT NULL THEN 0 END, pg_current_xact_id()
      FROM (SELECT) AS one LEFT JOIN (SELECT p1 FROM "tally"."totals__places" WHERE true ORDER BY p1 DESC LIMIT 1) AS t ON true;
    RETURN true;
  END IF;
  SELECT * INTO last FROM "tally"."totals__chunk" WHERE id > 0 ORDER BY id DESC LIMIT 1;
  IF final.p1 IS NULL OR last.id > 0 AND last.size IS NULL THEN
    RETURN false;
  ELSIF last.id IS NULL THEN
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."totals__places" WHERE ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  ELSE
    SELECT * INTO ahead FROM (SELECT p1 FROM "tally"."totals__places" WHERE ROW(p1) >= ROW(last.u1) AND ROW(p1) < ROW(final.p1) ORDER BY p1 LIMIT 1 OFFSET $1) AS u;
  END IF;
  IF NOT FOUND THEN
    ahead := final;
    size := NULL;
  END IF;
  INSERT INTO "tally"."totals__chunk" (id, p1, u1, size, counter)
    VALUES (coalesce(last.id, 0) + 1, last.u1, ahead.p1, size, pg_current_xact_id());
  RETURN true;
END
$tally$;

-- counts a chunk that nobody counts; returns its number and size, or NULL if there is none
CREATE FUNCTION "tally"."totals__count"(OUT id integer, OUT size bigint) RETURNS record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
SET plan_cache_mode = force_custom_plan
AS $tally$
#variable_conflict use_column
DECLARE
  c record;
BEGIN
  IF current_setting('transaction_isolation') = 'read committed' THEN
    RAISE invalid_transaction_state USING MESSAGE = 'aggregate "totals": a chunk is counted in a REPEATABLE READ transaction only.';
  END IF;
  SELECT * INTO c FROM "tally"."totals__chunk" AS o WHERE o.snapshot IS NULL AND NOT (SELECT phase FROM "tally"."aggregate" WHERE name = 'totals') = 'kept'
    ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  IF c.p1 IS NULL AND c.u1 IS NULL THEN
    INSERT INTO "tally"."totals__counted" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM ((SELECT x1 FROM "tally"."totals__rows" WHERE true)) AS r HAVING count(*) > 0) AS g;
  ELSIF c.p1 IS NULL THEN
    INSERT INTO "tally"."totals__counted" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM ((SELECT x1 FROM "tally"."totals__rows" WHERE ROW(p1) < ROW(c.u1))) AS r HAVING count(*) > 0) AS g;
  ELSIF c.u1 IS NULL THEN
    INSERT INTO "tally"."totals__counted" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM ((SELECT x1 FROM "tally"."totals__rows" WHERE ROW(p1) >= ROW(c.p1))) AS r HAVING count(*) > 0) AS g;
  ELSE
    INSERT INTO "tally"."totals__counted" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM ((SELECT x1 FROM "tally"."totals__rows" WHERE ROW(p1) >= ROW(c.p1) AND ROW(p1) < ROW(c.u1))) AS r HAVING count(*) > 0) AS g;
  END IF;
  UPDATE "tally"."totals__chunk" AS o SET snapshot = pg_current_snapshot(), counter = pg_current_xact_id() WHERE o.id = c.id;
  id := c.id;
  size := c.size;
END
$tally$;

-- makes what is kept of what was counted, and drops the changes that were counted; returns the number of groups
CREATE FUNCTION "tally"."totals__settle"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."totals__delta" AS d WHERE pg_visible_in_snapshot(d.xact, coalesce((SELECT snapshot FROM "tally"."totals__chunk" WHERE ROW(p1) <= ROW(d.p1) ORDER BY p1 DESC LIMIT 1), (SELECT snapshot FROM "tally"."totals__chunk" WHERE p1 IS NULL)));
  WITH gone AS (SELECT * FROM "tally"."totals__counted"),
    gathered AS (SELECT 0::bigint AS h, sum(n)::bigint AS n, sum(a1)::bigint AS a1, sum(a2)::bigint AS a2 FROM (SELECT n, a1, a2 FROM gone) AS p HAVING count(*) > 0),
    met AS (SELECT s.ctid AS place, g.h, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, coalesce(s.a1, 0) + coalesce(g.a1, 0) AS a1, coalesce(s.a2, 0) + coalesce(g.a2, 0) AS a2 FROM gathered AS g LEFT JOIN "tally"."totals__state" AS s ON s.h = g.h AND true),
    next AS (SELECT * FROM met),
    "state_new" AS (INSERT INTO "tally"."totals__state" (n, a1, a2) SELECT n, a1, a2 FROM next WHERE place IS NULL AND n <> 0),
    "state_changed" AS (UPDATE "tally"."totals__state" AS s SET n = f.n, a1 = f.a1, a2 = f.a2 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
    "state_emptied" AS (DELETE FROM "tally"."totals__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
    SELECT count(*) FROM next;
  DELETE FROM "tally"."totals__counted";
  UPDATE "tally"."watermark" SET floor = '0', folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'totals';
  DELETE FROM "tally"."totals__chunk";
  SELECT count(*) FROM "tally"."totals__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."totals__begin", "tally"."totals__extend", "tally"."totals__count", "tally"."totals__settle" FROM PUBLIC;

-- on INSERT
CREATE TRIGGER "tally_totals__insert" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."totals__insert"();

-- on INSERT
CREATE TRIGGER "tally_totals__insert_row" AFTER INSERT ON app.event REFERENCING NEW TABLE AS newtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."totals__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_totals__insert_row";

-- on DELETE
CREATE TRIGGER "tally_totals__delete" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."totals__delete"();

-- on DELETE
CREATE TRIGGER "tally_totals__delete_row" AFTER DELETE ON app.event REFERENCING OLD TABLE AS oldtab FOR EACH ROW WHEN (current_setting('session_replication_role') = 'replica')
EXECUTE FUNCTION "tally"."totals__change"();

-- fires when changes of elsewhere are replayed, and only then
ALTER TABLE app.event ENABLE REPLICA TRIGGER "tally_totals__delete_row";

-- on UPDATE
CREATE TRIGGER "tally_totals__update" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."size"), ROW(NEW."size")))
EXECUTE FUNCTION "tally"."totals__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_totals__update";

-- on UPDATE
CREATE TRIGGER "tally_totals__move" AFTER UPDATE ON app.event FOR EACH ROW WHEN (record_image_ne(ROW(OLD."id"), ROW(NEW."id")) AND NOT record_image_ne(ROW(OLD."size"), ROW(NEW."size")))
EXECUTE FUNCTION "tally"."totals__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_totals__move";

-- on TRUNCATE
CREATE TRIGGER "tally_totals__truncate" AFTER TRUNCATE ON app.event FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."totals__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_totals__truncate";
