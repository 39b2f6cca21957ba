"""The demo: a hub and four centers on this machine, and a researcher who asks them.

    python -m deploy.local.demo [--keep] [--folder DIR]

Everything is done with the commands that stewards, operators and researchers type; the demo shows each one.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pyarrow import parquet
from rich.console import Console
from rich.rule import Rule

from deploy.local.federation import Center, LocalFederation, Researcher
from deploy.local.line import Line
from deploy.local.processes import LauncherError, command, run_json

OUT = Console(highlight=False, width=min(100, Console().width))
SLOW_LINE_SECONDS = 0.25
"""Each way, for the center at the end of a slow line."""

NO_COMMERCE = """\
@id("lyon.no_commercial_use")
@says("Lyon's hospital board does not allow answers that serve a commercial use.")
forbid (principal, action == Action::"count", resource)
when { context.purpose.commercial };
"""


WITHDRAWING = 3
PROTEINS = 18
RECIPE = Path(__file__).parents[2] / "docs" / "recipes" / "differentiation-success.yaml"
HEALTH_RESEARCH = "DUO:0000006"


@dataclass(frozen=True)
class Plan:
    """One center of the demo."""

    name: str
    legal_name: str
    country: str
    kind: str
    donors: int
    seed: int
    release: dict[str, int]


PLANS = (
    Plan("kyoto", "Kyoto iPS Cell Bank", "JP", "public", 900, 1, {"minimum_donors": WITHDRAWING, "round_to": 1}),
    Plan("lyon", "Hospices de Lyon Cell Center", "FR", "public", 400, 2, {"minimum_donors": 5, "round_to": 5}),
    Plan("boston", "Boston Stem Cell Institute", "US", "academic", 600, 3, {"minimum_donors": 20, "round_to": 5}),
    Plan("adelaide", "Adelaide Cell Therapies", "AU", "non_profit", 500, 4, {"minimum_donors": 5, "round_to": 5}),
)
LATE = "adelaide"
SLOW = "boston"
GRANTING = ("kyoto", "lyon")
PROJECT = "atlas"
EXACT = ("--exact", "--project", PROJECT)


def main() -> None:
    """Run the demo; status 1 when something did not work."""
    options = _options()
    folder = Path(options.folder).resolve()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    started = time.monotonic()
    federation = LocalFederation(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Line(federation.link_address, delay=SLOW_LINE_SECONDS) as line:
            _play(federation, line)
            OUT.print(f"\n[bold green]The demo took {time.monotonic() - started:.0f} s.[/]")
            if options.keep:
                _keep(federation)
    except LauncherError as error:
        OUT.print(f"[bold red]The demo failed:[/] {error}", markup=True)
        sys.exit(1)
    finally:
        federation.stop()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A hub and four centers on this machine, and a researcher.")
    parser.add_argument("--keep", action="store_true", help="leave it running until Ctrl-C and say how to connect")
    parser.add_argument("--folder", default=".demo", help="where everything is kept; emptied first")
    return parser.parse_args()


def _play(federation: LocalFederation, line: Line) -> None:
    ada = _set_up(federation, line)
    late = next(plan for plan in PLANS if plan.name == LATE)
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(_join_and_fill, federation, late, line)
        _ask_first(ada)
        joining.result()
    _join_late(federation)
    _count(ada)
    _grant(federation, ada)
    _withdraw(federation, ada)
    _stop_and_return(federation, ada)
    _operator(federation)
    _train(federation, ada)


def _set_up(federation: LocalFederation, line: Line) -> Researcher:
    _chapter("A federation is founded", "The root key that signs the roster lies apart from the hub.")
    federation.make_hub()
    _say("connexon-hub init --federation alliance --root-dir root; connexon-hub serve")
    early = [plan for plan in PLANS if plan.name != LATE]
    with ThreadPoolExecutor(len(early)) as pool:
        for plan in pool.map(lambda plan: _join_and_fill(federation, plan, line), early):
            _say(f"connexon-hub invite {plan.name} --country {plan.country}; connexon-node join cnx1-...")
    federation.centers["lyon"].add_policy("no_commercial_use.cedar", NO_COMMERCE)
    federation.sign_roster()
    _say("connexon-hub roster update --root-dir root   # the root key makes them members")
    federation.start(*(plan.name for plan in early))
    _chapter("A researcher is accredited", "Ada makes her own key; her home center in Kyoto vouches for it.")
    ada = federation.accredit("ada", home="kyoto", name="Ada Lovelace")
    _show(ada, "whoami")
    return ada


def _join_and_fill(federation: LocalFederation, plan: Plan, line: Line) -> Plan:
    address = line.address if plan.name == SLOW else None
    center = federation.join_center(
        plan.name, legal_name=plan.legal_name, country=plan.country, kind=plan.kind, link_address=address
    )
    center.set("release", **plan.release)
    _fill(center, plan)
    return plan


def _fill(center: Center, plan: Plan) -> None:
    center.command("ontology", "add", "--demo")
    center.command(
        *("sample", "--donors", str(plan.donors), "--seed", str(plan.seed)),
        *("--center", plan.name, "--only", "science", "--features", str(PROTEINS), "--import"),
    )


def _ask_first(ada: Researcher) -> None:
    _chapter("What is there?", "Every center answers for itself, for this purpose.")
    _show(ada, "catalog", "--purpose", "health")


def _join_late(federation: LocalFederation) -> None:
    _chapter("A center joins late", "Adelaide has joined meanwhile, and counts as soon as the root has signed.")
    federation.sign_roster()
    federation.start(LATE)
    _say("connexon-hub members")
    OUT.print(federation.hub_command("members"), markup=False)


def _count(ada: Researcher) -> None:
    by_type = ("count", "cell_lines", "--by", "type", "--purpose", "health")
    _chapter(
        "One question, every center",
        "How many donors have lines of each type? Noise hides every single donor: each number has its interval (±). "
        "Boston sits at the end of a slow line.",
    )
    _show(ada, *by_type)
    _chapter(
        "What closer numbers cost",
        "Each center has an account of what it may tell of its donors. Numbers within 8 cost more than within 15. "
        "What was paid already counts.",
    )
    _show(ada, *by_type, "--within", "8", "--price")
    _chapter("The same for a company's product", "Lyon's own rule forbids it; the others' consents decide.")
    _show(ada, "count", "cell_lines", "--where", "type = 'iPSC'", "--purpose", "health", "--commercial")
    _chapter("Consent for one disease", "Only donors whose consent covers Parkinson disease, or more, are counted.")
    _show(
        ada,
        *("count", "donors", "--where", "primary_disease_term under MONDO:0005180"),
        *("--purpose", "disease=MONDO:0005180"),
    )


def _grant(federation: LocalFederation, ada: Researcher) -> None:
    _chapter(
        "Exact numbers, where a steward grants them",
        "Kyoto and Lyon grant them to Ada's project. No number rests on fewer donors than a center's minimum.",
    )
    for name in GRANTING:
        _say(f"connexon-node grant give {ada.id} --project {PROJECT} --because '...'   # in {name.title()}")
    federation.grant_exact(ada, *GRANTING, project=PROJECT)
    _show(ada, "count", "cell_lines", "--by", "disease_term", "--purpose", "health", *EXACT)


def _withdraw(federation: LocalFederation, ada: Researcher) -> None:
    _chapter(
        "Donors withdraw",
        f"From the next question on, nobody reads their rows. A granted number shows it when {WITHDRAWING} donors have "
        "gone: fewer would tell who they were.",
    )
    question = ("count", "donors", "--centers", "kyoto", "--purpose", "health", *EXACT)
    _show(ada, *question)
    kyoto = federation.centers["kyoto"]
    donors = _consenting_donors(kyoto, WITHDRAWING)
    for donor in donors:
        _say(f"connexon-node consent withdraw {donor}")
    with ThreadPoolExecutor(WITHDRAWING) as pool:
        list(pool.map(lambda donor: kyoto.command("consent", "withdraw", donor, "--because", "letter"), donors))
    _show(ada, *question)


def _consenting_donors(center: Center, count: int) -> list[str]:
    """Donors of the center's sample whose one consent covers health research."""
    forms = parquet.read_table(center.folder / f"sample-{center.name}" / "consents.parquet").to_pylist()
    signed = Counter(form["donor_id"] for form in forms)
    consenting = [
        form["donor_id"]
        for form in forms
        if form["duo_permission"] == HEALTH_RESEARCH
        and form["status"] == "active"
        and not form["modifiers"]
        and signed[form["donor_id"]] == 1
    ]
    return consenting[:count]


