-- Named queries over the catalog. A line "-- name: x" starts a query and its description follows.

-- name: view_text
-- The query of a view, as PostgreSQL prints it.
SELECT pg_get_viewdef(%(view)s::regclass)

-- name: view_columns
-- Columns of a view with their types: name, type, the type under its domains, the scale that the modifier fixes,
-- whether all values have one width, collation, schema of the type's own `=`, whether it is a domain, a composite, and
-- the language of its own hash function.
WITH RECURSIVE under AS (
    SELECT a.attnum, t.oid, t.typtype, t.typbasetype, t.typtypmod,
           CASE WHEN a.atttypmod >= 0 THEN a.atttypmod ELSE -1 END AS modifier
    FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
    WHERE a.attrelid = %(view)s::regclass AND a.attnum > 0
    UNION ALL
    SELECT u.attnum, t.oid, t.typtype, t.typbasetype, t.typtypmod,
           CASE WHEN u.typtypmod >= 0 THEN u.typtypmod ELSE u.modifier END
    FROM under AS u JOIN pg_type AS t ON t.oid = u.typbasetype
    WHERE u.typtype = 'd'
)
SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), format_type(b.oid, -1),
       CASE WHEN b.oid = 'numeric'::regtype AND u.modifier >= 4
            THEN ((u.modifier - 4) & 2047) - CASE WHEN ((u.modifier - 4) & 2047) > 1000 THEN 2048 ELSE 0 END END,
       b.typlen > 0,
       CASE WHEN a.attcollation <> 0
            THEN (SELECT format('%%I.%%I', n.nspname, c.collname)
                  FROM pg_collation AS c JOIN pg_namespace AS n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation) END,
       coalesce((SELECT n.nspname::text
                 FROM pg_opclass AS o
                 JOIN pg_amop AS m ON m.amopfamily = o.opcfamily AND m.amoplefttype = b.oid AND m.amoprighttype = b.oid
                   AND m.amopstrategy = CASE o.opcmethod WHEN 403 THEN 3 ELSE 1 END
                 JOIN pg_operator AS p ON p.oid = m.amopopr JOIN pg_namespace AS n ON n.oid = p.oprnamespace
                 WHERE o.opcintype = b.oid AND o.opcdefault AND o.opcmethod IN (403, 405)  -- btree, hash
                 ORDER BY o.opcmethod LIMIT 1), 'pg_catalog'),
       a.atttypid <> b.oid, b.typtype = 'c',
       (SELECT l.lanname::text
        FROM pg_opclass AS o
        JOIN pg_amproc AS f ON f.amprocfamily = o.opcfamily AND f.amproclefttype = b.oid AND f.amprocnum = 2
        JOIN pg_proc AS p ON p.oid = f.amproc JOIN pg_language AS l ON l.oid = p.prolang
        WHERE o.opcintype = b.oid AND o.opcdefault AND o.opcmethod = 405)
FROM pg_attribute AS a
JOIN under AS u ON u.attnum = a.attnum AND u.typtype <> 'd'
JOIN pg_type AS b ON b.oid = u.oid
WHERE a.attrelid = %(view)s::regclass AND a.attnum > 0
ORDER BY a.attnum

-- name: view_relations
-- Relations that a view reads: oid, name, kind, persistence, whether it is or has an inheritance child.
SELECT DISTINCT c.oid::bigint, format('%%I.%%I', n.nspname, c.relname), c.relkind::text, c.relpersistence::text,
       EXISTS (SELECT FROM pg_inherits AS i WHERE i.inhrelid = c.oid OR i.inhparent = c.oid)
FROM pg_rewrite AS r
JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass
JOIN pg_class AS c ON c.oid = d.refobjid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE r.ev_class = %(view)s::regclass AND c.oid <> r.ev_class AND c.relkind <> 'c'

