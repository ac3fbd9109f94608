-- the declared query: what the kept answer must equal
CREATE VIEW "tally"."partitioned__direct" AS
SELECT region AS "region", count(*) AS "sales", max(cents) AS "greatest"
FROM app.sale AS "sale" GROUP BY region;

-- folded components of each group
CREATE TABLE "tally"."partitioned__state" (
    k1 integer,
    h bigint GENERATED ALWAYS AS (hash_record_extended(ROW(k1), 0)) STORED,
    n bigint NOT NULL,
    m1 integer
);

-- signed changes, appended by the writers and consumed by the fold
CREATE TABLE "tally"."partitioned__delta" (
    epoch bigint NOT NULL,
    xact xid8 NOT NULL DEFAULT pg_current_xact_id(),
    partition regclass NOT NULL,
    k1 integer,
    n bigint NOT NULL,
    i1 integer,
    d1 integer
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000, vacuum_truncate = false);

-- finds a group when folding
CREATE INDEX ON "tally"."partitioned__state" (h);

-- finds a group's state when reading
CREATE INDEX ON "tally"."partitioned__state" (k1);

-- finds a group's delta when reading
CREATE INDEX ON "tally"."partitioned__delta" (k1, xact);

-- orders the groups by a measure
CREATE INDEX ON "tally"."partitioned__state" (((coalesce(n, 0))::bigint) DESC NULLS LAST, k1);

-- orders the groups by a measure
CREATE INDEX ON "tally"."partitioned__state" (((m1)::integer) DESC NULLS LAST, k1);

-- the table that may call the capture functions
CREATE FUNCTION "tally"."partitioned__source"() RETURNS regclass LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC SELECT 'app.sale'::regclass; END;

-- group key, arguments and filters of one source row
CREATE FUNCTION "tally"."partitioned__row"(source_row app.sale) RETURNS TABLE (k1 integer, x1 integer) LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT region AS k1, (cents)::integer AS x1 FROM (SELECT (source_row)."region" AS "region", (source_row)."cents" AS "cents") AS "sale";
END;

-- never called: while it is there, so is all that the triggers need
CREATE FUNCTION "tally"."partitioned__guard"() RETURNS void LANGUAGE sql
BEGIN ATOMIC
  INSERT INTO "tally"."partitioned__delta" (epoch, partition, k1, n, i1, d1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), "tally"."partitioned__source"(), k1, n, CASE WHEN NOT record_eq(ROW(i1), ROW(d1)) THEN i1 END, CASE WHEN NOT record_eq(ROW(d1), ROW(i1)) THEN d1 END
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, max(x1) FILTER (WHERE w > 0) AS i1, max(x1) FILTER (WHERE w < 0) AS d1 FROM (SELECT 1 AS w, o.* FROM "tally"."partitioned__row"(NULL::app.sale) AS o WHERE "tally"."partitioned__source"() IS NOT NULL) AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR NOT record_eq(ROW(i1), ROW(d1)));
  INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('partitioned', nextval('"tally"."epoch"'::regclass));
END;

-- captures each changed row
CREATE FUNCTION "tally"."partitioned__change"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."partitioned__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF NOT EXISTS (SELECT FROM pg_partition_ancestors(TG_RELID) AS a (relid) WHERE relid = "tally"."partitioned__source"()) THEN
    RETURN NULL;
  END IF;
  INSERT INTO "tally"."partitioned__delta" (epoch, partition, k1, n, i1, d1)
  SELECT coalesce(pg_sequence_last_value('"tally"."epoch"'::regclass), 0), TG_RELID, k1, n, CASE WHEN NOT record_eq(ROW(i1), ROW(d1)) THEN i1 END, CASE WHEN NOT record_eq(ROW(d1), ROW(i1)) THEN d1 END
  FROM (SELECT k1, coalesce(count(*) FILTER (WHERE w > 0), 0) - coalesce(count(*) FILTER (WHERE w < 0), 0) AS n, max(x1) FILTER (WHERE w > 0) AS i1, max(x1) FILTER (WHERE w < 0) AS d1 FROM (SELECT -1 AS w, o.* FROM "tally"."partitioned__row"(OLD) AS o WHERE TG_OP <> 'INSERT' UNION ALL SELECT 1, o.* FROM "tally"."partitioned__row"(NEW) AS o WHERE TG_OP <> 'DELETE') AS r GROUP BY k1) AS g
  WHERE (n <> 0 OR NOT record_eq(ROW(i1), ROW(d1)));
  RETURN NULL;
