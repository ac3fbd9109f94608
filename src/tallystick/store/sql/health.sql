-- Named queries about the health of an installation, of the form that catalog.sql has.

-- name: replica_settings
-- For whom session_replication_role is replica, and what takes it back.
SELECT CASE WHEN s.setrole = 0 THEN format('database %%I', d.datname)
            WHEN s.setdatabase = 0 THEN format('role %%I', r.rolname)
            ELSE format('role %%I in database %%I', r.rolname, d.datname) END,
       CASE WHEN s.setrole = 0 THEN format('ALTER DATABASE %%I', d.datname)
            WHEN s.setdatabase = 0 THEN format('ALTER ROLE %%I', r.rolname)
            ELSE format('ALTER ROLE %%I IN DATABASE %%I', r.rolname, d.datname)
       END || ' RESET session_replication_role'
FROM pg_db_role_setting AS s
LEFT JOIN pg_database AS d ON d.oid = s.setdatabase
LEFT JOIN pg_roles AS r ON r.oid = s.setrole
WHERE 'session_replication_role=replica' = ANY (s.setconfig)
  AND (s.setdatabase = 0 OR d.datname = current_database())
UNION ALL
SELECT 'the whole server', 'ALTER SYSTEM RESET session_replication_role; SELECT pg_reload_conf()'
FROM pg_settings
WHERE name = 'session_replication_role' AND reset_val = 'replica' AND source IN ('configuration file', 'command line')
ORDER BY 1

-- name: dead_rows
SELECT c.relname::text, pg_stat_get_dead_tuples(c.oid) FROM pg_class AS c
WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s)) AND c.relkind = 'r'
  AND pg_stat_get_dead_tuples(c.oid) >= %(least)s
ORDER BY 1

-- name: oldest_holder
-- Who has the oldest snapshot, in words, and what ends it. A standby that sends feedback has a session or a slot.
-- A transaction that began a moment ago holds nothing that is dead since longer, and is nobody's to end.
WITH holders AS (
    SELECT greatest(age(a.backend_xmin), age(a.backend_xid)) AS age,
           CASE a.backend_type WHEN 'walsender'
               THEN format('standby %%s, which sends hot_standby_feedback', a.application_name)
               ELSE format('pid %%s (%%s, %%s, for %%s s)', a.pid, coalesce(a.usename::text, a.backend_type),
                   coalesce(a.state, 'active'), round(extract(epoch FROM clock_timestamp() - a.xact_start)))
           END AS who,
           CASE a.backend_type WHEN 'walsender' THEN 'on the standby: ALTER SYSTEM SET hot_standby_feedback = off'
               ELSE format('SELECT pg_terminate_backend(%%s)', a.pid) END AS remedy
    FROM pg_stat_activity AS a
    WHERE a.pid <> pg_backend_pid() AND a.backend_type IN ('client backend', 'walsender', 'background worker')
      AND (a.datname = current_database() OR a.backend_type = 'walsender')
      AND (a.xact_start IS NULL OR clock_timestamp() - a.xact_start >= make_interval(secs => %(least_s)s))
    UNION ALL
    SELECT age(p.transaction), format('the prepared transaction %%L of %%s, %%s s old', p.gid, p.owner,
               round(extract(epoch FROM clock_timestamp() - p.prepared))), format('ROLLBACK PREPARED %%L', p.gid)
    FROM pg_prepared_xacts AS p WHERE p.database = current_database()
    UNION ALL
    SELECT age(s.xmin), format('the replication slot %%s, which is %%s', s.slot_name,
               CASE WHEN s.active THEN 'in use by a standby that sends hot_standby_feedback' ELSE 'not in use' END),
           format('SELECT pg_drop_replication_slot(%%L)', s.slot_name)
    FROM pg_replication_slots AS s
)
SELECT who, remedy FROM holders WHERE age IS NOT NULL ORDER BY age DESC, who LIMIT 1

