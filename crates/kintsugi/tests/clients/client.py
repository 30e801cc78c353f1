"""What the Python client does with a cluster: typed and dynamic objects, watches, logs, exec. Prints `all good`."""

import sys

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import stream

SPACE = "python"
IMAGE = "kintsugi.dev/demo/web:latest"

config.load_kube_config(sys.argv[1])
core, apps, api = client.CoreV1Api(), client.AppsV1Api(), client.ApiextensionsV1Api()

# Typed objects, with their errors.
core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=SPACE)))
made = core.create_namespaced_config_map(SPACE, client.V1ConfigMap(
    metadata=client.V1ObjectMeta(generate_name="c-", labels={"tier": "gold"}), data={"a": "1"}))
assert made.metadata.name.startswith("c-") and made.metadata.creation_timestamp is not None
patched = core.patch_namespaced_config_map(made.metadata.name, SPACE, {"data": {"b": "2"}})
assert patched.data == {"a": "1", "b": "2"}
stale = core.read_namespaced_config_map(made.metadata.name, SPACE)
stale.metadata.resource_version = made.metadata.resource_version
for asked, code, reason in [
    (lambda: core.replace_namespaced_config_map(made.metadata.name, SPACE, stale), 409, "Conflict"),
    (lambda: core.read_namespaced_config_map("none", SPACE), 404, "NotFound"),
    (lambda: core.create_namespaced_pod(SPACE, {"metadata": {"name": "no containers"}}), 422, "Invalid"),
]:
    try:
        asked()
        raise AssertionError(f"{reason} expected")
    except ApiException as error:
        assert error.status == code and f'"reason":"{reason}"' in error.body, error
page = core.list_namespaced_config_map(SPACE, limit=1)
rest = core.list_namespaced_config_map(SPACE, limit=10, _continue=page.metadata._continue)
assert page.metadata.remaining_item_count == len(rest.items) == 1

# A Deployment until it is ready, seen by a watch.
pod = {"containers": [{"name": "web", "image": IMAGE, "imagePullPolicy": "Never", "args": ["8080"],
                       "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 1}}],
       "terminationGracePeriodSeconds": 1}
apps.create_namespaced_deployment(SPACE, {
    "metadata": {"name": "web"},
    "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
             "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod}}})
ready = 0
for event in watch.Watch().stream(apps.list_namespaced_deployment, SPACE, timeout_seconds=120):
    ready = event["object"].status.ready_replicas or 0
    if ready == 2:
        break
assert ready == 2
apps.patch_namespaced_deployment_scale("web", SPACE, {"spec": {"replicas": 1}})
assert apps.read_namespaced_deployment_scale("web", SPACE).spec.replicas == 1
for _ in watch.Watch().stream(core.list_namespaced_pod, SPACE, label_selector="app=web", timeout_seconds=120):
    running = core.list_namespaced_pod(SPACE, label_selector="app=web").items
    if len(running) == 1:
        break
name = running[0].metadata.name

# Bytes: what it says, and a command in it.
assert "8080" in core.read_namespaced_pod_log(name, SPACE)
said = stream(core.connect_get_namespaced_pod_exec, name, SPACE, command=["/kintsugi", "tool", "echo", "hello"],
              stdout=True, stderr=True, stdin=False, tty=False)
assert said.strip() == "hello", said

# A kind of the user's own, by the dynamic client.
api.create_custom_resource_definition({
    "metadata": {"name": "cups.python.example"},
    "spec": {"group": "python.example", "scope": "Namespaced", "names": {"kind": "Cup", "plural": "cups"},
             "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
                 "type": "object", "properties": {"spec": {"type": "object", "properties": {
                     "size": {"type": "integer", "default": 3}}}}}}}]}})
for event in watch.Watch().stream(api.list_custom_resource_definition, timeout_seconds=60,
                                  field_selector="metadata.name=cups.python.example"):
    conditions = event["object"].status.conditions or []
    if any(one.type == "Established" and one.status == "True" for one in conditions):
        break
cups = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="python.example/v1", kind="Cup")
cup = cups.create(namespace=SPACE, body={
    "apiVersion": "python.example/v1", "kind": "Cup", "metadata": {"name": "tea"}, "spec": {}})
assert cup.spec.size == 3
applied = cups.server_side_apply(namespace=SPACE, name="tea", field_manager="python", body={
    "apiVersion": "python.example/v1", "kind": "Cup", "metadata": {"name": "tea"}, "spec": {"size": 5}},
    force_conflicts=True)
assert applied.spec.size == 5
assert [one.metadata.name for one in cups.get(namespace=SPACE).items] == ["tea"]
api.delete_custom_resource_definition("cups.python.example")
core.delete_namespace(SPACE)
print("all good")
