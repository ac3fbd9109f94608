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
    a2 bigint
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
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w > 0), 0) - coalesce(count(*) FILTER (WHERE x1 IS NOT NULL AND w < 0), 0) AS a1, coalesce(sum(x1) FILTER (WHERE w > 0), 0) - coalesce(sum(x1) FILTER (WHERE w < 0), 0) AS a2 FROM (SELECT -1 AS w, o.* FROM "tally"."totals__row"(OLD) AS o WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.* FROM "tally"."totals__row"(NEW) AS o WHERE TG_OP <> 'DELETE') AS r HAVING count(*) > 0) AS g
  WHERE (n <> 0 OR a1 <> 0 OR a2 <> 0);
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
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT count(*) AS n, count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, sum(x1) AS a2 FROM (SELECT o.* FROM newtab AS t, "tally"."totals__row"(t.*) AS o) AS r HAVING count(*) > 0) AS g;
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
  INSERT INTO "tally"."totals__delta" (epoch, n, a1, a2)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), n, a1, a2
  FROM (SELECT - count(*) AS n, - count(*) FILTER (WHERE x1 IS NOT NULL) AS a1, - sum(x1) AS a2 FROM (SELECT o.* FROM oldtab AS t, "tally"."totals__row"(t.*) AS o) AS r HAVING count(*) > 0) AS g;
  RETURN NULL;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."totals__source", "tally"."totals__row", "tally"."totals__guard", "tally"."totals__change", "tally"."totals__truncate", "tally"."totals__insert", "tally"."totals__delete", "tally"."totals__refill" FROM PUBLIC;

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
SELECT "events", "bytes" FROM "tally"."totals__kept" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'totals') = 'kept' AND to_regprocedure('"tally"."totals__guard"()') = '"tally"."totals__guard"()'::regprocedure AND pg_backend_pid() <> 0
UNION ALL
SELECT "events", "bytes" FROM "tally"."totals__direct" WHERE ((SELECT serving FROM "tally"."aggregate" WHERE name = 'totals') = 'kept' AND to_regprocedure('"tally"."totals__guard"()') = '"tally"."totals__guard"()'::regprocedure) IS NOT TRUE;

-- adds all visible deltas to the state; returns deltas consumed and groups written
CREATE FUNCTION "tally"."totals__fold"(OUT deltas bigint, OUT groups bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.totals', 0));
  WITH marker AS (SELECT max(epoch) AS epoch FROM "tally"."reset" WHERE aggregate = 'totals' AND partition IS NULL),
  void AS (DELETE FROM "tally"."totals__delta" WHERE epoch < (SELECT epoch FROM marker) RETURNING *),
  "void0" AS (DELETE FROM "tally"."totals__state" WHERE (SELECT epoch FROM marker) IS NOT NULL)
  DELETE FROM "tally"."reset" WHERE aggregate = 'totals' AND epoch <= (SELECT epoch FROM marker);
  WITH gone AS (DELETE FROM "tally"."totals__delta" WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'totals' AND partition IS NULL) RETURNING *),
  floor AS (UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'totals' AND ((NOT major = current_setting('server_version_num')::integer / 10000 AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'totals' AND partition IS NULL)) OR EXISTS (SELECT FROM gone))),
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

-- on TRUNCATE
CREATE TRIGGER "tally_totals__truncate" AFTER TRUNCATE ON app.event FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."totals__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.event ENABLE ALWAYS TRIGGER "tally_totals__truncate";