-- name: lost_rights
-- What owners of an aggregate's functions and views may not do: role, right, statement that grants it.
WITH relations AS (
    SELECT c.oid, c.relowner, c.relkind, c.relname, format('%%I.%%I', %(schema)s::text, c.relname) AS name
    FROM pg_class AS c
    WHERE c.relnamespace = to_regnamespace(quote_ident(%(schema)s))
      AND (c.relname = ANY (%(relations)s::text[]) OR c.relname IN ('aggregate', 'reset', 'watermark', 'epoch'))
), owners AS (
    SELECT DISTINCT p.proowner AS oid FROM pg_proc AS p
    WHERE p.pronamespace = to_regnamespace(quote_ident(%(schema)s)) AND p.proname = ANY (%(functions)s::text[])
), viewers AS (
    SELECT DISTINCT relowner AS oid FROM relations WHERE relkind = 'v'
), lacking (role, what, object) AS (
    SELECT o.oid, 'INSERT', r.name FROM owners AS o, relations AS r
    WHERE r.relname IN (%(delta)s, 'reset') AND NOT has_table_privilege(o.oid, r.oid, 'INSERT')
    UNION ALL
    SELECT o.oid, 'USAGE', 'SEQUENCE ' || r.name FROM owners AS o, relations AS r
    WHERE CASE WHEN r.relkind = 'S' THEN NOT has_sequence_privilege(o.oid, r.oid, 'USAGE') END
    UNION ALL
    SELECT o.oid, 'USAGE', format('SCHEMA %%I', n.nspname) FROM owners AS o, pg_namespace AS n
    WHERE n.oid = to_regnamespace(quote_ident(%(schema)s)) AND NOT has_schema_privilege(o.oid, n.oid, 'USAGE')
    UNION ALL
    SELECT o.oid, 'UPDATE', m.oid::regclass::text FROM owners AS o, pg_class AS m
    WHERE m.oid = to_regclass(%(mirror)s) AND NOT has_any_column_privilege(o.oid, m.oid, 'UPDATE')
    UNION ALL
    SELECT v.oid, 'SELECT', r.name FROM viewers AS v, relations AS r
    WHERE r.relkind IN ('r', 'v') AND NOT has_table_privilege(v.oid, r.oid, 'SELECT')
)
SELECT DISTINCT pg_get_userbyid(role)::text, what || ' on ' || object,
       format('GRANT %%s ON %%s TO %%I', what, object, pg_get_userbyid(role))
FROM lacking ORDER BY 2, 1

-- name: readers_lack
-- What roles lack that were granted a view or functions beside it: role, right, statement that grants it.
WITH schema AS (
    SELECT to_regnamespace(quote_ident(%(schema)s))::oid AS oid, quote_ident(%(schema)s) AS name
), views AS (
    SELECT c.oid, c.relowner, c.relacl FROM pg_class AS c, schema AS s
    WHERE c.relnamespace = s.oid AND c.relname = %(view)s
), functions AS (
    SELECT p.oid, p.proowner, p.proacl, p.proname FROM pg_proc AS p, schema AS s
    WHERE p.pronamespace = s.oid AND p.proname = ANY (%(reads)s::text[])
), granted AS (
    SELECT a.grantee FROM views AS v, aclexplode(v.relacl) AS a
    WHERE a.privilege_type = 'SELECT' AND a.grantee <> v.relowner
    UNION
    SELECT a.grantee FROM functions AS f, aclexplode(f.proacl) AS a WHERE a.grantee <> f.proowner
), readers AS (
    SELECT CASE WHEN grantee = 0 THEN 'public' ELSE pg_get_userbyid(grantee) END AS name,
           CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS quoted
    FROM granted
), pure AS (
    SELECT p.oid, p.oid::regprocedure::text AS signature FROM pg_proc AS p, schema AS s
    WHERE p.pronamespace = s.oid AND p.proname IN ('shortest_text', 'shortest', 'nearest_double', 'nearest_real',
        'census', 'widest_scale', 'with_specials', 'variance', 'deviation')
)
SELECT r.quoted, 'USAGE on the schema', format('GRANT USAGE ON SCHEMA %%s TO %%s', s.name, r.quoted)
FROM readers AS r, schema AS s WHERE NOT has_schema_privilege(r.name, s.oid, 'USAGE')
UNION ALL
SELECT r.quoted, 'EXECUTE on its functions', format('GRANT EXECUTE ON FUNCTION %%s TO %%s',
    string_agg(format('%%s.%%I', s.name, f.proname), ', ' ORDER BY f.proname), r.quoted)
FROM readers AS r, schema AS s, functions AS f
GROUP BY r.quoted HAVING NOT bool_or(has_function_privilege(r.name, f.oid, 'EXECUTE'))
UNION ALL
SELECT r.quoted, 'EXECUTE on functions of views', format('GRANT EXECUTE ON FUNCTION %%s TO PUBLIC',
    string_agg(p.signature, ', ' ORDER BY p.signature))
FROM readers AS r, pure AS p WHERE NOT has_function_privilege(r.name, p.oid, 'EXECUTE')
GROUP BY r.quoted
ORDER BY 1, 2