-- name: view_used_columns
-- Columns of its source that a view reads, in the table's order, and how each is generated.
SELECT a.attname::text, a.attgenerated::text
FROM pg_attribute AS a
WHERE a.attrelid = %(source)s::oid AND a.attnum > 0 AND NOT a.attisdropped
  AND EXISTS (SELECT FROM pg_rewrite AS r
              JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                AND d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
              WHERE r.ev_class = to_regclass(%(view)s))
ORDER BY a.attnum

-- name: view_foreign_code
-- Functions, operators and types in a view that belong to someone who is neither us nor a superuser.
WITH used AS (
    SELECT d.refclassid, d.refobjid
    FROM pg_rewrite AS r JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
    WHERE r.ev_class = %(view)s::regclass
), code AS (
    SELECT p.oid::regprocedure::text AS what, p.proowner AS owner
    FROM used JOIN pg_proc AS p ON refclassid = 'pg_proc'::regclass AND p.oid = refobjid
    UNION
    SELECT 'operator ' || o.oid::regoperator::text, p.proowner
    FROM used JOIN pg_operator AS o ON refclassid = 'pg_operator'::regclass AND o.oid = refobjid
    JOIN pg_proc AS p ON p.oid = o.oprcode
    UNION
    SELECT 'type ' || format_type(t.oid, NULL), t.typowner
    FROM used JOIN pg_type AS t ON refclassid = 'pg_type'::regclass AND t.oid = refobjid
    WHERE t.typtype = 'd'
)
SELECT what, pg_get_userbyid(owner)::text
FROM code
WHERE owner <> (SELECT oid FROM pg_roles WHERE rolname = current_user)
  AND NOT (SELECT rolsuper FROM pg_roles WHERE oid = owner)
ORDER BY 1

-- name: view_operators
-- Operators in a view that PostgreSQL did not bring itself: oid and name.
SELECT DISTINCT o.oid::bigint, format('%%I.%%s', n.nspname, o.oprname)
FROM pg_rewrite AS r
JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_operator'::regclass
JOIN pg_operator AS o ON o.oid = d.refobjid JOIN pg_namespace AS n ON n.oid = o.oprnamespace
WHERE r.ev_class = %(view)s::regclass

-- name: view_settings
-- Settings of the session on which a view depends though PostgreSQL calls what it uses immutable: a bytea (type 17)
-- turned into text, and quote_ident(). The expression's parsed form tells.
SELECT setting
FROM pg_rewrite AS r,
     (VALUES ('bytea_output', '\{COERCEVIAIO :arg \{[A-Z]+ [^{(]*:\w*type 17 '),
             ('quote_all_identifiers', format(':funcid %%s ', 'quote_ident(text)'::regprocedure::oid))
     ) AS v (setting, pattern)
WHERE r.ev_class = %(view)s::regclass AND r.ev_action::text ~ pattern

-- name: generated_as
-- How the used columns of a table that are generated and stored are computed; NULL if there are none.
SELECT string_agg(format('%%I = %%s', a.attname, pg_get_expr(d.adbin, d.adrelid)), '; ' ORDER BY a.attnum)
FROM pg_attribute AS a JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %(source)s::oid AND a.attgenerated = 's' AND a.attname = ANY (%(used)s::text[])

-- name: may_read
-- Whether the owner of a view may read a table, and that owner.
SELECT has_table_privilege(c.relowner, %(source)s::oid, 'SELECT'), pg_get_userbyid(c.relowner)::text
FROM pg_class AS c WHERE c.oid = to_regclass(%(view)s)

-- name: publications_of_changes
-- Publications of updates or deletes that take in tables of the schema.
SELECT DISTINCT format('%%I', p.pubname)
FROM pg_publication AS p JOIN pg_publication_tables AS t ON t.pubname = p.pubname
WHERE t.schemaname = %(schema)s AND (p.pubupdate OR p.pubdelete)
ORDER BY 1

