"""Checks that what rules and dashboards name is there, and writes the dashboards' expressions as rules that promtool can check.

Usage: python3 check_watching.py EXPRESSIONS.yml
Prints one line per finding; exit code 1 if there is any.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
METRIC = re.compile(r"\bneonhub_[a-z_]+\b")
RECORDED = re.compile(r"\b[a-z]+:neonhub_[a-z_]+:\w+")
# Two metrics in one expression.
EITHER = re.compile(r"\bneonhub_\((\w+)\|(\w+)\)_([a-z_]+)")
# What Prometheus adds to the name of a histogram.
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    rules = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    dashboards = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")}
    found = [*unknown_metrics(rules, dashboards), *untold_alerts(rules), *unlike_dashboards(dashboards)]
    for finding in found:
        print(finding, file=sys.stderr)
    write_expressions(Path(sys.argv[1]), dashboards)
    return 1 if found else 0


def expressions(dashboard: dict) -> list[str]:
    """Of Prometheus; SQL is run by the scenario `watching`."""
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"] if "expr" in target]


def unknown_metrics(rules: str, dashboards: dict) -> Iterator[str]:
    """Each metric is in the table of its role's README."""
    known = set()
    for role in ("ingest", "processors", "api", "topology"):
        known |= set(METRIC.findall((ROOT / role / "README.md").read_text(encoding="utf-8")))
    recorded = set(re.findall(r"record: (\S+)", rules))
    texts = {"alerts.yml": rules} | {name: "\n".join(expressions(each)) for name, each in dashboards.items()}
    for name, text in texts.items():
        used = set(RECORDED.findall(text))
        for record in sorted(used - recorded):
            yield f"{name}: no rule records {record}"
        plain = EITHER.sub(r"neonhub_\1_\3 neonhub_\2_\3", RECORDED.sub("", text))
        for metric in sorted(set(METRIC.findall(plain))):
            if SUFFIX.sub("", metric) not in known and metric not in known:
                yield f"{name}: no role has the metric {metric}"


def untold_alerts(rules: str) -> Iterator[str]:
    tests = (ROOT / "deploy/prometheus/alerts.test.yml").read_text(encoding="utf-8")
    runbook = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    alerts = re.findall(r"alert: (\S+)", rules)
    for alert in alerts:
        if f"alertname: {alert}\n        exp_alerts:\n" not in tests:
            yield f"{alert}: no test sees it fire"
        if f"| `{alert}` |" not in runbook:
            yield f"{alert}: docs/operations.md does not say what to do"
    for row in re.findall(r"\| `(NeonHub\w+)` \|", runbook):
        if row not in alerts:
            yield f"docs/operations.md: there is no alert {row}"


def unlike_dashboards(dashboards: dict) -> Iterator[str]:
    uids = [dashboard["uid"] for dashboard in dashboards.values()]
    if len(set(uids)) < len(uids):
        yield "two dashboards have the same uid"
    for name, dashboard in dashboards.items():
        for panel in dashboard["panels"]:
            if "unit" not in panel["fieldConfig"]["defaults"]:
                yield f"{name}: {panel['title']} says no unit"


def write_expressions(path: Path, dashboards: dict) -> None:
    """JSON is YAML."""
    rules = [
        {"record": "dashboard:expression:one", "expr": expression.replace("$__rate_interval", "1m"), "labels": {"of": name, "n": str(n)}}
        for name, dashboard in dashboards.items()
        for n, expression in enumerate(expressions(dashboard))
    ]
    path.write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
