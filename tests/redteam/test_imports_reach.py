"""Gift files that try to read something else than themselves, or to take the machine: refused, and out of reach."""

from __future__ import annotations

import gzip
import os
import pickle
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy
import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from connexon.errors import ConnexonError, Misconfigured, Unavailable
from connexon_node import sandbox
from connexon_node.data.dictionary import DICTIONARY
from connexon_node.importing import FileFormat, FileRefused, ImportOptions, Mapping
from connexon_node.importing.drafting import draft
from connexon_node.importing.reader import jobs, process, staging
from connexon_node.importing.reader.process import Reader
from connexon_node.settings import ImportSection
from tests.support.center import SmallCenter

SECRET = b"the node's signing key, in 8-byte pieces that numbers hold......"
GENES = ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003", "ENSG00000000004"]
SAMPLES = ["S1", "S2"]
LOT = {"id": "B1", "cell_line_id": "L1", "lot_no": "1", "bank_level": "MCB", "status": "released"}
confined_here = pytest.mark.skipif(not sandbox.support().whole, reason="this kernel has no Landlock or seccomp")


@pytest.fixture(scope="module")
def center(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCenter]:
    made = SmallCenter(tmp_path_factory.mktemp("bank") / "node")
    made.load_rows("donors", [{"id": "D1", "sex": "female"}])
    made.load_rows("cell_lines", [{"id": "L1", "donor_id": "D1", "type": "iPSC", "grade": "research"}])
    made.load_rows("lots", [LOT])
    (made.folder / "keys").mkdir()
    (made.folder / "keys" / "answering.key").write_bytes(SECRET)
    yield made
    made.close()


@pytest.fixture
def key(center: SmallCenter) -> Path:
    return center.folder / "keys" / "answering.key"


def attempt(center: SmallCenter, dataset: str, file: Path, **options: Any) -> ConnexonError:
    before = center.generations.history()
    with pytest.raises(ConnexonError) as caught:
        center.importer.run(dataset, file, ImportOptions(by="steward", **options))
    assert center.generations.history() == before
    assert not list(center.folder.glob("data/*/.scratch"))
    assert not list(center.folder.glob("data/*/.draft"))
    return caught.value


def anndata(file: Path, lay: Callable[[h5py.File], None]) -> Path:
    """An AnnData file whose matrix is what `lay` makes of it."""
    with h5py.File(file, "w") as book:
        for name, index in (("obs", SAMPLES), ("var", GENES)):
            table = book.create_group(name)
            table.attrs["_index"] = "_index"
            table.create_dataset("_index", data=numpy.array(index, dtype=h5py.string_dtype()))
        lay(book)
    return file


def external_storage(key: Path) -> Callable[[h5py.File], None]:
    return lambda book: book.create_dataset(
        "X", shape=(2, 4), dtype="<u8", external=[(str(key).encode(), 0, 64)], fillvalue=0
    )


def external_link(key: Path) -> Callable[[h5py.File], None]:
    return lambda book: book.__setitem__("X", h5py.ExternalLink(str(key), "/X"))


def soft_link(_key: Path) -> Callable[[h5py.File], None]:
    return lambda book: book.__setitem__("X", h5py.SoftLink("/elsewhere"))


def virtual(key: Path) -> Callable[[h5py.File], None]:
    def lay(book: h5py.File) -> None:
        layout = h5py.VirtualLayout(shape=(2, 4), dtype="<f8")
        layout[:] = h5py.VirtualSource(str(key), "X", shape=(2, 4))
        book.create_virtual_dataset("X", layout)

    return lay


@pytest.mark.parametrize("reaching", [external_storage, external_link, soft_link, virtual])
def test_an_h5ad_that_names_another_file_is_refused(
    center: SmallCenter, key: Path, tmp_path: Path, reaching: Callable[[Path], Callable[[h5py.File], None]]
) -> None:
    error = attempt(center, "samples", anndata(tmp_path / "gift.h5ad", reaching(key)))
    assert error.code == "import.reaches_elsewhere"
    with pytest.raises(FileRefused) as caught:
        draft(tmp_path / "gift.h5ad", DICTIONARY, mapping=Mapping(), named=None)
    assert caught.value.code == "import.reaches_elsewhere"
    assert "/X" in caught.value.public


