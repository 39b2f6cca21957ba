"""Asking: catalog, count, result, queries, cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connexon.cli import completing
from connexon.cli.joining import JsonOption
from connexon.cli.stopping import until_stopped
from connexon.console import ERR, OUT, indented, print_json, require_writable

if TYPE_CHECKING:
    from connexon.client.answer import Answer
    from connexon.client.network import Network, Summary
    from connexon.client.terms import Terms

SOME_HAVE_NOT = 3
"""Exit status when a center has not answered."""

PurposeOption = Annotated[
    str | None,
    typer.Option(
        "--purpose",
        "-p",
        help="Why you ask: health, general, disease=MONDO:0005180, ... (several with commas).",
        autocompletion=completing.purposes,
    ),
]
ProjectOption = Annotated[str | None, typer.Option("--project", help="Your project, as your center knows it.")]
EthicsOption = Annotated[str, typer.Option("--ethics", help="Reference of the ethics approval.")]
CommercialOption = Annotated[bool, typer.Option("--commercial", help="The result serves a commercial use.")]
CentersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--centers",
        "-c",
        help="Ask only these (repeat, or a,b). Default: every center.",
        autocompletion=completing.centers,
    ),
]
WaitOption = Annotated[
    float, typer.Option("--wait", "-w", min=0, help="Seconds to wait for centers that are connected.")
]
WaitForAllOption = Annotated[
    bool, typer.Option("--wait-for-all", help="Wait also for centers that are not connected at the moment.")
]
ExpiresOption = Annotated[
    str, typer.Option("--expires", help="How long a center that is down may take to answer: 90m, 12h, 7d.")
]
WithinOption = Annotated[
    int | None,
    typer.Option(
        "--within",
        min=1,
        max=1_000,
        help="How close each center's number must be, plus or minus with 95 %.",
        show_default="each center's own, usually 15",
    ),
]
AllOption = Annotated[
    bool, typer.Option("--all", help="Show every group, also those too small to tell from none through the noise.")
]
PriceOption = Annotated[
    bool, typer.Option("--price", help="Show what the answer would cost and what is left, and ask nothing.")
]
RecordsOption = Annotated[bool, typer.Option("--records", help="Count records instead of distinct donors.")]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="Exact numbers, from centers whose steward has granted them to your project.")
]
PublishedOption = Annotated[
    bool, typer.Option("--published", help="Count only what centers have published of their banks; exact.")
]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print the numbers as CSV.")]
ToOption = Annotated[
    Path | None, typer.Option("--to", help="Write the answer to this file too: .csv, .json or .parquet.")
]
QueryArgument = Annotated[
    str,
    typer.Argument(
        metavar="QUERY_ID", help="As count and queries show it, or how it begins.", autocompletion=completing.queries
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (catalog, count, result, why, queries, cancel):
        app.command()(command)


def catalog(
    dataset: Annotated[
        str, typer.Argument(help="Show the fields of this one.", autocompletion=completing.datasets, show_default=False)
    ] = "",
    purpose: PurposeOption = None,
    project: ProjectOption = None,
    ethics: EthicsOption = "",
    commercial: CommercialOption = False,
    centers: CentersOption = None,
    wait: WaitOption = 60,
    wait_for_all: WaitForAllOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the datasets that centers offer for a purpose, and how many donors it reaches; of one, its fields."""
    from connexon.analyses.describe import Describe

    terms = _terms(purpose, project, ethics, commercial, centers, wait, wait_for_all, "1h", fallback="general")
    _ask(lambda network, terms: network.ask(dataset, None, Describe(), terms), terms, as_json=as_json)


