"""Python's `kubernetes` package, unmodified: what programs that are written with it do.

Run with the namespace to work in, which is there. Ends with "done" or with an exception that says what was not so.
"""

import sys
import tempfile

from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward, stream

namespace = sys.argv[1]
config.load_kube_config()
core, apps = client.CoreV1Api(), client.AppsV1Api()


def refused(status, reason, call):
    """The call ends in an ApiException with this status, whose body is a Status with this reason."""
    try:
        call()
    except ApiException as e:
        assert e.status == status and f'"reason":"{reason}"' in e.body.replace(": ", ":"), e
    else:
        raise AssertionError(f"should have been refused with {status} {reason}")


def a_deployment_and_its_pods():
    container = client.V1Container(name="web", image="nginx:live", command=["sh", "-c", "echo serving; exec /bin/serve"])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "web"}),
        spec=client.V1PodSpec(containers=[container], termination_grace_period_seconds=0),
    )
    spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels={"app": "web"}), template=template)
    made = apps.create_namespaced_deployment(namespace, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec))
    assert made.metadata.uid and made.metadata.generation == 1 and made.spec.strategy.type == "RollingUpdate", made
    refused(409, "AlreadyExists", lambda: apps.create_namespaced_deployment(namespace, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec)))
    refused(404, "NotFound", lambda: apps.read_namespaced_deployment("absent", namespace))

    # From the list's version on, no event is lost between the two.
    listed = core.list_namespaced_pod(namespace, label_selector="app=web")
    name = next((pod.metadata.name for pod in listed.items if ready(pod)), None)
    watcher, kinds = watch.Watch(), []
    if not name:
        for event in watcher.stream(
            core.list_namespaced_pod, namespace, label_selector="app=web", resource_version=listed.metadata.resource_version, timeout_seconds=60
        ):
            kinds.append(event["type"])
            if ready(event["object"]):
                name = event["object"].metadata.name
                watcher.stop()
    assert name and "DELETED" not in kinds, kinds

    assert "serving\n" in core.read_namespaced_pod_log(name, namespace)
    lines = watch.Watch().stream(core.read_namespaced_pod_log, name, namespace, follow=True)
    assert next(lines) == "serving"

    def run(command, **options):
        return stream(core.connect_get_namespaced_pod_exec, name, namespace, command=command, stdout=True, stderr=True, **options)

    assert run(["cat", "/var/www/index.html"]) == "<h1>Welcome to nginx!</h1>\n"
    shell = run(["sh"], stdin=True, tty=False, _preload_content=False)
    shell.write_stdin("echo to-stdout; echo to-stderr >&2; exit 7\n")
    shell.run_forever(timeout=30)
    assert (shell.read_stdout(), shell.read_stderr(), shell.returncode) == ("to-stdout\n", "to-stderr\n", 7), shell.returncode
    forwarded = portforward(core.connect_get_namespaced_pod_portforward, name, namespace, ports="80")
    socket = forwarded.socket(80)
    socket.sendall(b"GET / HTTP/1.0\r\n\r\n")
    page = b""
    while part := socket.recv(4096):
        page += part
    assert b"Welcome to nginx!" in page and forwarded.error(80) is None, page

    # A dict is a strategic merge patch, a list a JSON patch.
    patched = apps.patch_namespaced_deployment("web", namespace, {"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "A", "value": "b"}]}]}}}})
    assert patched.spec.template.spec.containers[0].image == "nginx:live" and patched.metadata.generation == 2, patched
    patched = apps.patch_namespaced_deployment("web", namespace, [{"op": "replace", "path": "/spec/replicas", "value": 0}])
    assert patched.spec.replicas == 0
    assert apps.read_namespaced_deployment_scale("web", namespace).spec.replicas == 0
    # A stale object does not overwrite.
    refused(409, "Conflict", lambda: apps.replace_namespaced_deployment("web", namespace, made))

    apps.delete_namespaced_deployment("web", namespace, propagation_policy="Foreground")
    for event in watch.Watch().stream(apps.list_namespaced_deployment, namespace, timeout_seconds=60):
        if event["type"] == "DELETED":
            break
    else:
        raise AssertionError("the deployment is not gone")
    refused(404, "NotFound", lambda: apps.read_namespaced_deployment("web", namespace))
    assert core.list_namespaced_pod(namespace).items == []


def ready(pod):
    return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])


def pages():
    for i in range(7):
        core.create_namespaced_config_map(namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"page-{i}", labels={"a": "page"})))
    names, sizes, token = [], [], None
    while True:
        page = core.list_namespaced_config_map(namespace, label_selector="a=page", limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        sizes.append(len(page.items))
        token = page.metadata._continue
        if not token:
            break
        # What comes or goes between pages is not in this list.
        core.delete_namespaced_config_map("page-6", namespace) if len(sizes) == 1 else None
    assert sizes == [3, 3, 1] and names == [f"page-{i}" for i in range(7)], (sizes, names)
    core.delete_collection_namespaced_config_map(namespace, label_selector="a=page")
    assert core.list_namespaced_config_map(namespace, label_selector="a=page").items == []


def from_yaml():
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: yaml}\ndata: {a: '1'}\n---\n")
        file.write("apiVersion: v1\nkind: Service\nmetadata: {name: yaml}\nspec: {ports: [{port: 80}]}\n")
        file.flush()
        utils.create_from_yaml(client.ApiClient(), file.name, namespace=namespace)
        try:
            utils.create_from_yaml(client.ApiClient(), file.name, namespace=namespace)
            raise AssertionError("made twice")
        except utils.FailToCreateError as e:
            assert [x.status for x in e.api_exceptions] == [409, 409], e
    assert core.read_namespaced_service("yaml", namespace).spec.cluster_ip.count(".") == 3


def by_kind_at_run_time():
    found = dynamic.DynamicClient(client.ApiClient())
    maps = found.resources.get(api_version="v1", kind="ConfigMap")
    made = maps.create(body={"metadata": {"name": "dynamic"}, "data": {"a": "1"}}, namespace=namespace)
    assert made.data.a == "1"
    maps.patch(name="dynamic", namespace=namespace, body={"data": {"b": "2"}}, content_type="application/merge-patch+json")
    applied = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}, "data": {"c": "3"}}
    assert maps.server_side_apply(name="dynamic", namespace=namespace, body=applied, field_manager="python").data.to_dict() == {"a": "1", "b": "2", "c": "3"}
    kinds = [e["type"] for e in maps.watch(namespace=namespace, name="dynamic", timeout=1)]
    assert kinds == ["ADDED"], kinds
    assert [r.name for r in found.resources.search(kind="Deployment", api_version="apps/v1") if "/" not in r.name] == ["deployments"]
    maps.delete(name="dynamic", namespace=namespace)
    try:
        maps.get(name="dynamic", namespace=namespace)
        raise AssertionError("it is still there")
    except dynamic.exceptions.NotFoundError:
        pass


assert client.VersionApi().get_code().git_version.startswith("v1.36")
for story in (a_deployment_and_its_pods, pages, from_yaml, by_kind_at_run_time):
    story()
print("done")
