"""The node: a center's data, consent, policy, release, audit and answers. It dials out; nobody dials in."""
