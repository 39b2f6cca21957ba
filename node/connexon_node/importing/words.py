"""Words of centers' spreadsheets, in the languages that they are kept in, and the fields and values that they mean.

Column names and values are compared after pseudonymity.plain: small Latin letters, words joined by underscores.
"""

from __future__ import annotations

_SYNONYMS: dict[str, str] = {
    "sex": "gender geschlecht sexe seibetsu sexo sesso donor_sex donor_gender biological_sex",
    "primary_disease_term": (
        "disease diagnosis diagnose diagnostic krankheit maladie shikkan indication condition "
        "phenotype_disease disease_name hauptdiagnose primary_diagnosis diagnosi diagnostico enfermedad "
        "malattia erkrankung disease_status donor_disease disease_label "
    ),
    "disease_term": (
        "disease diagnosis diagnose diagnostic krankheit maladie shikkan indication condition "
        "phenotype_disease disease_name hauptdiagnose primary_diagnosis diagnosi diagnostico enfermedad "
        "malattia erkrankung disease_status donor_disease disease_label "
    ),
    "age_range_y": (
        "age_range age_group altersgruppe age alter age_at_donation age_y age_years edad eta nenrei "
        "lebensalter age_at_sampling donor_age alter_bei_spende age_donneur age_in_years alter_jahre "
        "age_au_don age_at_biopsy "
    ),
    "ancestry_term": "ancestry ethnicity ethnie origin herkunft origine population race",
    "country_iso2": "country land pays pais paese country_of_donation country_code kuni",
    "phenotype_terms": "phenotype phenotypes hpo hpo_terms symptoms symptome phanotyp",
    "eligibility": "eligible donor_eligibility eignung spendereignung eligibilite",
    "donor_id": (
        "donor donor_id spender spender_id spendernummer donneur donneur_id donor_code id_donneur patient "
        "patient_id patient_code subject subject_id participant participant_id proband probanden_id "
        "individual pseudonym donor_no donor_nr donante donatore spender_code code_donneur code_patient "
        "donor_pseudonym donor_ref biosamples_donor_id "
    ),
    "cell_line_id": (
        "cell_line line line_id zelllinie lignee cell_line_name line_name zelllinien_id clone ipsc_line linie "
        "lignee_cellulaire linea linea_celular linea_cellulare cellline cell_line_id linien_id line_code "
        "saibou_kabu ips_line cell_line_code "
    ),
    "lot_id": (
        "lot batch charge lot_number charge_nr batch_id lot_id batch_no batch_number chargennummer lot_nr "
        "numero_de_lot no_lot n_lot lote lotto bank_id charge_no lotnummer n_de_lot bank lot_code "
    ),
    "lot_no": (
        "lot batch charge lot_number charge_nr batch_id lot_id batch_no batch_number chargennummer lot_nr "
        "numero_de_lot no_lot n_lot lote lotto bank_id charge_no lotnummer n_de_lot bank lot_code "
    ),
    "biosample_id": "biosamples_id biosample biosamples ebi_biosample",
    "passage_no": (
        "passage passage_number p passages ip_passage_number passagenummer passage_nr pasaje passaggio keidai "
    ),
    "frozen_on": (
        "frozen freeze_date date_frozen eingefroren freezing_date eingefroren_am einfrierdatum "
        "date_congelation date_de_congelation cryo_date banked_on date_banked fecha_congelacion "
    ),
    "expiry_on": (
        "expiry expiry_date expires haltbar_bis expiration expiration_date verfall verfallsdatum "
        "date_peremption date_de_peremption use_by "
    ),
    "vials_made": (
        "vials no_of_vials number_of_vials vials_frozen anzahl_vials ampullen anzahl_ampullen nb_ampoules "
        "nombre_ampoules nombre_de_tubes vials_banked vial_count anzahl_rohrchen "
    ),
    "cells_per_vial_1e6": (
        "cells_per_vial cells_vial zellen_pro_ampulle zellzahl zellen_pro_vial cellules_par_ampoule "
        "cellules_par_tube cell_number cells_vial_1e6 "
    ),
    "hpscreg_name": "hpscreg hpscreg_id h_psc_reg hpscreg_identifier h_pscreg standard_name",
    "rrid": "cellosaurus cvcl cellosaurus_id cellosaurus_accession",
    "bank_level": (
        "bank level bank_type bankebene banking_level typ_der_bank niveau_banque banque type_de_banque "
        "bank_stage bankstufe "
    ),
    "type": ("cell_type line_type kind typ art zelltyp tipo type_de_lignee stem_cell_type derivation "),
    "grade": "quality_grade use_grade qualitat qualite gmp_grade calidad intended_use verwendung",
    "source_cell_term": (
        "source_cell tissue source_cell_type starting_cell primary_cell primary_cell_type ausgangszelle "
        "ausgangszellen gewebe cellule_source cellule_d_origine tissu cell_of_origin source_tissue "
        "somatic_cell celula_de_origen "
    ),
    "reprogramming_method": (
        "reprogramming method vector reprogrammierung reprogrammierungsmethode vektor "
        "methode_de_reprogrammation reprogrammation vector_type derivation_method "
    ),
    "vector_detectable": "vector_detected residual_vector vector_present vektor_nachweisbar",
    "genetic_modification": "modification edited gene_edited editing genmodifikation modification_genetique",
    "derived_on": ("derivation_date date_derived hergestellt_am date_de_derivation established etabliert_am "),
    "xeno_free": "xenofree xenofrei animal_free xeno",
    "gmp": "gmp_compliant gmp_konform bpf cgmp",
    "status": (
        "state zustand etat stato estado statut consent_status lot_status einwilligungsstatus freigabe release_status "
    ),
    "availability": "available verfugbar verfugbarkeit disponibilite disponible distribution",
    "duo_permission": "duo consent_code duo_code permission data_use duo_term",
    "modifiers": "duo_modifiers restrictions conditions",
    "obtained_on": (
        "consent_date date_of_consent einwilligungsdatum signed_on date_signed unterschrieben_am "
        "date_consentement date_de_consentement signature_date einwilligung_vom date_de_signature "
    ),
    "withdrawn_on": "withdrawal_date date_withdrawn widerruf widerrufen_am date_de_retrait withdrawn",
    "expires_on": "consent_expiry consent_until gultig_bis valid_until valable_jusqu_au",
    "form_version": (
        "version consent_form consent_version formular formularversion version_formulaire form "
        "version_du_formulaire fassung consent_form_version "
    ),
    "scope": "consent_scope umfang portee use research_or_clinical nutzung type_of_consent",
    "ethics_body": "ethics_committee irb rec ethikkommission comite_ethique comite_d_ethique cpp",
    "ethics_approval_no": (
        "ethics_no approval_number irb_number rec_reference ethikvotum votum_nr ethics_approval numero_cpp "
        "approval_no aktenzeichen_ethik "
    ),
    "attribute": (
        "test parameter analyte assay prufung merkmal parametre essai test_name prufmerkmal attribut analysis "
        "analyse marker test_parameter ensayo "
    ),
    "method": "methode technique verfahren assay_method metodo prufmethode",
    "value_num": "value result wert ergebnis resultat valeur messwert resultado numeric_result",
    "value_text": "result_text befund text_result bemerkung_ergebnis interpretation",
    "unit": "units einheit unite unidad uom",
    "tested_on": (
        "test_date date datum date_tested gepruft_am date_du_test prufdatum analysis_date fecha measured_on "
        "date_of_test date_essai "
    ),
    "analyst_code": "analyst_id code_analyste",
    "verdict": (
        "pass_fail outcome bewertung conformite urteil conclusion conform bestanden pass conforme "
        "result_verdict ok status "
    ),
    "lod": "limit_of_detection nachweisgrenze limite_de_detection detection_limit",
    "comparator": "operator_sign vergleich sign",
    "instrument": "device gerat appareil equipment machine",
    "lab_center_id": "lab laboratory labor laboratoire testing_lab",
    "location_code": "location position storage_location lagerort emplacement freezer tank lagerplatz",
    "vial_no": "vial_number vial_nr tube_no ampulle_nr numero_ampoule",
    "storage_condition": "storage lagerung storage_temperature conservation stockage",
    "state": "status vial_status zustand etat statut",
}
"""By field, what a column of it is called, in every dataset that has it."""

