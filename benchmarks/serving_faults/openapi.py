"""S1, third generator: Schemathesis on the server's own description, sound and unsound requests, all phases."""

import json
import shutil
import subprocess

from benchmarks.serving_faults.asking import CANARY, Client, texts
from benchmarks.serving_faults.target import NAME, Target
from cerebras_gpt.serve.limits import Limits

LONGEST_SECONDS = 60
"""For an answer: it makes many requests, so it may have to run beside other work."""
LEFT_OUT = {
    "positive_data_acceptance": "the description cannot say which ids, prompts and pairs of parameters a model takes",
    "unsupported_method": "a POST that is no JSON is refused with 415 wherever it goes, before anybody asks where",
}


def described(client):
    """The server's description, in which the model is one that is served."""
    document = json.loads(client.ask("/openapi.json")[2])
    for schema in document["components"]["schemas"].values():
        if "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"type": "string", "enum": [NAME]}
    return document


def command(file, port, seed, n_operations, numbers, told):
    """What is run."""
    options = ["--mode", "all", "--phases", "examples,coverage,fuzzing,stateful"]
    options += ["--request-timeout", str(LONGEST_SECONDS)]
    options += ["--exclude-checks", ",".join(LEFT_OUT), "--continue-on-failure", "--seed", str(seed)]
    options += ["--max-examples", str(max(1, len(numbers) // n_operations)), "--report-json-path", str(told)]
    return ["schemathesis", "run", str(file), "--url", f"http://127.0.0.1:{port}", *options]


def campaign(report, folder, seed, numbers):
    """About as many requests as numbers; needs the program schemathesis on the path."""
    if shutil.which("schemathesis") is None:
        report.figures["left out"] = "no schemathesis on the path: pip install schemathesis"
        return
    file, told = folder / "openapi.json", folder / "told.json"
    with Target(folder, Limits(queue=16)) as target:
        client = Client(target.port, LONGEST_SECONDS).waited()
        document, first = described(client), texts(client.complete(CANARY))
        file.write_text(json.dumps(document))
        line = command(file, target.port, seed, len(document["paths"]), numbers, told)
        done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
        report.case("schemathesis", [] if done.returncode == 0 else [done.stdout[-6000:] + done.stderr[-2000:]])
        same = texts(client.complete(CANARY)) == first
        report.case("canary", [] if same else ["the canary answers otherwise"])
        report.case("conservation", client.conserved())
        report.case("end", target.end())
    found = json.loads(told.read_text()) if told.exists() else {}
    found.pop("command", None)  # it names this run's temporary files
    report.figures |= {"told": found, "checks left out": LEFT_OUT}
