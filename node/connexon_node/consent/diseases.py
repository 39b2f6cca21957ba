"""Diseases of a consent, held against the center's ontologies before anything is recorded."""

from __future__ import annotations

from connexon_node.consent.profile import ConsentProfile
from connexon_node.ontology import Ontologies


def require_known(profile: ConsentProfile, ontologies: Ontologies) -> None:
    """Raise InvalidQuery where a disease is unknown or obsolete: such a consent would never permit anything.

    While the center has no ontology of diseases nothing can be said; then the consent permits nothing until it has one.
    """
    for disease in sorted(profile.diseases):
        if ontologies.version(disease.partition(":")[0]):
            ontologies.resolve(disease)
