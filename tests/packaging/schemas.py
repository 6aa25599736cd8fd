"""JSON schemas for kubeconform, made of what the pinned Kubernetes publishes and of CRDs. Nothing is downloaded for them but
Go modules."""

import copy
import json
import pathlib

from manifests import ROOT, run

# Kubernetes' OpenAPI calls these strings, whatever may be written for them.
WIDER = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}
PREFIX = "#/definitions/"


def strict(node):
    """Refuses fields that a schema does not name, throughout; wants `node` to be nobody else's."""
    if isinstance(node, list):
        for item in node:
            strict(item)
        return node
    if not isinstance(node, dict):
        return node
    for name, value in node.items():
        # What is under properties is named by users: "properties" may itself be the name of a field.
        strict(list(value.values()) if name == "properties" and isinstance(value, dict) else value)
    if node.pop("x-kubernetes-int-or-string", False):
        node.pop("type", None)
        node.pop("anyOf", None)
        node["type"] = ["string", "integer"]
    if (
        isinstance(node.get("properties"), dict)
        and "additionalProperties" not in node
        and not node.get("x-kubernetes-preserve-unknown-fields")
    ):
        node["additionalProperties"] = False
    return node


def file_name(kind, group, version):
    """As kubeconform's templates {{.ResourceKind}}{{.KindSuffix}} have it."""
    parts = [kind.lower(), *([group.split(".")[0]] if group else []), version.lower()]
    return "-".join(parts) + ".json"


def references(node):
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "$ref" and isinstance(value, str) and value.startswith(PREFIX):
                yield value.removeprefix(PREFIX)
            else:
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def of_kubernetes(kinds):
    """(file name, schema) for those of `kinds` (of (group, version, kind)) that Kubernetes itself defines."""
    module = ROOT / "tools/control-plane"
    folder = json.loads(run("go", "mod", "download", "-json", "k8s.io/kubernetes", cwd=module))["Dir"]
    definitions = json.loads((pathlib.Path(folder) / "api/openapi-spec/swagger.json").read_text())["definitions"]
    definitions.update(WIDER)
    for name, definition in definitions.items():
        for its in definition.get("x-kubernetes-group-version-kind", []):
            wanted = (its["group"], its["version"], its["kind"])
            if wanted not in kinds or len(definition["x-kubernetes-group-version-kind"]) > 1:
                continue
            needed, open_ = {}, [name]
            while open_:
                one = open_.pop()
                if one not in needed:
                    needed[one] = strict(copy.deepcopy(definitions[one]))
                    open_ += references(needed[one])
            yield file_name(its["kind"], its["group"], its["version"]), {"$ref": PREFIX + name, "definitions": needed}


def of_definition(definition):
    """(file name, schema) for the versions of a CRD."""
    spec = definition["spec"]
    for version in spec["versions"]:
        schema = strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
        schema["properties"] |= {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
        yield file_name(spec["names"]["kind"], spec["group"], version["name"]), schema


def write(directory, kinds, definitions):
    """Writes the schemas of these kinds and CRDs."""
    for source in (of_kubernetes(kinds), *map(of_definition, definitions)):
        for name, schema in source:
            (pathlib.Path(directory) / name).write_text(json.dumps(schema))
