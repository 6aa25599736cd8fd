"""A real control plane for the tests: one per process, ended with it."""

import atexit
import functools
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time

from manifests import ROOT, run

# The first start on a machine builds Kubernetes.
START_TIMEOUT = 3600
STOP_TIMEOUT = 60


class Cluster:
    """A control plane by its kubeconfig."""

    def __init__(self, kubeconfig, kubectl):
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl

    def environment(self):
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def kubectl(self, *arguments, **more):
        return run(self._kubectl, *arguments, env=self.environment(), **more)

    def read(self, *arguments):
        """An object as data."""
        return json.loads(self.kubectl("get", "--output=json", *arguments))

    def wait_until(self, what, condition, seconds=120):
        """Waits until `condition` returns something true, and returns that."""
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {seconds} s")
            time.sleep(0.2)


@functools.cache
def cluster():
    """Starts the project's control plane. CONTROL_PLANE may name its program, which is built otherwise."""
    program = os.environ.get("CONTROL_PLANE")
    cargo = os.environ.get("CARGO", "cargo")
    command = [program] if program else [cargo, "run", "--quiet", "--package", "testkit", "--bin", "control-plane", "--"]
    # It ends when its standard input does, so also when this process is killed.
    process = subprocess.Popen(
        [*command, "run"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    )

    def stop():
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()

    atexit.register(stop)
    lines = queue.Queue()
    threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
    try:
        line = lines.get(timeout=START_TIMEOUT)
    except queue.Empty:
        raise AssertionError("the control plane does not start") from None
    if not line:
        raise AssertionError("the control plane ended at once")
    told = json.loads(line)
    return Cluster(pathlib.Path(told["kubeconfig"]), told["kubectl"])
