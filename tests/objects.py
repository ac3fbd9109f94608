"""What a database holds beside PostgreSQL's own objects, to be compared before and after."""

from typing import LiteralString

from tests.servers import Connection

FIRST_OWN_OID = 16384
LISTED: LiteralString = """
SELECT 'schema ' || nspname FROM pg_namespace WHERE oid >= %(first)s AND nspname !~ '^pg_(toast_)?temp_'
UNION ALL
SELECT 'relation ' || oid::regclass || ' ' || relkind::text || relpersistence::text FROM pg_class
WHERE oid >= %(first)s AND relkind <> 't' AND relnamespace::regnamespace::text !~ '^pg_toast'
UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE oid >= %(first)s
UNION ALL SELECT 'type ' || oid::regtype FROM pg_type WHERE oid >= %(first)s
UNION ALL SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass || ' ' || tgenabled::text FROM pg_trigger
UNION ALL SELECT 'rule of ' || ev_class::regclass || ' ' || pg_get_ruledef(oid) FROM pg_rewrite WHERE oid >= %(first)s
ORDER BY 1
"""


def objects(connection: Connection) -> list[str]:
    """Schemas, relations, functions, types, triggers and views' queries, one line each."""
    return [line for (line,) in connection.execute(LISTED, {"first": FIRST_OWN_OID}).fetchall()]