-- name: missing_columns
-- Columns of a view that another view does not have, or not at the same place with the same type and collation.
SELECT w.attname::text
FROM pg_attribute AS w LEFT JOIN pg_attribute AS n
  ON n.attrelid = to_regclass(%(now)s) AND (n.attnum, n.attname, n.atttypid, n.atttypmod, n.attcollation)
   = (w.attnum, w.attname, w.atttypid, w.atttypmod, w.attcollation)
WHERE w.attrelid = to_regclass(%(was)s) AND w.attnum > 0 AND n.attnum IS NULL
ORDER BY w.attnum

-- name: signature
-- What a function takes and gives; nothing if there is none. Rows of a view are what the view makes them.
SELECT pg_get_function_arguments(p.oid), p.proretset, CASE WHEN t.typtype <> 'c' THEN pg_get_function_result(p.oid) END
FROM pg_proc AS p JOIN pg_type AS t ON t.oid = p.prorettype
WHERE p.proname = %(name)s AND p.pronamespace = to_regnamespace(quote_ident(%(schema)s))

-- name: dependents
-- What else needs relations and functions of a schema, or the row type of one of them; not told is what is in `own`, or,
-- without it, in the schema.
WITH held AS (
    SELECT 'pg_class'::regclass::oid AS class, c.oid, c.relname::text AS name FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s))
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, p.proname::text FROM pg_proc AS p
    WHERE p.pronamespace = to_regnamespace(quote_ident(%(schema)s))
), own AS (
    SELECT class, oid FROM held WHERE %(own)s::text[] IS NULL OR name = ANY (%(own)s::text[])
), needed AS (
    SELECT class, oid FROM held WHERE name = ANY (%(needed)s::text[])
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid FROM held JOIN pg_type AS t ON t.typrelid = held.oid AND class = 'pg_class'::regclass
    WHERE name = ANY (%(needed)s::text[])
), found AS (
    SELECT d.classid AS class, d.objid AS oid, d.objsubid AS part,
           CASE d.classid WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = d.objid)
                          WHEN 'pg_attrdef'::regclass THEN (SELECT adrelid FROM pg_attrdef WHERE oid = d.objid)
                          WHEN 'pg_constraint'::regclass THEN (SELECT conrelid FROM pg_constraint WHERE oid = d.objid)
                          WHEN 'pg_class'::regclass
                          THEN coalesce((SELECT indrelid FROM pg_index WHERE indexrelid = d.objid), d.objid) END AS relation
    FROM needed AS n JOIN pg_depend AS d ON (d.refclassid, d.refobjid) = (n.class, n.oid) AND d.deptype IN ('n', 'a')
    WHERE d.classid <> 'pg_trigger'::regclass
)
SELECT DISTINCT CASE class WHEN 'pg_rewrite'::regclass THEN pg_describe_object('pg_class'::regclass, relation, 0)
                           ELSE pg_describe_object(class, oid, part) END
FROM found AS f
WHERE NOT EXISTS (SELECT FROM own
                  WHERE (own.class, own.oid) IN ((f.class, f.oid), ('pg_class'::regclass, f.relation)))
ORDER BY 1

-- name: grants
-- Rights on views, their columns, and functions of a schema that roles beside the owner have: the kind and name of the
-- object, a column or nothing, the right, the role (nothing for PUBLIC), and whether it may be passed on.
WITH held AS (
    SELECT 'TABLE' AS kind, c.relname::text AS name, NULL::text AS part, c.relowner AS owner, a.*
    FROM pg_class AS c, aclexplode(c.relacl) AS a
    WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND c.relname = ANY (%(views)s::text[])
    UNION ALL
    SELECT 'TABLE', c.relname, t.attname, c.relowner, a.*
    FROM pg_class AS c JOIN pg_attribute AS t ON t.attrelid = c.oid AND NOT t.attisdropped, aclexplode(t.attacl) AS a
    WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND c.relname = ANY (%(views)s::text[])
    UNION ALL
    SELECT 'FUNCTION', p.proname, NULL, p.proowner, a.*
    FROM pg_proc AS p, aclexplode(p.proacl) AS a
    WHERE p.pronamespace = to_regnamespace(quote_ident(%(schema)s)) AND p.proname = ANY (%(functions)s::text[])
)
SELECT DISTINCT kind, name, part, privilege_type, CASE WHEN grantee <> 0 THEN pg_get_userbyid(grantee)::text END, is_grantable
FROM held WHERE grantee <> owner
ORDER BY 1, 2, 3, 4, 5