END
$tally$;

-- captures TRUNCATE
CREATE FUNCTION "tally"."partitioned__truncate"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1
AS $tally$
BEGIN
  IF to_regprocedure('"tally"."partitioned__guard"()') IS NULL THEN
    RETURN NULL;
  END IF;
  IF TG_RELID = "tally"."partitioned__source"() THEN
    INSERT INTO "tally"."reset" (aggregate, epoch) VALUES ('partitioned', nextval('"tally"."epoch"'::regclass));
    INSERT INTO "tally"."reset" (aggregate, epoch, partition) SELECT 'partitioned', nextval('"tally"."epoch"'::regclass), relid
    FROM pg_partition_tree("tally"."partitioned__source"()) WHERE isleaf AND pg_relation_size(relid) > 0;
  ELSIF NOT EXISTS (SELECT FROM "tally"."reset" AS r WHERE aggregate = 'partitioned' AND partition IS NULL AND xact = pg_current_xact_id()
    AND NOT EXISTS (SELECT FROM "tally"."partitioned__delta" AS d WHERE d.partition = TG_RELID AND d.epoch >= r.epoch)) THEN
    INSERT INTO "tally"."reset" (aggregate, epoch, partition) VALUES ('partitioned', nextval('"tally"."epoch"'::regclass), TG_RELID);
  END IF;
  RETURN NULL;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."partitioned__source", "tally"."partitioned__row", "tally"."partitioned__guard", "tally"."partitioned__change", "tally"."partitioned__truncate" FROM PUBLIC;

-- groups that their state alone answers
CREATE VIEW "tally"."partitioned__settled" AS
SELECT k1 AS "region", (coalesce(n, 0))::bigint AS "sales", (m1)::integer AS "greatest" FROM "tally"."partitioned__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."partitioned__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'partitioned'), '0') AND '18446744073709551615' AND (partition = 'app.sale'::regclass OR partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1);

-- groups that have unfolded deltas: state and deltas added up
CREATE VIEW "tally"."partitioned__changed" AS
SELECT k1 AS "region", (coalesce(n, 0))::bigint AS "sales", (m1)::integer AS "greatest" FROM (
  SELECT k1, n, CASE WHEN (d1 IS NULL OR (i1 IS NOT NULL AND record_gt(ROW(i1), ROW(d1)))) THEN i1 ELSE (SELECT max(x1) FROM (SELECT region AS k1, (cents)::integer AS x1 FROM app.sale AS "sale") AS s WHERE (s.k1 OPERATOR("pg_catalog".=) g.k1 OR (s.k1 IS NULL AND g.k1 IS NULL))) END AS m1 FROM (
    SELECT k1, sum(n)::bigint AS n, max(i1) AS i1, max(d1) AS d1 FROM (
    SELECT k1, n, m1 AS i1, NULL::integer AS d1 FROM (SELECT * FROM "tally"."partitioned__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL) AND s.k1 IS NOT NULL AND EXISTS (SELECT FROM (SELECT * FROM "tally"."partitioned__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'partitioned'), '0') AND '18446744073709551615' AND (partition = 'app.sale'::regclass OR partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1) UNION ALL SELECT * FROM "tally"."partitioned__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL) AND NOT (s.k1 IS NOT NULL)) AS s
    UNION ALL
    SELECT k1, n, i1, d1 FROM (SELECT * FROM "tally"."partitioned__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'partitioned'), '0') AND '18446744073709551615' AND (partition = 'app.sale'::regclass OR partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL), 0) AND pg_backend_pid() <> 0) AS d
    ) AS p GROUP BY k1
  ) AS g WHERE n > 0
) AS r;

-- the kept answer
CREATE VIEW "tally"."partitioned__kept" AS
SELECT "region", "sales", "greatest" FROM "tally"."partitioned__settled"
UNION ALL
SELECT "region", "sales", "greatest" FROM "tally"."partitioned__changed";

