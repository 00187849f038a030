"""Under which salt a tenant's KV is kept, so that how fast an answer comes tells nobody what another tenant asked."""

import hashlib


def tenant_salt(tenant: str, salt: str) -> str:
    """The cache salt of a tenant's request: another one for each tenant, and for each salt that a client chose.

    Args:
        tenant: whose request it is; without one the client's salt is the salt.
        salt: the client's own; empty for what all of the tenant share.
    """
    if not tenant:
        return salt
    # A tenant's name has no newline, so no two pairs are one text.
    return hashlib.sha256(f"{tenant}\n{salt}".encode()).hexdigest()