def _stop_and_return(federation: LocalFederation, ada: Researcher) -> None:
    _chapter("A center is away", "Its part of the answer waits; nothing is lost, nothing is asked twice.")
    federation.centers["lyon"].service.stop()
    _say("(Lyon's node is stopped)")
    _show(ada, "count", "lots", "--by", "status", "--purpose", "health", "--wait", "2")
    query = run_json(["connexon", "queries"], environment=ada.environment)["queries"][0]["query_id"]
    federation.start("lyon")
    _say("(Lyon's node is back)")
    _show(ada, "result", query, "--wait", "20")


def _operator(federation: LocalFederation) -> None:
    _chapter(
        "What the operator sees, and a steward",
        "Kyoto's steward sees what its donors' account has paid for, and proves that nobody changed the audit log.",
    )
    _say("connexon-hub status")
    OUT.print(federation.hub_command("status"), markup=False)
    _say("connexon-node budget list   # in Kyoto")
    OUT.print(federation.centers["kyoto"].command("budget", "list"), markup=False)
    _say("connexon-node audit verify   # in Kyoto")
    OUT.print(federation.centers["kyoto"].command("audit", "verify"), markup=False)


def _train(federation: LocalFederation, ada: Researcher) -> None:
    _chapter(
        "One model over four centers",
        "Which differentiation runs will succeed, told from their first two weeks? The rows stay where they are.",
    )
    recipe = federation.folder / "recipe.yaml"
    # A few rounds: each has to travel Boston's slow line four times.
    recipe.write_text(RECIPE.read_text().replace("rounds: 10", "rounds: 3"))
    _show(ada, "train", str(recipe), "--project", "early-stop")
    _show(ada, "models")