def count(
    dataset: Annotated[str, typer.Argument(help="For example cell_lines.", autocompletion=completing.datasets)],
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            help="Which records: \"disease_term under MONDO:0005180 and type = 'iPSC'\". Several must all hold.",
        ),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", "-b", help="Count by this field (repeat, or a,b).", autocompletion=completing.fields),
    ] = None,
    purpose: PurposeOption = None,
    project: ProjectOption = None,
    ethics: EthicsOption = "",
    commercial: CommercialOption = False,
    centers: CentersOption = None,
    wait: WaitOption = 60,
    wait_for_all: WaitForAllOption = False,
    expires: ExpiresOption = "7d",
    records: RecordsOption = False,
    exact: ExactOption = False,
    published: PublishedOption = False,
    within: WithinOption = None,
    price: PriceOption = False,
    show_all: AllOption = False,
    as_csv: CsvOption = False,
    to: ToOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count distinct donors at every center; of a dataset that belongs to no person, its records.

    Conditions: = != < <= > >=, in (A, B), between A and B, is missing, under TERM; joined by and, or, not.

    Other rows: cell_line.donor.sex = 'female'; has karyotype_findings (change = 'gain'); descends_from('UKKi023-A').
    """
    from dataclasses import replace

    from connexon.analyses.count import Count
    from connexon.analyses.spec import Kind, Unit
    from connexon.conditions import where as conditions
    from connexon.conditions.filters import All

    filters = [conditions.parse(text) for text in where or ()]
    condition = (filters[0] if len(filters) == 1 else All(tuple(filters))) if filters else None
    terms = _terms(purpose, project, ethics, commercial, centers, wait, wait_for_all, expires)
    terms = replace(terms, within=within, price_only=price)
    if exact and published:
        raise typer.BadParameter("Choose one of --exact and --published.")
    kind = Kind.GRANTED if exact else Kind.PUBLISHED if published else Kind.PRIVATE
    analysis = Count(tuple(split(by) or ()), Unit.RECORDS if records else Unit.DONORS, kind)
    _ask(
        lambda network, terms: network.ask(dataset, condition, analysis, terms),
        terms,
        as_json=as_json,
        show_all=show_all,
        as_csv=as_csv,
        to=to,
    )


def result(
    query_id: QueryArgument, wait: WaitOption = 0, show_all: AllOption = False, as_json: JsonOption = False
) -> None:
    """Show what has become of a question asked earlier; with --wait, stay for the rest."""
    from connexon.client.connecting import connect

    with connect() as network, _progress() as show:
        whole = network.whole_id(query_id)
        answer = _until_stopped(lambda track: network.result(whole, wait=wait, on_progress=track), show, query_id=whole)
    show_answer(answer, as_json=as_json, show_all=show_all)


def why(query_id: QueryArgument, as_json: JsonOption = False) -> None:
    """Tell the story of a question: who, what for, which rule, whose consent, and how numbers were protected."""
    from rich.markup import escape

    from connexon.client.connecting import connect

    with connect() as network:
        told = network.why(query_id)
    if as_json:
        print_json(told.to_json())
        return
    for title, sentences in told.chapters:
        OUT.print(f"[bold]{escape(title)}[/]")
        for sentence in sentences:
            OUT.print(indented(escape(sentence)))


def queries(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="At most this many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List your questions, newest first."""
    from connexon.client.connecting import connect

    with connect() as network:
        summaries, unread = network.listed_queries(limit)
    for query_id in unread:
        ERR.print(f"! The hub lists a question that cannot be read, {query_id}; it is left out.", markup=False)
    if as_json:
        print_json({"schema": "connexon.queries/1", "queries": [_summary_json(one) for one in summaries]})
        return
    for one in summaries:
        _print_summary(one)
    if not summaries and not unread:
        ERR.print("You have not asked anything yet. Begin with:  connexon catalog", markup=False)


def cancel(query_id: QueryArgument, as_json: JsonOption = False) -> None:
    """End a question, or a training run: centers that have not answered will not."""
    from connexon.client.connecting import connect

    with connect() as network:
        query_id = network.whole_id(query_id)
        stopped = network.cancel(query_id)
    if as_json:
        print_json({"schema": "connexon.cancel/1", "query_id": query_id, "cancelled": stopped})
        return
    centers = "1 center" if stopped == 1 else f"{stopped} centers"
    OUT.print(
        f"Cancelled: {centers} had not answered and will not." if stopped else "Every center had answered already."
    )


def _terms(
    purpose: str | None,
    project: str | None,
    ethics: str,
    commercial: bool,
    centers: list[str] | None,
    wait: float,
    wait_for_all: bool,
    expires: str,
    *,
    fallback: str | None = None,
) -> Terms:
    from connexon.client.home import Home
    from connexon.client.terms import Terms

    if purpose is None and fallback is not None and not Home().defaults().purpose:
        purpose = fallback
    return Terms(
        purpose=purpose,
        project=project,
        commercial=commercial,
        ethics_approval=ethics,
        centers=split(centers),
        wait=wait,
        wait_for_all=wait_for_all,
        expires_in=expires,
    )


