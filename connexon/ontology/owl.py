"""Reading OWL as it is published: RDF/XML with named classes. Only rdfs:subClassOf between named classes counts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from connexon.errors import Misconfigured
from connexon.ontology.source import Source

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_RDFS = "{http://www.w3.org/2000/01/rdf-schema#}"
_OWL = "{http://www.w3.org/2002/07/owl#}"
_OBO = "{http://purl.obolibrary.org/obo/}"
_IN_OWL = "{http://www.geneontology.org/formats/oboInOwl#}"
_IRI = re.compile(r".*[/#]([A-Za-z][A-Za-z0-9]*)_([A-Za-z0-9.-]+)\Z")
_EIGHT_DIGITS = re.compile(r"DUO:0(\d{7})\Z")


def read_owl(path: Path) -> Source:
    """Read an OWL file. Raises Misconfigured where it is not RDF/XML."""
    source = Source(path.name)
    try:
        for element in _top_level(path):
            if element.tag == f"{_OWL}Ontology":
                _ontology(source, element)
            elif element.tag == f"{_OWL}Class":
                _class(source, element)
            element.clear()
    except ElementTree.ParseError as error:
        raise Misconfigured(
            f"{path.name} line {error.position[0]}: this is not OWL in RDF/XML.", code="ontology.unreadable"
        ) from error
    return source


def _top_level(path: Path) -> Iterator[ElementTree.Element]:
    depth = 0
    for event, element in ElementTree.iterparse(path, events=("start", "end")):  # noqa: S314 - expat loads nothing external and bounds the growth of entities
        depth += 1 if event == "start" else -1
        if event == "end" and depth == 1:
            yield element


def _ontology(source: Source, element: ElementTree.Element) -> None:
    iri = element.get(f"{_RDF}about", "")
    source.prefix = iri.rsplit("/", 1)[-1].partition(".")[0]
    version = element.find(f"{_OWL}versionIRI")
    info = element.findtext(f"{_OWL}versionInfo")
    source.version = (version.get(f"{_RDF}resource", "") if version is not None else "") or (info or "").strip()


def _class(source: Source, element: ElementTree.Element) -> None:
    term_id = _curie(element.get(f"{_RDF}about", ""))
    if not term_id:
        return
    term = source.term(term_id)
    term.label = " ".join((element.findtext(f"{_RDFS}label") or "").split()) or term.label
    for synonym in element.findall(f"{_IN_OWL}hasExactSynonym"):
        term.synonyms.add(" ".join((synonym.text or "").split()))
    term.synonyms.discard("")
    for above in element.findall(f"{_RDFS}subClassOf"):
        parent = _curie(above.get(f"{_RDF}resource", ""))
        if parent:
            term.parents.add(parent)
    for other in element.findall(f"{_IN_OWL}hasAlternativeId"):
        alternative = (other.text or "").strip()
        if re.fullmatch(r"[A-Za-z0-9]+:[A-Za-z0-9.-]+", alternative):
            term.alternatives.add(alternative)
    term.obsolete = (element.findtext(f"{_OWL}deprecated") or "").strip() == "true"
    for replacement in element.findall(f"{_OBO}IAO_0100001"):
        replaced_by = _curie(replacement.get(f"{_RDF}resource", "") or (replacement.text or "").strip())
        if replaced_by:
            term.replaced_by.add(replaced_by)


def _curie(iri: str) -> str:
    """PREFIX:LOCAL of http://.../PREFIX_LOCAL; empty for what is not a term. DUO's one misspelled id is set right."""
    match = _IRI.match(iri)
    curie = f"{match[1]}:{match[2]}" if match else (iri if re.fullmatch(r"[A-Za-z]+:[0-9]+", iri) else "")
    misspelled = _EIGHT_DIGITS.match(curie)
    return f"DUO:{misspelled[1]}" if misspelled else curie
