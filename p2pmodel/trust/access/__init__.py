"""Which client may do what: subjects, rules, machine tokens, LDAP users and OIDC tokens."""