-- name: columns_of
-- Columns of a table by name, for messages; none if there is no such table.
SELECT attname::text FROM pg_attribute
WHERE attrelid = to_regclass(%(table)s) AND attnum > 0 AND NOT attisdropped ORDER BY attnum

-- name: relation_exists
SELECT to_regclass(%(name)s) IS NOT NULL

-- name: blockers
-- Who holds a lock on a table, readers only if they matter: pid, role, state, seconds, query.
SELECT l.pid, coalesce(a.usename, a.backend_type)::text, coalesce(a.state, 'active'),
       round(extract(epoch FROM clock_timestamp() - a.xact_start))::bigint, left(a.query, 60)
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.relation = %(table)s::regclass AND l.granted AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (%(readers)s OR l.mode NOT IN ('AccessShareLock', 'RowShareLock'))
ORDER BY a.xact_start

-- name: are_held
-- Whether somebody is in one of the relations who looks like staying: for longer than short queries take.
SELECT EXISTS (
    SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.relation = ANY (%(relations)s::regclass[]) AND l.granted AND l.pid <> pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND clock_timestamp() - a.xact_start > CASE a.state WHEN 'active' THEN interval '100 ms' ELSE interval '20 ms' END
)

-- name: blocking
-- Whom a session waits for, and whoever builds an index on a table: pid, role, state, seconds, query.
SELECT DISTINCT a.pid, coalesce(a.usename, a.backend_type)::text, coalesce(a.state, 'active'),
       round(extract(epoch FROM clock_timestamp() - a.xact_start))::bigint, left(a.query, 60)
FROM (
    SELECT %(pid)s::integer
    UNION ALL SELECT p.pid FROM pg_stat_progress_create_index AS p WHERE p.relid = %(table)s::oid
) AS w (pid), unnest(pg_blocking_pids(w.pid)) AS b (pid) JOIN pg_stat_activity AS a ON a.pid = b.pid
ORDER BY 4 DESC

-- name: triggers
-- Triggers on tables: table, name and whether it fires.
SELECT tgrelid, tgname::text, tgenabled::text FROM pg_trigger
WHERE tgrelid = ANY (%(tables)s::oid[]) AND (NOT tgisinternal OR tgparentid <> 0)

-- name: calling
-- Tables and their triggers that call one of the functions, by name; not the copies that partitions have.
SELECT format('%%I.%%I', n.nspname, c.relname), g.tgname::text
FROM pg_proc AS p
JOIN pg_trigger AS g ON g.tgfoid = p.oid AND g.tgparentid = 0
JOIN pg_class AS c ON c.oid = g.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE p.pronamespace = to_regnamespace(quote_ident(%(schema)s)) AND p.proname = ANY (%(functions)s::text[])
ORDER BY 1, 2

-- name: tree
-- All below a partitioned table: oid, name, kind, persistence. Without locks, which PostgreSQL's own function takes.
WITH RECURSIVE tree AS (
    SELECT inhrelid FROM pg_inherits WHERE inhparent = %(source)s::oid AND NOT inhdetachpending
    UNION ALL
    SELECT i.inhrelid FROM pg_inherits AS i JOIN tree AS t ON i.inhparent = t.inhrelid WHERE NOT i.inhdetachpending
)
SELECT c.oid::bigint, format('%%I.%%I', n.nspname, c.relname), c.relkind::text, c.relpersistence::text
FROM tree JOIN pg_class AS c ON c.oid = inhrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY 2