-- settled groups in the order of an index, for .top()
CREATE VIEW "tally"."partitioned__front" AS
SELECT k1 AS "region", (coalesce(n, 0))::bigint AS "sales", (m1)::integer AS "greatest" FROM "tally"."partitioned__state" AS s WHERE NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL) AND s.k1 IS NOT NULL AND NOT EXISTS (SELECT FROM (SELECT * FROM "tally"."partitioned__delta" WHERE xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM "tally"."watermark" WHERE aggregate = 'partitioned'), '0') AND '18446744073709551615' AND (partition = 'app.sale'::regclass OR partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND pg_backend_pid() <> 0) AS d WHERE d.k1 OPERATOR("pg_catalog".=) s.k1 OFFSET 0) AND (SELECT serving FROM "tally"."aggregate" WHERE name = 'partitioned' AND version = 1) = 'kept' AND to_regprocedure('"tally"."partitioned__guard"()') = '"tally"."partitioned__guard"()'::regprocedure AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL), 0) AND partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND (SELECT array_agg(ROW(inhrelid, xmin) ORDER BY inhrelid) FROM pg_inherits WHERE NOT inhdetachpending AND (inhparent = 'app.sale'::regclass OR inhparent IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned'))) IS NOT DISTINCT FROM (SELECT array_agg(ROW(relation::oid, attached) ORDER BY relation::oid) FROM "tally"."partition" WHERE aggregate = 'partitioned') AND pg_backend_pid() <> 0;

-- all other groups, for .top()
CREATE VIEW "tally"."partitioned__rest" AS
SELECT "region", "sales", "greatest" FROM "tally"."partitioned__changed" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'partitioned' AND version = 1) = 'kept' AND to_regprocedure('"tally"."partitioned__guard"()') = '"tally"."partitioned__guard"()'::regprocedure AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL), 0) AND partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND (SELECT array_agg(ROW(inhrelid, xmin) ORDER BY inhrelid) FROM pg_inherits WHERE NOT inhdetachpending AND (inhparent = 'app.sale'::regclass OR inhparent IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned'))) IS NOT DISTINCT FROM (SELECT array_agg(ROW(relation::oid, attached) ORDER BY relation::oid) FROM "tally"."partition" WHERE aggregate = 'partitioned') AND pg_backend_pid() <> 0
UNION ALL
SELECT "region", "sales", "greatest" FROM "tally"."partitioned__direct" WHERE ((SELECT serving FROM "tally"."aggregate" WHERE name = 'partitioned' AND version = 1) = 'kept' AND to_regprocedure('"tally"."partitioned__guard"()') = '"tally"."partitioned__guard"()'::regprocedure AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL), 0) AND partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND (SELECT array_agg(ROW(inhrelid, xmin) ORDER BY inhrelid) FROM pg_inherits WHERE NOT inhdetachpending AND (inhparent = 'app.sale'::regclass OR inhparent IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned'))) IS NOT DISTINCT FROM (SELECT array_agg(ROW(relation::oid, attached) ORDER BY relation::oid) FROM "tally"."partition" WHERE aggregate = 'partitioned')) IS NOT TRUE;

-- what readers use: the half that the switch names
CREATE VIEW "tally"."partitioned" AS
SELECT "region", "sales", "greatest" FROM "tally"."partitioned__settled" WHERE (SELECT serving FROM "tally"."aggregate" WHERE name = 'partitioned' AND version = 1) = 'kept' AND to_regprocedure('"tally"."partitioned__guard"()') = '"tally"."partitioned__guard"()'::regprocedure AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL), 0) AND partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND (SELECT array_agg(ROW(inhrelid, xmin) ORDER BY inhrelid) FROM pg_inherits WHERE NOT inhdetachpending AND (inhparent = 'app.sale'::regclass OR inhparent IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned'))) IS NOT DISTINCT FROM (SELECT array_agg(ROW(relation::oid, attached) ORDER BY relation::oid) FROM "tally"."partition" WHERE aggregate = 'partitioned') AND pg_backend_pid() <> 0
UNION ALL
SELECT "region", "sales", "greatest" FROM "tally"."partitioned__rest";

-- adds all visible deltas to the state; returns deltas consumed and groups written
CREATE FUNCTION "tally"."partitioned__fold"(OUT deltas bigint, OUT groups bigint) LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.partitioned', 0));
  UPDATE "tally"."partitioned__state" SET k1 = k1 WHERE NOT (SELECT major = current_setting('server_version_num')::integer / 10000 FROM "tally"."watermark" WHERE aggregate = 'partitioned');
  WITH marker AS (SELECT max(epoch) AS epoch FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'partitioned') = 'kept'),
  void AS (DELETE FROM "tally"."partitioned__delta" WHERE epoch < (SELECT epoch FROM marker) RETURNING *),
  "void0" AS (DELETE FROM "tally"."partitioned__state" WHERE (SELECT epoch FROM marker) IS NOT NULL)
  DELETE FROM "tally"."reset" WHERE aggregate = 'partitioned' AND epoch <= (SELECT epoch FROM marker);
  WITH gone AS (DELETE FROM "tally"."partitioned__delta" WHERE (SELECT phase FROM "tally"."aggregate" WHERE name = 'partitioned') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL) AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL), 0) AND partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND (SELECT array_agg(ROW(inhrelid, xmin) ORDER BY inhrelid) FROM pg_inherits WHERE NOT inhdetachpending AND (inhparent = 'app.sale'::regclass OR inhparent IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned'))) IS NOT DISTINCT FROM (SELECT array_agg(ROW(relation::oid, attached) ORDER BY relation::oid) FROM "tally"."partition" WHERE aggregate = 'partitioned') AND (partition = 'app.sale'::regclass OR partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) RETURNING *),
  void AS (DELETE FROM "tally"."partitioned__delta" WHERE (SELECT phase FROM "tally"."aggregate" WHERE name = 'partitioned') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL) AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL), 0) AND partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND (SELECT array_agg(ROW(inhrelid, xmin) ORDER BY inhrelid) FROM pg_inherits WHERE NOT inhdetachpending AND (inhparent = 'app.sale'::regclass OR inhparent IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned'))) IS NOT DISTINCT FROM (SELECT array_agg(ROW(relation::oid, attached) ORDER BY relation::oid) FROM "tally"."partition" WHERE aggregate = 'partitioned') AND NOT (partition = 'app.sale'::regclass OR partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned'))),
  floor AS (UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'partitioned' AND ((NOT major = current_setting('server_version_num')::integer / 10000 AND (SELECT phase FROM "tally"."aggregate" WHERE name = 'partitioned') = 'kept' AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL) AND NOT EXISTS (SELECT FROM "tally"."reset" WHERE aggregate = 'partitioned' AND epoch >= coalesce((SELECT max(epoch) FROM "tally"."reset" WHERE aggregate = 'partitioned' AND partition IS NULL), 0) AND partition IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned')) AND (SELECT array_agg(ROW(inhrelid, xmin) ORDER BY inhrelid) FROM pg_inherits WHERE NOT inhdetachpending AND (inhparent = 'app.sale'::regclass OR inhparent IN (SELECT relation FROM "tally"."partition" WHERE aggregate = 'partitioned'))) IS NOT DISTINCT FROM (SELECT array_agg(ROW(relation::oid, attached) ORDER BY relation::oid) FROM "tally"."partition" WHERE aggregate = 'partitioned')) OR EXISTS (SELECT FROM gone))),
  gathered AS (SELECT k1, hash_record_extended(ROW(k1), 0) AS h, sum(n)::bigint AS n, max(i1) AS i1, max(d1) AS d1 FROM (SELECT k1, n, i1, d1 FROM gone) AS p GROUP BY k1 HAVING count(*) > 0),
  met AS (SELECT s.ctid AS place, g.h, g.k1, coalesce(s.n, 0) + coalesce(g.n, 0) AS n, greatest(s.m1, g.i1) AS i1, g.d1 FROM gathered AS g LEFT JOIN "tally"."partitioned__state" AS s ON s.h = g.h AND record_eq(ROW(s.k1), ROW(g.k1))),
  open AS (SELECT h, k1 FROM met WHERE n <> 0 AND NOT ((d1 IS NULL OR (i1 IS NOT NULL AND record_gt(ROW(i1), ROW(d1)))))),
  again AS (SELECT o.h, o.k1, max(x1) AS m1 FROM open AS o JOIN (SELECT region AS k1, (cents)::integer AS x1 FROM app.sale AS "sale") AS r ON r.k1 OPERATOR("pg_catalog".=) o.k1 WHERE (o.k1 IS NOT NULL) GROUP BY o.h, o.k1 UNION ALL SELECT o.h, o.k1, max(x1) AS m1 FROM open AS o JOIN (SELECT region AS k1, (cents)::integer AS x1 FROM app.sale AS "sale") AS r ON hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)) WHERE NOT (o.k1 IS NOT NULL) GROUP BY o.h, o.k1),
  next AS (SELECT met.*, CASE WHEN (d1 IS NULL OR (i1 IS NOT NULL AND record_gt(ROW(i1), ROW(d1)))) THEN i1 ELSE a.m1 END AS m1 FROM met LEFT JOIN again AS a ON a.h = met.h AND record_eq(ROW(a.k1), ROW(met.k1))),
  "state_new" AS (INSERT INTO "tally"."partitioned__state" (k1, n, m1) SELECT k1, n, m1 FROM next WHERE place IS NULL AND n <> 0),
  "state_changed" AS (UPDATE "tally"."partitioned__state" AS s SET n = f.n, m1 = f.m1 FROM next AS f WHERE s.ctid = f.place AND f.n <> 0),
  "state_emptied" AS (DELETE FROM "tally"."partitioned__state" AS s USING next AS f WHERE s.ctid = f.place AND f.n = 0)
  SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM next);