def _keep(federation: LocalFederation) -> None:
    ada = federation.researchers["ada"]
    OUT.print(Rule())
    OUT.print("The federation goes on until Ctrl-C. In another terminal:")
    OUT.print(f"  export CONNEXON_HOME={shlex.quote(str(ada.home))}", soft_wrap=True, markup=False)
    OUT.print(f"  {command('connexon')} catalog", soft_wrap=True, markup=False)
    OUT.print(f"  {command('connexon-hub')} status --dir {federation.hub_folder}", soft_wrap=True, markup=False)
    OUT.print(
        f"  {command('connexon-node')} audit list --dir {federation.centers['kyoto'].folder}",
        soft_wrap=True,
        markup=False,
    )
    try:
        signal.pause()
    except KeyboardInterrupt:
        OUT.print("\nEnding the federation ...")


def _chapter(title: str, sentence: str) -> None:
    OUT.print()
    OUT.print(Rule(f"[bold]{title}[/]", align="left"))
    OUT.print(sentence, style="italic")


def _say(text: str) -> None:
    OUT.print(f"$ {text}", style="cyan", markup=False)


def _show(who: Researcher, *arguments: str) -> None:
    """Run connexon for the researcher on this very terminal, as they would see it."""
    _say(f"connexon {' '.join(map(_quoted, arguments))}")
    sys.stdout.flush()
    result = subprocess.run(
        [command("connexon"), *arguments], env={**_environment(), **who.environment}, check=False, timeout=120
    )
    if result.returncode not in (0, 3):
        raise LauncherError(f"connexon {shlex.join(arguments)} ended with {result.returncode}")


def _quoted(argument: str) -> str:
    """As people quote it: "type = 'iPSC'"."""
    return f'"{argument}"' if "'" in argument and not set(argument) & set('"$`\\!') else shlex.quote(argument)


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": str(OUT.width)}


if __name__ == "__main__":
    main()
