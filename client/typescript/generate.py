"""Makes src/gen from protos/: the messages of Comity, and those of google.rpc that its errors have.

    npm run generate

Needs grpcio-tools, which brings protoc, and googleapis-common-protos; and `npm ci` before.
"""

import importlib.resources
import shutil
import sys
from pathlib import Path

from google.rpc import status_pb2  # type: ignore[import-untyped]
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parent.parent / "protos"
GOOGLE = ("google/rpc/status.proto", "google/rpc/error_details.proto")


def main() -> int:
    """The exit code of protoc."""
    made = HERE / "src" / "gen"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    google = Path(status_pb2.__file__).parents[2]
    own = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    code: int = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={google}",
            f"--proto_path={importlib.resources.files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-es={HERE / 'node_modules' / '.bin' / 'protoc-gen-es'}",
            f"--es_out={made}",
            # Of what Node.js runs as it is: erasable types, and imports that name the file.
            "--es_opt=target=ts,erasable_syntax=true,import_extension=ts",
            *own,
            *GOOGLE,
        ]
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
