"""Who takes part: the authority, invitations, certificates, members, and the roster that is published.

Callers and peers are identified by what they prove, and whoever is not an active member is turned away.
"""
