"""Consent: what each donor agreed to, and which donors a purpose may count."""