-- name: partition
-- A partition by its name, and what it is attached to: oid, name, kind, persistence, name of the partitioned table.
SELECT c.oid::bigint, format('%%I.%%I', n.nspname, c.relname), c.relkind::text, c.relpersistence::text,
       format('%%I.%%I', o.nspname, p.relname)
FROM pg_inherits AS i
JOIN pg_class AS c ON c.oid = i.inhrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_class AS p ON p.oid = i.inhparent JOIN pg_namespace AS o ON o.oid = p.relnamespace
WHERE c.oid = to_regclass(%(name)s) AND c.relispartition

-- name: equal_index
-- A valid index of a table that has the columns, directions and condition of another one, which may be of another table.
SELECT format('%%I.%%I', n.nspname, c.relname)
FROM pg_index AS w, pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE w.indexrelid = %(wanted)s::regclass AND i.indrelid = %(source)s::oid AND i.indisvalid AND i.indisready
  AND c.relam = (SELECT relam FROM pg_class WHERE oid = w.indexrelid)
  AND i.indnkeyatts = w.indnkeyatts AND i.indclass = w.indclass AND i.indcollation = w.indcollation
  AND i.indoption = w.indoption
  AND ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true) FROM generate_series(1, i.indnkeyatts) AS k ORDER BY k)
    = ARRAY(SELECT pg_get_indexdef(w.indexrelid, k, true) FROM generate_series(1, w.indnkeyatts) AS k ORDER BY k)
  AND pg_get_expr(i.indpred, i.indrelid) IS NOT DISTINCT FROM pg_get_expr(w.indpred, w.indrelid)
ORDER BY c.relname LIMIT 1

-- name: children
-- What is directly below a partitioned table: oid, name, kind, persistence.
SELECT c.oid::bigint, format('%%I.%%I', n.nspname, c.relname), c.relkind::text, c.relpersistence::text
FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE i.inhparent = %(parent)s::oid AND NOT i.inhdetachpending
ORDER BY 2

-- name: copied_columns
-- Columns of a parent that take copies: name, whether they take no NULL, whether we may update them.
SELECT attname::text, attnotnull, has_column_privilege(attrelid, attnum, 'UPDATE')
FROM pg_attribute
WHERE attrelid = %(parent)s::regclass AND attname = ANY (%(columns)s::text[]) AND attnum > 0 AND NOT attisdropped

-- name: parent_keys
-- How keys of a source find a parent: by the columns of each foreign key, and by the primary key, last. Source columns
-- (none for the primary key) and the parent's columns, in the key's order.
SELECT ARRAY(SELECT attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (num, place)
             JOIN pg_attribute ON attrelid = k.conrelid AND attnum = num WHERE k.contype = 'f' ORDER BY place),
       ARRAY(SELECT attname::text FROM unnest(CASE k.contype WHEN 'f' THEN k.confkey ELSE k.conkey END)
             WITH ORDINALITY AS u (num, place)
             JOIN pg_attribute ON attrelid = %(parent)s::regclass AND attnum = num ORDER BY place)
FROM pg_constraint AS k
WHERE (k.contype = 'f' AND k.conrelid = %(source)s::regclass AND k.confrelid = %(parent)s::regclass)
   OR (k.contype = 'p' AND k.conrelid = %(parent)s::regclass)
ORDER BY k.contype, k.conname

-- name: primary_key
-- Columns of a table's primary key, in its order.
SELECT a.attname::text
FROM pg_index AS i, unnest(i.indkey) WITH ORDINALITY AS u (num, place)
JOIN pg_attribute AS a ON a.attnum = num
WHERE i.indrelid = %(source)s::oid AND i.indisprimary AND a.attrelid = i.indrelid ORDER BY place