_IDS: dict[str, str] = {
    "donors": (
        "donor donor_id spender spender_id spendernummer donneur donneur_id donor_code id_donneur patient "
        "patient_id patient_code subject subject_id participant participant_id proband probanden_id "
        "individual pseudonym donor_no donor_nr donante donatore spender_code code_donneur code_patient "
        "donor_pseudonym donor_ref biosamples_donor_id "
    ),
    "cell_lines": (
        "cell_line line line_id zelllinie lignee cell_line_name line_name zelllinien_id clone ipsc_line linie "
        "lignee_cellulaire linea linea_celular linea_cellulare cellline cell_line_id linien_id line_code "
        "saibou_kabu ips_line cell_line_code "
    ),
    "lots": (
        "lot batch charge lot_number charge_nr batch_id lot_id batch_no batch_number chargennummer lot_nr "
        "numero_de_lot no_lot n_lot lote lotto bank_id charge_no lotnummer n_de_lot bank lot_code "
    ),
    "consents": "consent_id einwilligung einwilligungs_id consent consent_no consentement form_id",
    "vials": (
        "vial vial_id tube tube_id barcode ampulle ampullen_id ampoule aliquot aliquot_id vial_biosample vial_code "
    ),
    "quality_tests": "test_id result_id qc_id prufnummer test_no analysis_id record_id lfd_nr nr no",
    "samples": "sample sample_id probe proben_id echantillon probennummer",
}
"""By dataset, what its own id is called."""

