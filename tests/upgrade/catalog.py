"""All that an installation has in the catalog, in words that are the same in any two databases."""

import re
from typing import LiteralString

from tests.servers import Connection

# Of a function everything shows in its definition, of an index and a constraint likewise.
LISTED: LiteralString = """
WITH held AS (SELECT oid FROM pg_class WHERE relnamespace = 'tally'::regnamespace)
SELECT 'relation ' || c.relname || ' ' || c.relkind::text || c.relpersistence::text || ' '
    || coalesce(array_to_string(c.reloptions, ', '), '') || ' ' || c.relreplident::text
    || coalesce(' -- ' || obj_description(c.oid, 'pg_class'), '') || ' ' || coalesce(c.relacl::text, '')
FROM pg_class AS c WHERE c.relnamespace = 'tally'::regnamespace AND c.relkind <> 'i'
UNION ALL
SELECT 'column ' || a.attrelid::regclass || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
    || ' ' || a.attnotnull || ' ' || a.attidentity::text || a.attgenerated::text || ' '
    || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || ' ' || a.attcollation::regcollation
    || coalesce(' -- ' || col_description(a.attrelid, a.attnum), '')
FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid IN (SELECT oid FROM held) AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'view ' || c.relname || ' ' || pg_get_viewdef(c.oid)
FROM pg_class AS c WHERE c.relnamespace = 'tally'::regnamespace AND c.relkind = 'v'
UNION ALL
SELECT 'constraint ' || k.conrelid::regclass || ' ' || k.conname || ' ' || pg_get_constraintdef(k.oid)
FROM pg_constraint AS k WHERE k.conrelid IN (SELECT oid FROM held)
UNION ALL
SELECT 'index ' || pg_get_indexdef(i.indexrelid) || coalesce(' -- ' || obj_description(i.indexrelid, 'pg_class'), '')
FROM pg_index AS i WHERE i.indrelid IN (SELECT oid FROM held) OR i.indrelid = 'public.sale'::regclass
UNION ALL
SELECT 'function ' || pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '')
    || coalesce(' -- ' || obj_description(p.oid, 'pg_proc'), '')
FROM pg_proc AS p WHERE p.pronamespace = 'tally'::regnamespace
UNION ALL
SELECT 'trigger ' || pg_get_triggerdef(g.oid) || ' ' || g.tgenabled::text
FROM pg_trigger AS g WHERE NOT g.tgisinternal
ORDER BY 1
"""


def catalog_of(connection: Connection) -> list[str]:
    """Relations, columns, constraints, indexes, functions and triggers of schema tally, with the rights on them.

    Numbers of versions are left out.
    """
    return [re.sub(r"\bversion = \d+", "version = n", line) for (line,) in connection.execute(LISTED).fetchall()]
