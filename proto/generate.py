"""Generate the wire stubs in connexon/v1 from the .proto files, or check that they are current.

Usage: python proto/generate.py [--check]
"""

from __future__ import annotations

import filecmp
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

PROTO = Path(__file__).resolve().parent
STUBS = PROTO.parent / "connexon" / "v1"
# The plugins lie beside the interpreter, which need not be in PATH.
PLUGINS = [
    f"--plugin={name}={Path(sys.executable).with_name(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
]


def generate(target: Path) -> None:
    """Write the stubs of every .proto file below `target`."""
    sources = sorted((PROTO / "connexon").rglob("*.proto"))
    services = [path for path in sources if "\nservice " in path.read_text()]
    _run([f"--python_out={target}", f"--mypy_out=quiet:{target}"], sources)
    _run([f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}"], services)
    (target / "connexon" / "v1" / "__init__.py").write_text(
        '"""The wire contract, generated from proto/connexon/v1; do not edit."""\n'
    )


def _run(outputs: list[str], sources: list[Path]) -> None:
    if protoc.main(["protoc", f"-I{PROTO}", *PLUGINS, *outputs, *map(str, sources)]) != 0:
        raise SystemExit("protoc failed; its message stands above")


def main() -> None:
    """Regenerate, or with --check fail when the committed stubs differ."""
    check = sys.argv[1:] == ["--check"]
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = Path(folder) / "connexon" / "v1"
        names = {path.name for path in fresh.iterdir()}
        stale = {p.name for p in STUBS.glob("*") if p.is_file()} - names
        _, differing, missing = filecmp.cmpfiles(fresh, STUBS, sorted(names), shallow=False)
        changed = sorted({*differing, *missing, *stale})
        if check and changed:
            raise SystemExit(f"connexon/v1 is not what proto/ says ({', '.join(changed)}): run 'make proto'")
        if not check:
            for name in stale:
                (STUBS / name).unlink()
            for name in names:
                (STUBS / name).write_bytes((fresh / name).read_bytes())


if __name__ == "__main__":
    main()