-- name: has_primary_key
SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = %(source)s::oid AND indisprimary)

-- name: qualified_name
SELECT format('%%I.%%I', n.nspname, c.relname)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%(name)s)

-- name: estimated_rows
SELECT coalesce((SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass(%(table)s)), 0)

-- name: missing
-- Names of relations and functions that the schema lacks.
SELECT name FROM unnest(%(relations)s::text[]) AS name
WHERE NOT EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = to_regnamespace(quote_ident(%(schema)s)))
UNION ALL
SELECT name || '()' FROM unnest(%(functions)s::text[]) AS name
WHERE NOT EXISTS (SELECT FROM pg_proc WHERE proname = name AND pronamespace = to_regnamespace(quote_ident(%(schema)s)))

-- name: schema_objects
-- A few names of what a schema holds.
SELECT name FROM (
    SELECT c.relname::text AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'v', 'm', 'S', 'f', 'p')
    UNION ALL
    SELECT p.proname || '()' FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = %(schema)s
) AS held
ORDER BY 1 LIMIT 3

-- name: source_state
-- Whether the table has become part of an inheritance or partition tree, and the persistence of it and of our state.
SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid OR inhparent = c.oid), c.relpersistence::text,
       (SELECT s.relpersistence::text FROM pg_class AS s WHERE s.oid = to_regclass(%(state)s))
FROM pg_class AS c WHERE c.oid = %(source)s::oid

-- name: counter_grants
-- Roles beside the owners that were granted adding to counters or reading one of them, what they may do by whatever way,
-- and the views of counters.
WITH views AS (
    SELECT c.oid, c.relowner, c.relacl, c.relname::text AS name FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND c.relname = ANY (%(counters)s::text[])
), adding AS (
    SELECT p.oid, p.proowner, p.proacl FROM pg_proc AS p
    WHERE p.pronamespace = to_regnamespace(quote_ident(%(schema)s)) AND p.proname = 'counter_add'
), granted AS (
    SELECT a.grantee FROM views AS v, aclexplode(v.relacl) AS a
    WHERE a.privilege_type = 'SELECT' AND a.grantee NOT IN (0, v.relowner)
    UNION
    SELECT a.grantee FROM adding AS f, aclexplode(f.proacl) AS a WHERE a.grantee NOT IN (0, f.proowner)
)
SELECT pg_get_userbyid(g.grantee)::text,
       has_schema_privilege(g.grantee, to_regnamespace(quote_ident(%(schema)s)), 'USAGE'),
       (SELECT bool_and(has_function_privilege(g.grantee, f.oid, 'EXECUTE')) FROM adding AS f),
       (SELECT bool_or(has_any_column_privilege(g.grantee, v.oid, 'SELECT')) FROM views AS v)
FROM granted AS g ORDER BY 1

-- name: named_otherwise
-- Whether there is a function of counters, and its text names another schema than the one it is in.
SELECT EXISTS (
    SELECT FROM pg_proc AS p
    WHERE p.pronamespace = to_regnamespace(quote_ident(%(schema)s)) AND p.proname = 'counter_add'
      AND strpos(p.prosrc, ' ' || %(quoted)s || '.counter ') = 0
)

-- name: others_write
-- Whether sessions write to tables of this database outside the schema at this moment.
SELECT EXISTS (
    SELECT FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
    WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.pid <> pg_backend_pid()
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND c.relkind IN ('r', 'p') AND c.relnamespace IS DISTINCT FROM to_regnamespace(quote_ident(%(schema)s))
)

-- name: replica_lag
-- Bytes of WAL that the slowest replica has not replayed; NULL if there is one, and this role may not see how far it is.
SELECT CASE WHEN count(*) = 0 OR pg_has_role('pg_read_all_stats', 'USAGE')
            THEN coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0)::bigint END
FROM pg_stat_replication