def _ask(
    ask: Callable[[Network, Terms], Answer],
    terms: Terms,
    *,
    as_json: bool,
    show_all: bool = False,
    as_csv: bool = False,
    to: Path | None = None,
) -> None:
    from dataclasses import replace

    from connexon.client.connecting import connect

    if to is not None:
        from connexon.client import exporting

        exporting.require_form(to)
        require_writable(to)
    with connect() as network, _progress() as show:
        answer = _until_stopped(lambda track: ask(network, replace(terms, on_progress=track)), show)
    if to is not None:
        answer.save(to)
    show_answer(answer, as_json=as_json, show_all=show_all, as_csv=as_csv)


def _until_stopped(
    work: Callable[[Callable[[Answer], None]], Answer], show: Callable[[Answer], None], *, query_id: str = ""
) -> Answer:
    """Do the work; Ctrl-C leaves it running at the centers and says how to come back."""
    return until_stopped(
        work,
        show,
        id_of=lambda answer: answer.query_id,
        words="Stopped waiting; a question that the hub has taken runs on. See it later with:",
        back=("connexon result",),
        known_id=query_id,
    )


@contextmanager
def _progress() -> Iterator[Callable[[Answer], None]]:
    """A line on stderr that tells how far centers are, gone when done; nothing where stderr is not a terminal."""
    from rich.markup import escape

    from connexon.client.answer_display import progress_text

    with ERR.status("Asking ...") as status:
        yield lambda answer: status.update(escape(progress_text(answer)))


def show_answer(answer: Answer, *, as_json: bool, show_all: bool = False, as_csv: bool = False) -> None:
    """Print an answer and leave with the exit status that says what became of it."""
    answer.show_all = show_all
    if as_csv:
        print(answer.to_csv(), end="")
        for part in answer.centers:
            if not part.status.answered:
                ERR.print(f"! {part.id}: {part.status.words}. {part.message}", markup=False)
    elif as_json:
        print_json(answer.to_json())
    else:
        OUT.print(answer)
        _point_to_run(answer)
    raise typer.Exit(exit_status(answer))


def _point_to_run(answer: Answer) -> None:
    from connexon.analyses.train import Train

    if isinstance(answer.question.analysis, Train) and not answer.question.price_only:
        ERR.print(f"This is a training; its rounds and its model:  connexon run {answer.query_id}", markup=False)


def exit_status(answer: Answer) -> int:
    """0 when all centers answered, 3 when some have not, 1 when all did and none released or suppressed anything."""
    from connexon.client.center_answer import Status

    if answer.complete and not any(part.status in (Status.RELEASED, Status.SUPPRESSED) for part in answer.centers):
        return 1
    return 0 if all(part.status.answered for part in answer.centers) else SOME_HAVE_NOT


def split(texts: list[str] | None) -> list[str] | None:
    """Names given one by one, or several with commas."""
    if not texts:
        return None
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _print_summary(one: Summary) -> None:
    from rich.markup import escape

    from connexon.analyses.registry import spec_of
    from connexon.analyses.spec import Kind
    from connexon.clock import to_text
    from connexon.query.purpose import describe
    from connexon.safe_text import plain

    question = one.question
    state = "cancelled" if one.cancelled else f"{one.answered} of {one.centers} answered"
    OUT.print(f"{question.query_id}  {state}", markup=False, soft_wrap=True)
    spec = spec_of(question.analysis)
    kind = spec.kind(question.analysis)
    what = spec.words(question.analysis, question.dataset)
    what += f" · {kind.value}" if kind not in (None, Kind.PRIVATE) else ""
    what += f" · {describe(question.purpose)}"
    if question.purpose.project:
        what += f" · project {question.purpose.project}"
    if question.within is not None:
        what += f" · within {question.within}"
    if question.price_only:
        what += " · its price"
    OUT.print(indented(escape(plain(f"{to_text(question.issued_at_ms)} · {what}"))))
    if question.filter is not None:
        from connexon.conditions.where_text import to_text as condition_text

        OUT.print(indented(escape(plain(condition_text(question.filter)))))


def _summary_json(one: Summary) -> dict[str, Any]:
    from connexon.analyses.registry import spec_of
    from connexon.client.answer import moment, purpose_json
    from connexon.conditions.where_text import to_text

    question = one.question
    spec = spec_of(question.analysis)
    return {
        "query_id": question.query_id,
        "dataset": question.dataset,
        "where": None if question.filter is None else to_text(question.filter),
        "analysis": {"name": spec.traits.name, **spec.parameters(question.analysis)},
        "purpose": purpose_json(question),
        "within": question.within,
        "price_only": question.price_only,
        "asked_at": moment(question.issued_at_ms),
        "expires_at": moment(question.expires_at_ms),
        "centers": one.centers,
        "answered": one.answered,
        "cancelled": one.cancelled,
    }
