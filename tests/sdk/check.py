"""An InferenceService by KServe's Python SDK, as a user of KServe writes it, against a cluster that leanserve serves.

Creates one service with the SDK, waits for it and for one that somebody applied by kubectl with the SDK's own wait calls,
reads both back, deletes them, and waits until nothing of them is left.
"""

import argparse
import sys
import time

from kserve import (
    KServeClient,
    V1beta1InferenceService,
    V1beta1InferenceServiceSpec,
    V1beta1ModelFormat,
    V1beta1ModelSpec,
    V1beta1PredictorSpec,
)
from kubernetes import client, config

CREATED = "by-sdk"
PATIENCE = 120


def service(namespace):
    return V1beta1InferenceService(
        api_version="serving.kserve.io/v1beta1",
        kind="InferenceService",
        metadata=client.V1ObjectMeta(name=CREATED, namespace=namespace),
        spec=V1beta1InferenceServiceSpec(
            predictor=V1beta1PredictorSpec(
                min_replicas=1,
                model=V1beta1ModelSpec(
                    model_format=V1beta1ModelFormat(name="sklearn"),
                    storage_uri="gs://models/iris",
                ),
            )
        ),
    )


def check(what, holds):
    print(f"{'ok' if holds else 'FAILED'}: {what}")
    if not holds:
        sys.exit(1)


def check_read_back(kserve, namespace, name):
    found = kserve.get(name, namespace=namespace)
    status = found["status"]
    conditions = {entry["type"]: entry["status"] for entry in status["conditions"]}
    check(f"{name}: conditions {conditions}", conditions["Ready"] == "True" == conditions["PredictorReady"])
    check(f"{name}: url {status['url']}", status["url"] == f"http://{name}-{namespace}.example.com")
    address = f"http://{name}-predictor.{namespace}.svc.cluster.local"
    check(f"{name}: address {status['address']['url']}", status["address"]["url"] == address)
    check(f"{name}: modelStatus {status['modelStatus']['transitionStatus']}",
          status["modelStatus"]["transitionStatus"] == "UpToDate")


def wait_until_loaded(kserve, namespace, name):
    """The model's state follows readiness one pass later, as in KServe."""
    for _ in range(PATIENCE):
        status = kserve.get(name, namespace=namespace).get("status", {})
        if status.get("modelStatus", {}).get("transitionStatus") == "UpToDate":
            return
        time.sleep(1)
    check(f"{name}: the model is reported as loaded", False)


def left(namespace):
    """What is there of services and their children."""
    apps, core = client.AppsV1Api(), client.CoreV1Api()
    scaling, network = client.AutoscalingV2Api(), client.NetworkingV1Api()
    custom = client.CustomObjectsApi()
    services = custom.list_namespaced_custom_object("serving.kserve.io", "v1beta1", namespace, "inferenceservices")
    names = [f"InferenceService {item['metadata']['name']}" for item in services["items"]]
    lists = {
        "Deployment": apps.list_namespaced_deployment,
        "ReplicaSet": apps.list_namespaced_replica_set,
        "Service": core.list_namespaced_service,
        "Pod": core.list_namespaced_pod,
        "HorizontalPodAutoscaler": scaling.list_namespaced_horizontal_pod_autoscaler,
        "Ingress": network.list_namespaced_ingress,
    }
    for kind, listing in lists.items():
        names += [f"{kind} {item.metadata.name}" for item in listing(namespace).items]
    return names


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kubeconfig", required=True)
    arguments.add_argument("--namespace", required=True)
    arguments.add_argument("--applied", required=True, help="name of the service that kubectl applied")
    arguments = arguments.parse_args()
    namespace = arguments.namespace
    config.load_kube_config(config_file=arguments.kubeconfig)
    kserve = KServeClient(config_file=arguments.kubeconfig)

    kserve.create(service(namespace), namespace=namespace)
    for name in (CREATED, arguments.applied):
        kserve.wait_isvc_ready(name, namespace=namespace, timeout_seconds=PATIENCE, polling_interval=1)
        print(f"ok: {name}: wait_isvc_ready returned")
    kserve.wait_isvc_ready(CREATED, namespace=namespace, watch=True, timeout_seconds=PATIENCE)
    print(f"ok: {CREATED}: wait_isvc_ready(watch=True) returned")
    for name in (CREATED, arguments.applied):
        wait_until_loaded(kserve, namespace, name)
        check_read_back(kserve, namespace, name)

    for name in (CREATED, arguments.applied):
        kserve.delete(name, namespace=namespace)
    remaining = left(namespace)
    for _ in range(PATIENCE):
        if not remaining:
            break
        time.sleep(1)
        remaining = left(namespace)
    check(f"deleted, and nothing is left: {remaining}", not remaining)


if __name__ == "__main__":
    main()