def staged(scratch: Path, file: Path, *, confined: bool) -> str:
    """The rows that a reader makes of an h5ad, as bytes of the file; the refusal where there are none."""
    scratch.mkdir()
    reader = Reader(scratch, confined=confined)
    try:
        reader.stage(
            file,
            FileFormat.H5AD,
            Mapping.model_validate({"h5ad": {"kind": "log2TPM"}}),
            DICTIONARY.named("expression"),
            memory=staging.MEMORY,
        )
    except ConnexonError as error:
        return error.public
    return str(pyarrow.parquet.read_table(scratch / "staged.parquet")["value"].to_pylist())


class Fresh:
    """Forks a reader from a fresh process, with `changed` run in it first, as the server forks one from itself.

    Not from the test's own: libraries of other tests start threads in every fork of that, which no sandbox confines.
    """

    def __init__(self, changed: str) -> None:
        self._changed = changed

    def do(self, order: jobs.Order, *, seconds: float) -> tuple[bytes, int]:
        ours, theirs = socket.socketpair()
        start = (
            "import os, signal, socket, sys\nfrom pathlib import Path\nimport pyarrow.compute, pyarrow.parquet\n"
            "from connexon_node.importing.formats import hdf5\n"
            "from connexon_node.importing.reader import jobs, staging\n"
            f"{self._changed}\nline = socket.socket(fileno=int(sys.argv[1]))\npid = os.fork()\n"
            "if pid == 0:\n    jobs.work(line)\n    os._exit(0)\n"
            "line.close()\nprint(os.waitpid(pid, 0)[1])\n"
        )
        with ours:
            with theirs:
                reader = subprocess.Popen(
                    [sys.executable, "-c", start, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, **dict.fromkeys(process._SINGLE, "1")},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            written = pickle.dumps(order)
            ours.sendall(jobs.LENGTH.pack(len(written)) + written)
            said = b"".join(iter(lambda: ours.recv(1 << 20), b""))
        return said, int(reader.communicate(timeout=seconds)[0])


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers that look at no HDF5 object before they read: only the sandbox is left."""
    monkeypatch.setattr(process, "_SERVER", Fresh("hdf5.require_self_contained = lambda book, file: None"))


@confined_here
@pytest.mark.usefixtures("unchecked")
def test_without_the_look_at_its_objects_the_key_is_still_out_of_reach(key: Path, tmp_path: Path) -> None:
    gift = anndata(tmp_path / "gift.h5ad", external_storage(key))
    wanted = [float(number) for number in numpy.frombuffer(SECRET, "<u8")]
    # That the attack is one: where nothing confines the reader, the key comes out.
    assert str(wanted[0]) in staged(tmp_path / "open", gift, confined=False)
    told = staged(tmp_path / "confined", gift, confined=True)
    assert "no whole AnnData file" in told
    assert not any(str(number) in told for number in wanted)


def test_an_array_that_claims_what_was_never_written_is_refused(center: SmallCenter, tmp_path: Path) -> None:
    def lay(book: h5py.File) -> None:
        del book["obs"]["_index"]
        book["obs"].create_dataset("_index", shape=(2_000_000_000,), dtype="i8", chunks=(1_000_000,))
        book.create_dataset("X", data=numpy.zeros((2, 4)))

    with pytest.raises(FileRefused) as caught:
        draft(anndata(tmp_path / "gift.h5ad", lay), DICTIONARY, mapping=Mapping(), named=None)
    assert caught.value.code == "import.too_large"


@pytest.mark.parametrize(
    ("name", "other"), [("export[1].csv", "export1.csv"), ("e*.csv", "e1.csv"), ("e?.csv", "e1.csv")]
)
def test_a_name_is_a_name_and_no_pattern(center: SmallCenter, tmp_path: Path, name: str, other: str) -> None:
    (tmp_path / name).write_text("id,sex\nRIGHT,male\n")
    (tmp_path / other).write_text("id,sex\nWRONG,male\n")
    outcome = center.importer.run(
        "donors", tmp_path / name, ImportOptions(by="steward", dry_run=True, retire_dependents=True)
    )
    assert outcome.file == name
    assert outcome.preview == ({"id": "RIGHT", "sex": "male"},)


def test_the_folder_of_a_node_may_have_such_a_name_too(tmp_path: Path) -> None:
    made = SmallCenter(tmp_path / "bank[1]" / "node")
    made.load_rows("donors", [{"id": "D1", "sex": "female"}])
    assert [row["id"] for row in made.rows("donors")] == ["D1"]
    made.close()


def test_a_link_to_the_nodes_own_files_is_refused(center: SmallCenter, key: Path, tmp_path: Path) -> None:
    (tmp_path / "gift.csv").symlink_to(key)
    assert attempt(center, "donors", tmp_path / "gift.csv").code == "import.no_file"


def test_what_has_no_end_is_no_file(center: SmallCenter, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "gift.csv")
    assert attempt(center, "donors", tmp_path / "gift.csv").code == "import.no_file"
    assert attempt(center, "donors", Path("/dev/zero"), file_format=FileFormat.CSV).code == "import.no_file"


def test_a_study_takes_no_link_for_a_file_beside_it(center: SmallCenter, key: Path, tmp_path: Path) -> None:
    (tmp_path / "dm.csv").symlink_to(key)
    (tmp_path / "ae.csv").write_text("STUDYID,DOMAIN,USUBJID,AETERM\nT,AE,D1,Fever\n")
    reader = Reader(tmp_path / "scratch")
    reader.scratch.mkdir()
    with pytest.raises(FileRefused) as caught:
        reader.stage(
            tmp_path / "ae.csv", FileFormat.SDTM, Mapping(), DICTIONARY.named("adverse_events"), memory=staging.MEMORY
        )
    assert caught.value.code == "import.needs_file"


def bomb_gz(path: Path) -> Path:
    with gzip.open(path, "wb") as file:
        file.write(b"id,sex\n")
        for _ in range(160):
            file.write(b"\n" * (1 << 20))
    return path


def bomb_xlsx(path: Path) -> Path:
    openpyxl.Workbook().save(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("xl/more.xml", "w") as part:
        for _ in range(160):
            part.write(b" " * (1 << 20))
    return path


def bomb_parquet(path: Path) -> Path:
    rows = pyarrow.table({"id": pyarrow.array(["D1"] * 10_000_000).dictionary_encode()})
    with pyarrow.parquet.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(rows, row_group_size=10_000_000)
    return path


def wide(path: Path) -> Path:
    path.write_text(",".join(f"c{number}" for number in range(200_000)) + "\n")
    return path


def lying_codes(path: Path) -> Path:
    def lay(book: h5py.File) -> None:
        book.create_dataset("X", data=numpy.zeros((2, 4)))
        book["obs"].create_group("line").create_dataset("codes", data=[5_000, -7])
        book["obs/line"].create_dataset("categories", data=numpy.array(["a"], dtype=h5py.string_dtype()))

    return anndata(path, lay)


def doctype(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>')
    return path


def deep(path: Path) -> Path:
    path.write_text('{"subject":' * 200_000)
    return path


@pytest.mark.parametrize(
    ("name", "make", "code"),
    [
        ("gift.csv.gz", bomb_gz, "import.too_large"),
        ("gift.xlsx", bomb_xlsx, "import.too_large"),
        ("gift.parquet", bomb_parquet, "import.too_large"),
        ("gift.csv", wide, "import.too_large"),
        ("gift.json", deep, "import.too_large"),
        ("gift.xlsx", doctype, "import.unreadable"),
        ("gift.h5ad", lying_codes, "import.unreadable"),
    ],
)
def test_a_small_file_cannot_take_the_machine(
    center: SmallCenter, tmp_path: Path, name: str, make: Callable[[Path], Path], code: str
) -> None:
    dataset, mapping = ("samples", {"h5ad": {"sample": "line"}}) if name.endswith("h5ad") else ("donors", {})
    error = attempt(center, dataset, make(tmp_path / name), mapping=Mapping.model_validate(mapping))
    assert (error.code, "Traceback" in error.public) == (code, False)


def test_lines_of_deeply_nested_json_are_bad_rows_or_a_refusal(center: SmallCenter, tmp_path: Path) -> None:
    (tmp_path / "gift.jsonl").write_text('{"id":' + "[" * 100_000 + "]" * 100_000 + "}\n")
    assert attempt(center, "donors", tmp_path / "gift.jsonl").code.startswith("import.")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, "import.reader_ended"),
        (signal.SIGSEGV, "import.reader_crashed"),
        (signal.SIGABRT, "import.reader_crashed"),
        (signal.SIGXCPU, "import.too_long"),
    ],
)
def test_a_reader_that_dies_is_a_sentence_and_nothing_is_loaded(
    center: SmallCenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
) -> None:
    die = (
        "def die(*_):\n"
        "    Path('staged.parquet').write_bytes(b'half of it')\n"
        f"    if {int(number)} != signal.SIGKILL:\n"
        f"        signal.signal({int(number)}, signal.SIG_DFL)\n"
        f"    signal.raise_signal({int(number)})\n"
        "staging.stage = die"
    )
    monkeypatch.setattr(process, "_SERVER", Fresh(die))
    (tmp_path / "gift.csv").write_text("id,sex\nD1,male\n")
    error = attempt(center, "donors", tmp_path / "gift.csv")
    assert error.code == code
    assert "nothing was loaded" in error.public


def test_after_a_reader_was_killed_the_next_import_starts_another(center: SmallCenter, tmp_path: Path) -> None:
    (tmp_path / "fine.csv").write_text("id,sex\nD1,male\n")
    options = ImportOptions(by="steward", dry_run=True)
    assert center.importer.run("donors", tmp_path / "fine.csv", options).rows == 1
    assert process._SERVER._present is not None
    process._SERVER._present[0].kill()
    process._SERVER._present[0].wait()
    assert center.importer.run("donors", tmp_path / "fine.csv", options).rows == 1


def test_a_reader_has_so_much_time(center: SmallCenter, tmp_path: Path) -> None:
    (tmp_path / "fine.csv").write_text("id,sex\nD1,male\n")
    (tmp_path / "scratch").mkdir()
    reader = Reader(tmp_path / "scratch", ImportSection(seconds=0.001))
    with pytest.raises(FileRefused) as caught:
        reader.stage(
            tmp_path / "fine.csv", FileFormat.CSV, Mapping(), DICTIONARY.named("donors"), memory=staging.MEMORY
        )
    assert caught.value.code == "import.too_long"


def test_a_reader_has_so_much_memory(tmp_path: Path) -> None:
    (tmp_path / "gift.json").write_text('[{"subject": {"id": "' + "D" * 400_000_000 + '"}}]')
    (tmp_path / "scratch").mkdir()
    reader = Reader(tmp_path / "scratch", ImportSection(memory="700MB"))
    with pytest.raises(Unavailable) as caught:
        reader.stage(
            tmp_path / "gift.json", FileFormat.PHENOPACKETS, Mapping(), DICTIONARY.named("donors"), memory="450MB"
        )
    assert caught.value.code == "import.memory"


def test_where_the_kernel_cannot_confine_a_center_may_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "support", lambda: sandbox.Support(landlock=0, seccomp=True))
    (tmp_path / "fine.csv").write_text("id,sex\nD1,male\n")
    (tmp_path / "scratch").mkdir()
    reader = Reader(tmp_path / "scratch", ImportSection(require_sandbox=True))
    with pytest.raises(Misconfigured) as caught:
        reader.lines(tmp_path / "fine.csv", FileFormat.CSV, Mapping(), [2])
    assert caught.value.code == "import.no_sandbox"
    assert "Landlock" in caught.value.public


def test_a_report_that_is_none_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fine.csv").write_text("id,sex\nD1,male\n")
    (tmp_path / "scratch").mkdir()

    class Lying:
        said = b""

        def do(self, _order: jobs.Order, *, seconds: float) -> tuple[bytes, int]:
            return self.said, int(seconds * 0)

    monkeypatch.setattr(process, "_SERVER", Lying())
    for said in (b"", b"[]", b"{}", b'{"Staged": {}}', b'{"Drafted": {"text": ""}}', b'{"Failed": {"kind": "exec"}}'):
        Lying.said = said
        with pytest.raises(Unavailable) as caught:
            Reader(tmp_path / "scratch").lines(tmp_path / "fine.csv", FileFormat.CSV, Mapping(), [2])
        assert caught.value.code == "import.reader_failed"