END;

-- computes the state from the source anew; returns groups written. Needs a REPEATABLE READ transaction
CREATE FUNCTION "tally"."partitioned__rebuild"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  DELETE FROM "tally"."partitioned__state";
  DELETE FROM "tally"."partitioned__delta";
  DELETE FROM "tally"."reset" WHERE aggregate = 'partitioned';
  DELETE FROM "tally"."partition" WHERE aggregate = 'partitioned';
  INSERT INTO "tally"."partition" (aggregate, relation, attached)
    SELECT 'partitioned', p.relation, p.attached FROM "tally"."below"("tally"."partitioned__source"()) AS p WHERE EXISTS
      (SELECT FROM "tally"."below"("tally"."partitioned__source"()) AS t WHERE true AND p.relation = ANY (t.path))
    ON CONFLICT DO NOTHING;
  UPDATE "tally"."watermark" SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()), folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = 'partitioned' AND true;
  INSERT INTO "tally"."partitioned__state" (k1, n, m1) SELECT k1, count(*), max(x1) FROM (SELECT region AS k1, (cents)::integer AS x1 FROM app.sale AS "sale") AS r GROUP BY k1 HAVING count(*) > 0;
  SELECT count(*) FROM "tally"."partitioned__state";
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."partitioned__fold", "tally"."partitioned__rebuild" FROM PUBLIC;

