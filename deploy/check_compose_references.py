"""Checks in docker-compose.yml what its JSON Schema cannot: that names refer to something, and that no secret has a default.

Usage: python check_compose_references.py docker-compose.yml   (needs ruamel.yaml)
Prints one line per finding; exit code 1 if there is any.
"""

import re
import sys
from collections.abc import Iterator

from ruamel.yaml import YAML

SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|_KEY$")
REFERENCE = re.compile(r"\$\{(?P<name>\w+)(?P<operator>:?[?+-])?[^}]*\}")


def findings(compose: dict) -> Iterator[str]:
    services = compose["services"]
    for name, service in services.items():
        yield from unknown_dependencies(name, service, services)
        yield from undeclared_volumes(name, service, compose.get("volumes") or {})
        yield from secrets_with_a_default(name, service.get("environment") or {})
        if "healthcheck" not in service:
            yield f"{name}: has no health check (say `disable: true` where there is nothing to check)"


def unknown_dependencies(name: str, service: dict, services: dict) -> Iterator[str]:
    for needed, how in (service.get("depends_on") or {}).items():
        if needed not in services:
            yield f"{name}: depends on {needed}, which is no service"
            continue
        check = services[needed].get("healthcheck") or {}
        if how["condition"] == "service_healthy" and (not check or check.get("disable")):
            yield f"{name}: waits for {needed} to be healthy, which has no health check"
        if how["condition"] == "service_completed_successfully" and "restart" in services[needed]:
            yield f"{name}: waits for {needed} to complete, which is restarted for ever"


def undeclared_volumes(name: str, service: dict, declared: dict) -> Iterator[str]:
    for volume in service.get("volumes") or []:
        source = volume.split(":")[0]
        if not source.startswith((".", "/", "~")) and source not in declared:
            yield f"{name}: the volume {source} is not declared"


def secrets_with_a_default(name: str, environment: dict) -> Iterator[str]:
    for variable, value in environment.items():
        references = list(REFERENCE.finditer(str(value)))
        for reference in references:
            if SECRET_NAME.search(reference["name"]) and reference["operator"] != ":?":
                yield f"{name}: {variable} takes the secret {reference['name']} without `:?`, so it may be empty"
        if SECRET_NAME.search(variable) and not references:
            yield f"{name}: {variable} is a secret written into the file"


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python check_compose_references.py docker-compose.yml", file=sys.stderr)
        return 2
    with open(sys.argv[1], encoding="utf-8") as file:
        found = list(findings(YAML(typ="safe").load(file)))
    for finding in found:
        print(finding, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
