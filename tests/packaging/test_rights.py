"""Which rights on Secrets an installation gives, and whose they are."""

import unittest

import manifests
from test_cluster import EVERYTHING, KUSTOMIZATIONS

ALL_VERBS = {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "*"}


def rights(objects, resource):
    """(role, verb) for every right on a resource of the core group."""
    return {
        (item["metadata"]["name"], verb)
        for item in objects
        if item["kind"] in ("Role", "ClusterRole")
        for rule in item["rules"]
        if {"", "*"} & set(rule["apiGroups"]) and {resource, "*"} & set(rule["resources"])
        for verb in (ALL_VERBS if "*" in rule["verbs"] else rule["verbs"])
    }


class Rights(unittest.TestCase):
    def test_secrets_are_read_by_name_unless_the_watch_is_asked_for(self):
        by_name = {("leanserve-credentials", "get")}
        watched = by_name | {("leanserve-credentials", "list"), ("leanserve-credentials", "watch")}
        self.assertEqual(rights(manifests.chart(), "secrets"), by_name)
        self.assertEqual(rights(manifests.chart({"secretAccess": {"watch": True}}), "secrets"), watched)
        for folders in KUSTOMIZATIONS:
            expected = watched if "overlays/watch" in folders else by_name
            if "components/webhook" in folders:
                expected = expected | {("leanserve-webhook", "get"), ("leanserve-webhook", "patch")}
            self.assertEqual(rights(manifests.kustomization(*folders), "secrets"), expected, folders)

    def test_events_are_made_in_their_own_group_alone(self):
        self.assertEqual(rights(manifests.chart({"watchNamespaces": ["a"]}), "events"), set())
        self.assertEqual(rights(manifests.chart(), "events"), set())

    def test_no_right_is_on_everything(self):
        for item in manifests.chart(EVERYTHING):
            for rule in item.get("rules", []) if item["kind"] in ("Role", "ClusterRole") else []:
                self.assertNotIn("*", rule["apiGroups"] + rule["resources"] + rule["verbs"], item["metadata"]["name"])

    def test_every_role_is_bound_to_the_account_and_to_nobody_else(self):
        for values in ({}, EVERYTHING):
            objects = manifests.chart(values)
            accounts = {item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount"}
            others = {name for name in accounts if name.endswith(("-audit", "-webhook"))}
            (controller,) = accounts - others
            roles = {(item["kind"], item["metadata"]["name"]) for item in objects if item["kind"].endswith("Role")}
            bindings = [item for item in objects if item["kind"].endswith("RoleBinding")]
            self.assertEqual({(item["roleRef"]["kind"], item["roleRef"]["name"]) for item in bindings}, roles)
            for item in bindings:
                # Roles of the binary other than the controller have accounts of their own, called as their rights are.
                own = item["metadata"]["name"].removesuffix("-references")
                subject = {
                    "kind": "ServiceAccount",
                    "name": own if own in others else controller,
                    "namespace": manifests.NAMESPACE,
                }
                self.assertEqual(item["subjects"], [subject])

    def test_the_webhook_reads_by_name_and_writes_its_own(self):
        for more, verbs in (({}, {"get", "patch"}), ({"certificate": {"secretName": "mounted"}}, {"get"})):
            given = rights(manifests.chart({"webhook": {"enabled": True, **more}}), "secrets")
            self.assertEqual({verb for role, verb in given if role == "leanserve-webhook"}, verbs)

    def test_with_namespaces_nothing_reads_secrets_anywhere_else(self):
        values = {"watchNamespaces": ["a", "b"], "policies": {"enabled": True}, "audit": {"enabled": True}}
        objects = manifests.chart({**values, "webhook": {"enabled": True}})
        readers = {
            item["metadata"]["name"]
            for item in objects
            if item["kind"] == "ClusterRole" and rights([item], "secrets") | rights([item], "serviceaccounts")
        }
        bound = [item for item in objects if "roleRef" in item and item["roleRef"]["kind"] == "ClusterRole"]
        bound = [item for item in bound if item["roleRef"]["name"] in readers]
        self.assertEqual(len(readers), 2, "of the controller and of the webhook")
        places = {(item["roleRef"]["name"], item["metadata"].get("namespace")) for item in bound}
        self.assertEqual(places, {(role, namespace) for role in readers for namespace in ("a", "b")})
        (webhook,) = (item for item in objects if item["kind"] == "ValidatingWebhookConfiguration")
        selected = webhook["webhooks"][0]["namespaceSelector"]["matchExpressions"]
        self.assertIn({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}, selected)


if __name__ == "__main__":
    unittest.main()