-- computes groups that are not what the source says anew; returns how many. Needs what rebuild needs
CREATE FUNCTION "tally"."partitioned__repair"() RETURNS bigint LANGUAGE sql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
BEGIN ATOMIC
  WITH odd AS MATERIALIZED (SELECT DISTINCT k1, hash_record_extended(ROW(k1), 0) AS h FROM (
    SELECT k1 FROM (SELECT 1 AS half, ("region")::integer AS k1, "sales" AS y1, "greatest" AS y2 FROM "tally"."partitioned__kept" UNION ALL SELECT -1, ("region")::integer AS k1, "sales" AS y1, "greatest" AS y2 FROM "tally"."partitioned__direct") AS b GROUP BY k1, y1, y2 HAVING sum(half) <> 0
    UNION ALL SELECT k1 FROM (SELECT k1, n FROM "tally"."partitioned__state" UNION ALL SELECT k1, n FROM "tally"."partitioned__delta" UNION ALL SELECT k1, - count(*) FROM (SELECT region AS k1, (cents)::integer AS x1 FROM app.sale AS "sale") AS r GROUP BY k1) AS b GROUP BY k1 HAVING coalesce(sum(n), 0) <> 0) AS f),
  "state_gone" AS (DELETE FROM "tally"."partitioned__state" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  "delta_gone" AS (DELETE FROM "tally"."partitioned__delta" AS r USING odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1))),
  state_counted AS (INSERT INTO "tally"."partitioned__state" (k1, n, m1) SELECT k1, count(*), max(x1) FROM (SELECT r.* FROM (SELECT region AS k1, (cents)::integer AS x1 FROM app.sale AS "sale") AS r WHERE EXISTS (SELECT FROM odd AS o WHERE hash_record_extended(ROW(r.k1), 0) = o.h AND record_eq(ROW(r.k1), ROW(o.k1)))) AS r GROUP BY k1 HAVING count(*) > 0)
  SELECT count(*) FROM odd;
END;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."partitioned__repair" FROM PUBLIC;