_MEANINGS: dict[str, str] = {
    "female": "f w female weiblich femme feminin woman josei mujer femminile fem",
    "male": "m male mannlich homme masculin man dansei hombre maschile h",
    "yes": "y yes ja oui true 1 hai j si x o wahr vrai",
    "no": "n no nein non false 0 iie falsch faux",
    "unknown": "u unk unknown unbekannt inconnu not_known fumei desconocido",
    "iPSC": "ips ipsc hipsc ipsc_line ips_cells hips ips_zelle ips_zellen cspi",
    "ESC": "esc hesc es embryonic es_zelle cse",
    "derived": "subclone derivative edited subklon abgeleitet derivee",
    "MCB": "master master_cell_bank master_bank mcb_bank masterbank banque_maitresse",
    "WCB": "working working_cell_bank working_bank wcb_bank arbeitsbank banque_de_travail",
    "seed": "seed_bank seed_stock pre_bank",
    "research": "rug research_grade forschung recherche ruo r_d research_use_only",
    "clinical": "clinical_grade klinisch clinique gmp_grade gmp",
    "released": "freigegeben libere ok approved frei release",
    "rejected": "abgelehnt refuse rejete discarded",
    "quarantine": "in_quarantane quarantane quarantaine on_hold pending",
    "exhausted": "aufgebraucht epuise empty depleted used_up",
    "active": "aktiv actif valid gultig valide in_force signed given",
    "withdrawn": "widerrufen revoked retire withdrawn_consent retiree",
    "expired": "abgelaufen expiree expire lapsed",
    "pass": "bestanden passed conforme conform i_o io reussi ok_pass p",
    "fail": "nicht_bestanden failed non_conforme n_i_o nio echec",
    "inconclusive": "unklar inconclusif repeat borderline grenzwertig",
    "sendai": "sendai_virus sev cytotune cytotune_2 sendaivirus sendai_virus_sev",
    "episomal": "episome episomes episomal_plasmid episomal_vector episomal_plasmids episomale",
    "mrna": "rna mrna_transfection modified_rna synthetic_mrna",
    "lentivirus": "lenti lentiviral lentiviral_vector",
    "retrovirus": "retro retroviral retroviral_vector",
    "stored": "in_storage banked eingelagert gelagert stocke available vorhanden",
    "shipped": "verschickt versandt expedie sent",
    "used": "verbraucht thawed aufgetaut utilise consumed",
    "nitrogen_vapor": "vapor vapour ln2_vapor ln2_gas_phase stickstoff_gasphase vapour_phase",
    "nitrogen_liquid": "liquid ln2 ln2_liquid liquid_nitrogen stickstoff",
    "-85_to_-60": "80 80c 80_c freezer_80 minus_80",
}
"""By a word of the dictionary, what is said for it. Where a field does not allow it, it is no meaning of it."""

_COUNTRIES: dict[str, str] = {
    "DE": "germany deutschland allemagne ger deu",
    "FR": "france frankreich fra francia",
    "GB": "united_kingdom uk great_britain england gbr grossbritannien royaume_uni",
    "IT": "italy italien italie italia ita",
    "ES": "spain spanien espagne espana esp",
    "JP": "japan japon jpn nihon nippon",
    "CN": "china chine chn",
    "US": "usa united_states united_states_of_america etats_unis vereinigte_staaten",
    "CH": "switzerland schweiz suisse svizzera che",
    "AT": "austria osterreich autriche aut",
    "NL": "netherlands niederlande pays_bas nld holland",
    "BE": "belgium belgien belgique bel",
    "SE": "sweden schweden suede swe",
    "DK": "denmark danemark dnk",
    "KR": "korea south_korea kor republic_of_korea",
}
"""By ISO 3166-1; the names of other countries are for a person to tell."""

_NO_DISEASE = (
    "aucune control gesund healthy healthy_control healthy_donor keine kenjou kontrolle n_a na no_disease "
    "none normal sain sano temoin unaffected wild_type wt "
)
"""What says that no disease was diagnosed, for which the dictionary has a missing value."""

SYNONYMS = {field: tuple(words.split()) for field, words in _SYNONYMS.items()}
IDS = {dataset: tuple(words.split()) for dataset, words in _IDS.items()}
MEANINGS = {word: meaning for meaning, words in _MEANINGS.items() for word in words.split()}
COUNTRIES = {word: country for country, words in _COUNTRIES.items() for word in words.split()}
_STAFF = (
    "analyst operator tester prufer analyste operateur technician performed_by tested_by checked_by released_by "
    "frozen_by bearbeiter freigegeben_von gepruft_von realise_par techniker verantwortlich responsible scientist user"
)
"""Columns with people of the center: nobody's consent is asked for them, and nothing of theirs is loaded."""
DUO = {
    "nres": "DUO:0000004",
    "no_restriction": "DUO:0000004",
    "gru": "DUO:0000042",
    "general_research_use": "DUO:0000042",
    "general_research": "DUO:0000042",
    "hmb": "DUO:0000006",
    "health_research": "DUO:0000006",
    "health_medical_biomedical": "DUO:0000006",
    "poa": "DUO:0000011",
}
"""Permissions by their shorthand; a disease-specific one (DS) needs its disease, which a person must write."""
NO_DISEASE, STAFF = frozenset(_NO_DISEASE.split()), frozenset(_STAFF.split())
