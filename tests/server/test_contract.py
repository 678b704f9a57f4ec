"""The server's own description of its interface, against what it does: schemathesis makes the requests."""

from __future__ import annotations

import subprocess
import sys


def test_the_server_does_what_its_openapi_says(serve, folder, tmp_path):
    client = serve(folder, max_bytes=100_000)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", str(client.base_url.join("/openapi.json"))),
            *("--max-examples", "40", "--seed", "0", "--phases", "examples,coverage,fuzzing", "--no-color"),
            *("--checks", "not_a_server_error,status_code_conformance,response_schema_conformance"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert client.get("/health").status_code == 200