-- counts a partition in, once; needs a REPEATABLE READ transaction, and nobody else who attaches or detaches
CREATE FUNCTION "tally"."partitioned__adopt"(regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
AS $tally$
BEGIN
  IF EXISTS (SELECT FROM "tally"."partition" WHERE aggregate = 'partitioned' AND relation = $1) THEN
    RETURN;
  END IF;
  DELETE FROM "tally"."partitioned__delta" AS d WHERE d.partition = $1;
  DELETE FROM "tally"."reset" AS r WHERE r.aggregate = 'partitioned' AND r.partition = $1;
  INSERT INTO "tally"."partition" (aggregate, relation, attached)
    SELECT 'partitioned', p.relation, p.attached FROM "tally"."below"("tally"."partitioned__source"()) AS p WHERE EXISTS
      (SELECT FROM "tally"."below"("tally"."partitioned__source"()) AS t WHERE t.relation = $1 AND p.relation = ANY (t.path))
    ON CONFLICT DO NOTHING;
  IF (SELECT relkind FROM pg_class WHERE oid = $1) <> 'p' THEN
    EXECUTE 'INSERT INTO "tally"."partitioned__delta" (epoch, partition, k1, n, i1)
  SELECT coalesce(pg_sequence_last_value(''"tally"."epoch"''::regclass), 0), $1, k1, n, i1
  FROM (SELECT k1, count(*) AS n, max(x1) AS i1 FROM (SELECT o.* FROM ' || $1::text || ' AS t, "tally"."partitioned__row"(t) AS o) AS r GROUP BY k1) AS g' USING $1;
  END IF;
END
$tally$;

-- counts a partition out; needs it locked against writers, and no fold at work
CREATE FUNCTION "tally"."partitioned__release"(regclass) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off
AS $tally$
BEGIN
  UPDATE "tally"."partitioned__delta" AS d SET partition = "tally"."partitioned__source"() WHERE d.partition = $1;
  DELETE FROM "tally"."partition" WHERE aggregate = 'partitioned' AND relation = $1;
  EXECUTE 'INSERT INTO "tally"."partitioned__delta" (epoch, partition, k1, n, d1)
  SELECT coalesce(pg_sequence_last_value(''"tally"."epoch"''::regclass), 0), "tally"."partitioned__source"(), k1, n, d1
  FROM (SELECT k1, - count(*) AS n, max(x1) AS d1 FROM (SELECT o.* FROM ' || $1::text || ' AS t, "tally"."partitioned__row"(t) AS o) AS r GROUP BY k1) AS g' USING $1;
END
$tally$;

-- for the owner alone
REVOKE ALL ON FUNCTION "tally"."partitioned__adopt", "tally"."partitioned__release" FROM PUBLIC;

-- on INSERT
CREATE TRIGGER "tally_partitioned__insert" AFTER INSERT ON app.sale FOR EACH ROW
EXECUTE FUNCTION "tally"."partitioned__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.sale ENABLE ALWAYS TRIGGER "tally_partitioned__insert";

-- on DELETE
CREATE TRIGGER "tally_partitioned__delete" AFTER DELETE ON app.sale FOR EACH ROW
EXECUTE FUNCTION "tally"."partitioned__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.sale ENABLE ALWAYS TRIGGER "tally_partitioned__delete";

-- on UPDATE
CREATE TRIGGER "tally_partitioned__update" AFTER UPDATE ON app.sale FOR EACH ROW WHEN (record_image_ne(ROW(OLD."region", OLD."cents"), ROW(NEW."region", NEW."cents")))
EXECUTE FUNCTION "tally"."partitioned__change"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.sale ENABLE ALWAYS TRIGGER "tally_partitioned__update";

-- on TRUNCATE
CREATE TRIGGER "tally_partitioned__truncate" AFTER TRUNCATE ON app.sale FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."partitioned__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.sale ENABLE ALWAYS TRIGGER "tally_partitioned__truncate";

-- on TRUNCATE
CREATE TRIGGER "tally_partitioned__truncate" AFTER TRUNCATE ON app.sale_high FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."partitioned__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.sale_high ENABLE ALWAYS TRIGGER "tally_partitioned__truncate";

-- on TRUNCATE
CREATE TRIGGER "tally_partitioned__truncate" AFTER TRUNCATE ON app.sale_low FOR EACH STATEMENT
EXECUTE FUNCTION "tally"."partitioned__truncate"();

-- fires when changes of elsewhere are replayed
ALTER TABLE app.sale_low ENABLE ALWAYS TRIGGER "tally_partitioned__truncate";
