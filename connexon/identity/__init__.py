"""Who is who: keys, certificates, credentials, invitations, revocations and the signed roster that names all members.

Whole identities are compared, and whatever the roster's authority or a member has not signed counts for nothing.
"""
