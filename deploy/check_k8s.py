"""Checks what `kustomize build` made of an overlay of deploy/k8s: each document against Kubernetes' schemas, and what a schema
cannot see: that names and ports meet, that they are those of the code, that no secret is in the tree.

Usage: python check_k8s.py RENDERED.yaml   (needs kubernetes-validate and PyYAML)
Prints one line per finding; exit code 1 if there is any.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent
# The oldest that has all fields as stable or switched on, and the newest that the schemas are there for.
KUBERNETES = ("1.32", "1.37")
WORKLOADS = ("Deployment", "StatefulSet", "Job")
COMPONENT = "app.kubernetes.io/component"
# Which servers a role's process opens connections to: topology/src/roles/*.rs and topology/src/clients/*.rs.
TALKS_TO = {
    "ingest": {"NEONHUB_KAFKA_BROKERS"},
    "processors": {"NEONHUB_KAFKA_BROKERS", "NEONHUB_CLICKHOUSE_URL"},
    "api": {"NEONHUB_KAFKA_BROKERS", "NEONHUB_CLICKHOUSE_URL", "NEONHUB_SCYLLA_NODES", "NEONHUB_REDIS_URL"},
    "migrate": {"NEONHUB_CLICKHOUSE_URL"},
    "topics": {"NEONHUB_KAFKA_BROKERS"},
}
# What a role can do without.
OPTIONAL = {"NEONHUB_REDIS_URL"}
# Addresses that are secret only for the password that may be in them.
ADDRESSES = {"NEONHUB_CLICKHOUSE_URL", "NEONHUB_REDIS_URL"}
# Only readiness looks at servers: a restart would not bring them back.
PROBES = {"startupProbe": "/health/live", "livenessProbe": "/health/live", "readinessProbe": "/health/ready"}
ROUTES = {"ingest": "ingest/src", "api": "api/src", "processors": "topology/src/roles"}


def text_of(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def number_in(path: str, pattern: str) -> int:
    found = re.search(pattern, text_of(path))
    if not found:
        raise SystemExit(f"{path}: nothing matches {pattern}; this check must be brought up to date")
    return int(found[1].replace("_", ""))


class Workload:
    def __init__(self, document: dict) -> None:
        self.document = document
        self.name = f"{document['kind']}/{document['metadata']['name']}"
        self.is_job = document["kind"] == "Job"
        template = document["spec"]["template"]
        self.labels = template["metadata"]["labels"]
        self.pod = template["spec"]
        self.component = self.labels.get(COMPONENT, "none")
        self.containers = [*self.pod.get("initContainers", []), *self.pod["containers"]]
        self.ports = {port.get("name"): port["containerPort"] for each in self.containers for port in each.get("ports", [])}

    def has_port(self, port: int | str) -> bool:
        return port in self.ports or port in self.ports.values()


class Manifests:
    def __init__(self, documents: list[dict]) -> None:
        self.documents = documents
        self.workloads = [Workload(document) for document in documents if document["kind"] in WORKLOADS]
        self.settings = {name: value for document in self.of("ConfigMap") for name, value in document["data"].items()}

    def of(self, kind: str) -> list[dict]:
        return [document for document in self.documents if document["kind"] == kind]

    def named(self, kind: str, name: str) -> dict | None:
        return next((each for each in self.of(kind) if each["metadata"]["name"] == name), None)

    def selected(self, selector: dict) -> list[Workload]:
        return [workload for workload in self.workloads if matches(selector, workload.labels)]


def matches(selector: dict, labels: dict) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for expression in selector.get("matchExpressions", []):
        if expression["operator"] != "In":
            raise SystemExit(f"the operator {expression['operator']} is not known to this check")
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


def findings(manifests: Manifests, rendered: str) -> Iterator[str]:
    yield from wrong_settings(manifests, rendered)
    yield from wrong_selectors(manifests)
    yield from wrong_targets(manifests)
    yield from wrong_policies(manifests)
    for workload in manifests.workloads:
        yield from wrong_references(manifests, workload)
        yield from unhardened(workload)
        if workload.component in ROUTES:
            yield from unlike_code(manifests, workload)


def unlike_schema(documents: list[dict]) -> Iterator[str]:
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name}: Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
            except kubernetes_validate.SchemaNotFoundError as error:
                yield f"{name}: {error.message}"


def wrong_settings(manifests: Manifests, rendered: str) -> Iterator[str]:
    table = re.findall(r'\b(open|secret)\(\s*"(\w+)"', text_of("topology/src/settings/table.rs"))
    known = {f"NEONHUB_{name.upper()}": kind for kind, name in table}
    known |= {f"{name}_FILE": "open" for name, kind in known.items() if kind == "secret"}
    for name in sorted(set(re.findall(r"NEONHUB_\w+", rendered)) - set(known)):
        yield f"{name}: is no setting (topology/src/settings/table.rs)"
    for document in manifests.of("Secret"):
        yield f"Secret/{document['metadata']['name']}: secrets are the operator's to make"
    listed = set(re.findall(r"^\| `(NEONHUB_\w+)` \|", text_of("deploy/k8s/README.md"), re.MULTILINE))
    asked = set()
    literals = list(manifests.settings.items())
    for workload in manifests.workloads:
        for variable in (variable for container in workload.containers for variable in container.get("env", [])):
            reference = variable.get("valueFrom", {}).get("secretKeyRef")
            if "value" in variable:
                literals.append((variable["name"], variable["value"]))
            if not reference:
                continue
            asked.add(reference["key"])
            if reference["name"] != "neonhub" or reference["key"] != variable["name"]:
                yield f"{workload.name}: {variable['name']} is not that key of the Secret neonhub"
    for key in sorted(asked ^ listed):
        where = "does not list it" if key in asked else "lists it, and nothing asks for it"
        yield f"{key}: deploy/k8s/README.md {where}"
    for name, value in literals:
        if known.get(name) == "secret" and not (name in ADDRESSES and "@" not in value):
            yield f"{name}: is a secret written into the tree"


def wrong_selectors(manifests: Manifests) -> Iterator[str]:
    """Each means one workload; a policy may mean several, each of which is there."""
    selectors = [(workload.name, workload.document["spec"].get("selector")) for workload in manifests.workloads]
    for service in manifests.of("Service"):
        selectors.append((f"Service/{service['metadata']['name']}", {"matchLabels": service["spec"]["selector"]}))
    for budget in manifests.of("PodDisruptionBudget"):
        selectors.append((f"PodDisruptionBudget/{budget['metadata']['name']}", budget["spec"]["selector"]))
    for workload in manifests.workloads:
        for spread in workload.pod.get("topologySpreadConstraints", []):
            own = {key: workload.labels[key] for key in spread.get("matchLabelKeys", []) if key in workload.labels}
            selector = {"matchLabels": spread["labelSelector"].get("matchLabels", {}) | own}
            selectors.append((f"{workload.name}: {spread['topologyKey']}", selector))
    for name, selector in selectors:
        selected = [workload.name for workload in manifests.selected(selector)] if selector else None
        if selected is not None and len(selected) != 1:
            yield f"{name}: selects {' and '.join(selected) or 'nothing'} instead of one workload"
    for workload in manifests.workloads:
        selector = workload.document["spec"].get("selector")
        if selector and not matches(selector, workload.labels):
            yield f"{workload.name}: does not select its own pods"
    for policy in manifests.of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        values = [expression["values"] for expression in selector.get("matchExpressions", [])]
        if not manifests.selected(selector) or any(len(each) != len(manifests.selected(selector)) for each in values):
            yield f"NetworkPolicy/{policy['metadata']['name']}: selects a pod that is not there"


def wrong_targets(manifests: Manifests) -> Iterator[str]:
    for service in manifests.of("Service"):
        for workload in manifests.selected({"matchLabels": service["spec"]["selector"]}):
            for port in service["spec"]["ports"]:
                target = port.get("targetPort", port["port"])
                if not workload.has_port(target):
                    yield f"Service/{service['metadata']['name']}: {workload.name} has no port {target}"
                if port["port"] not in workload.ports.values():
                    yield f"Service/{service['metadata']['name']}: is at {port['port']}, unlike {workload.name}"
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        name, spec = f"HorizontalPodAutoscaler/{scaler['metadata']['name']}", scaler["spec"]
        target = manifests.named(spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
        if not target:
            yield f"{name}: its target is not there"
        elif "replicas" in target["spec"]:
            yield f"{name}: each apply sets back the replicas of its target"
        if spec["minReplicas"] > spec["maxReplicas"]:
            yield f"{name}: minReplicas is more than maxReplicas"
    guarded = [each["spec"]["selector"] for each in manifests.of("PodDisruptionBudget")]
    scaled = [each["spec"]["scaleTargetRef"]["name"] for each in manifests.of("HorizontalPodAutoscaler")]
    for workload in (workload for workload in manifests.workloads if not workload.is_job):
        if not any(matches(selector, workload.labels) for selector in guarded):
            yield f"{workload.name}: has no PodDisruptionBudget"
        if workload.document["kind"] == "Deployment" and workload.document["metadata"]["name"] not in scaled:
            yield f"{workload.name}: has no HorizontalPodAutoscaler"
        if workload.document["kind"] == "StatefulSet":
            service = manifests.named("Service", workload.document["spec"]["serviceName"])
            if not service or service["spec"].get("clusterIP") != "None":
                yield f"{workload.name}: its serviceName is no headless Service"


def servers(manifests: Manifests, setting: str) -> set[tuple[str, int]]:
    """Namespace and port: names of Services are `service.namespace.svc`."""
    addresses = [urlsplit(each if "://" in each else f"//{each}") for each in manifests.settings[setting].split(",")]
    return {(address.hostname.split(".")[1], address.port) for address in addresses}


def reached(policies: list[dict]) -> set[tuple[str, int]]:
    """Namespaces and ports that the policies let a pod go to."""
    allowed = set()
    for rule in (rule for policy in policies for rule in policy.get("egress", [])):
        peers = [peer.get("namespaceSelector", {}).get("matchLabels", {}) for peer in rule.get("to", [{}])]
        names = [labels.get("kubernetes.io/metadata.name", "anywhere") for labels in peers]
        allowed |= {(name, port["port"]) for name in names for port in rule["ports"]}
    return allowed


def wrong_policies(manifests: Manifests) -> Iterator[str]:
    policies = [policy["spec"] for policy in manifests.of("NetworkPolicy")]
    missing = {setting for each in TALKS_TO.values() for setting in each} - set(manifests.settings)
    for setting in sorted(missing - OPTIONAL):
        yield f"{setting}: no ConfigMap has it"
        return
    for workload in manifests.workloads:
        own = [policy for policy in policies if matches(policy["podSelector"], workload.labels)]
        for direction in ("Ingress", "Egress"):
            if not any(direction in policy["policyTypes"] and not policy.get(direction.lower()) for policy in own):
                yield f"{workload.name}: no policy denies {direction.lower()} by default"
        if workload.component not in TALKS_TO:
            yield f"{workload.name}: this check does not know whom the component {workload.component} talks to"
        needed = {("kube-system", 53)}
        for setting in TALKS_TO.get(workload.component, set()) - missing:
            needed |= servers(manifests, setting)
        allowed = reached(own)
        for namespace, port in sorted(needed - allowed):
            yield f"{workload.name}: may not reach port {port} in {namespace}"
        for namespace in sorted({name for name, _ in allowed} - {name for name, _ in needed}):
            yield f"{workload.name}: may reach {namespace}, which it has no business with"
        opened = [port["port"] for policy in own for rule in policy.get("ingress", []) for port in rule["ports"]]
        for port in opened:
            if not workload.has_port(port):
                yield f"{workload.name}: a policy opens {port}, which it does not have"
        if workload.ports and not opened:
            yield f"{workload.name}: nobody may come in"


def wrong_references(manifests: Manifests, workload: Workload) -> Iterator[str]:
    account = manifests.named("ServiceAccount", workload.pod.get("serviceAccountName", "default"))
    if not account or account.get("automountServiceAccountToken") is not False:
        yield f"{workload.name}: its service account is not there, or mounts its token"
    claims = workload.document["spec"].get("volumeClaimTemplates", [])
    volumes = [each["name"] for each in workload.pod.get("volumes", [])] + [each["metadata"]["name"] for each in claims]
    for container in workload.containers:
        name = f"{workload.name}: {container['name']}"
        mounts = container.get("volumeMounts", [])
        for mount in mounts:
            if mount["name"] not in volumes:
                yield f"{name}: there is no volume {mount['name']}"
        for source in container.get("envFrom", []):
            wanted = source.get("configMapRef", {}).get("name")
            if not manifests.named("ConfigMap", wanted):
                yield f"{name}: its environment comes from {wanted or 'a Secret'}, which is no ConfigMap here"
        variables = {variable["name"]: variable for variable in container.get("env", [])}
        folder = variables.get("NEONHUB_DATA_DIR", {}).get("value")
        if folder and folder not in [mount["mountPath"] for mount in mounts]:
            yield f"{name}: NEONHUB_DATA_DIR is no volume, and the rest is read-only"
        if workload.component == "processors":
            instance = variables.get("NEONHUB_INSTANCE", {}).get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            if instance != "metadata.name" or workload.document["kind"] != "StatefulSet":
                yield f"{name}: NEONHUB_INSTANCE is no name that is the same after a restart: a StatefulSet's metadata.name"
            if not folder:
                yield f"{name}: has no NEONHUB_DATA_DIR for its state"


def unhardened(workload: Workload) -> Iterator[str]:
    user = number_in("Dockerfile", r"(?m)^USER (\d+):")
    wanted_of_pod = {"runAsNonRoot": True, "runAsUser": user, "seccompProfile": {"type": "RuntimeDefault"}}
    wanted = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    for field, value in wanted_of_pod.items():
        if workload.pod.get("securityContext", {}).get(field) != value:
            yield f"{workload.name}: {field} is not {value}"
    if workload.pod.get("automountServiceAccountToken") is not False:
        yield f"{workload.name}: mounts the token of its service account"
    for container in workload.containers:
        name = f"{workload.name}: {container['name']}"
        for field, value in wanted.items():
            if container.get("securityContext", {}).get(field) != value:
                yield f"{name}: {field} is not {value}"
        for field in sorted(set(wanted_of_pod) & set(container.get("securityContext", {}))):
            yield f"{name}: {field} is the pod's to say"
        for bound in ("requests", "limits"):
            for resource in ("cpu", "memory"):
                if resource not in container.get("resources", {}).get(bound, {}):
                    yield f"{name}: {bound} no {resource}"
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        if tag in ("", "latest"):
            yield f"{name}: the image {container['image']} has no tag"
        for probe in () if workload.is_job else PROBES:
            if probe not in container:
                yield f"{name}: has no {probe}"
            elif not workload.has_port(container[probe]["httpGet"]["port"]):
                yield f"{name}: {probe} asks a port that it does not have"


def unlike_code(manifests: Manifests, workload: Workload) -> Iterator[str]:
    """Ports, paths and the time to drain are the code's."""
    setting = f"NEONHUB_{workload.component.upper()}_ADDR"
    port = int(manifests.settings.get(setting, ":0").rpartition(":")[2])
    if set(workload.ports.values()) != {port}:
        yield f"{workload.name}: {setting} says {port}, its ports are {sorted(workload.ports.values())}"
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / ROUTES[workload.component]).rglob("*.rs"))
    drains_s = {
        # Requests under way, then the log.
        "ingest": 2 * number_in("ingest/src/config.rs", r"drain_timeout: Duration::from_secs\((\d+)\)"),
        "api": number_in("api/src/routes.rs", r"const DRAIN: Duration = Duration::from_secs\((\d+)\)"),
        # An insert, then a commit.
        "processors": number_in("topology/src/clients/clickhouse.rs", r"timeout: Duration::from_secs\((\d+)\)")
        + number_in("topology/src/roles/posts.rs", r"const LONGEST_COMMIT_MS: i64 = ([\d_]+)") // 1_000,
    }
    for container in workload.containers:
        for probe, path in PROBES.items():
            if container.get(probe, {}).get("httpGet", {}).get("path", path) != path:
                yield f"{workload.name}: {probe} does not ask {path}"
            if f'"{path}"' not in source:
                yield f"{workload.name}: {ROUTES[workload.component]} has no route {path}"
        pause_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed_s, given_s = pause_s + drains_s[workload.component], workload.pod.get("terminationGracePeriodSeconds", 30)
        if given_s <= needed_s:
            yield f"{workload.name}: takes up to {needed_s} s to end, and has {given_s} s"


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python check_k8s.py RENDERED.yaml", file=sys.stderr)
        return 2
    rendered = Path(sys.argv[1]).read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(rendered))
    # What has not the shape of its kind cannot be looked into.
    found = list(unlike_schema(documents)) or list(findings(Manifests(documents), rendered))
    for finding in found:
        print(finding, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
